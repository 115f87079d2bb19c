//! Verifies passwords with nothing round it: the function alone, which no login without a cache
//! can be cheaper than. Memory is kept from one to the next, as the gateway's threads keep it.
//!
//! `hashes [--seconds 4] [--memory 19456] [--passes 2]`

use std::error::Error;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Block, Params, Version};

use syncgate_load::arguments::Arguments;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::from_env()?;
    let seconds: f64 = arguments.value("seconds", 4.0)?;
    let memory: u32 = arguments.value("memory", 19_456)?;
    let passes: u32 = arguments.value("passes", 2)?;
    arguments.finish()?;

    let params = Params::new(memory, passes, 1, None)?;
    let mut blocks = vec![Block::new(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut tag = [0; 32];
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    let mut done = 0_u64;
    while Instant::now() < end {
        argon2.hash_password_into_with_memory(
            b"correct horse battery staple",
            &[0x5a; 16],
            &mut tag,
            &mut blocks,
        )?;
        done += 1;
    }
    let took = begin.elapsed().as_secs_f64();
    println!(r#"{{"done":{done},"errors":0,"seconds":{took:.6}}}"#);
    Ok(())
}
