//! A new TLS connection for each request, certificates unchecked so that the client is not
//! the bottleneck.
//!
//! `handshakes --connect ADDRESS --token TOKEN [--seconds 4] [--concurrency 16]
//! [--resumption false] [--post-quantum false] [--path /api/SyncData] [--expect 401]`

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use syncgate_load::arguments::Arguments;
use syncgate_load::connection::{Connection, request};
use syncgate_load::report::Latencies;
use syncgate_load::tls::{self, Offer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::from_env()?;
    let address: SocketAddr = arguments.required("connect")?;
    let token: String = arguments.required("token")?;
    let seconds: f64 = arguments.value("seconds", 4.0)?;
    let concurrency: usize = arguments.value("concurrency", 16)?;
    let resumption = arguments.value("resumption", false)?;
    let post_quantum = arguments.value("post-quantum", false)?;
    let path: String = arguments.value("path", String::from("/api/SyncData"))?;
    let expected: u16 = arguments.value("expect", 401)?;
    arguments.finish()?;

    let config = tls::client(Offer {
        resumption,
        post_quantum,
    })?;
    let request = request(&path, &token, 0);
    let mut poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let open = |slot: usize| -> io::Result<(Connection, Instant)> {
        let mut connection = Connection::open(&registry, Token(slot), address, &config)?;
        connection.send(&request)?;
        Ok((connection, Instant::now()))
    };

    let mut slots = (0..concurrency).map(open).collect::<io::Result<Vec<_>>>()?;
    let mut latencies = Latencies::default();
    let (mut resumed, mut hybrid, mut errors) = (0_u64, 0_u64, 0_u64);
    let mut events = Events::with_capacity(1024);
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        match poll.poll(&mut events, Some(Duration::from_millis(200))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in events.iter() {
            let index = event.token().0;
            let (connection, opened) = &mut slots[index];
            match connection.advance() {
                Ok(None) => continue,
                Ok(Some(status)) => {
                    latencies.push(opened.elapsed());
                    resumed += u64::from(connection.resumed());
                    hybrid += u64::from(connection.post_quantum());
                    errors += u64::from(status != expected);
                }
                Err(_) => errors += 1,
            }
            let (old, _) = std::mem::replace(&mut slots[index], open(index)?);
            old.close();
        }
    }
    let done = latencies.count();
    let rate = done as f64 / begin.elapsed().as_secs_f64();
    println!(
        r#"{{"done":{done},"errors":{errors},"resumed":{resumed},"post_quantum":{hybrid},"rate":{rate:.1},{}}}"#,
        latencies.members()
    );
    Ok(())
}
