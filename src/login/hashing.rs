//! Password hashes: making, validating and verifying them on threads of their own.
//!
//! Verification is the one costly step that a stranger can ask for, so it has its own few threads
//! of low priority, a bounded queue, and the same work for a user that exists and one that does not.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::sync::oneshot;

use super::body::Password;

/// A password hash that is safe to verify: argon2id, and its cost within the caps.
///
/// The cost of a verification comes from the stored hash, so it is bounded here, once.
#[derive(Clone)]
pub struct PasswordHash {
    params: Params,
    salt: phc::Salt,
    tag: phc::Output,
}

impl PasswordHash {
    /// Reads a PHC string, `$argon2id$v=19$m=19456,t=2,p=1$<salt>$<tag>`.
    ///
    /// # Errors
    /// When the string is malformed, another algorithm or version, or over a cap of cost.
    pub fn parse(text: &str) -> Result<Self, PasswordHashError> {
        let stored = phc::PasswordHash::new(text).map_err(|_| PasswordHashError::Malformed)?;
        if stored.algorithm != argon2::ARGON2ID_IDENT {
            return Err(PasswordHashError::Algorithm(stored.algorithm.to_string()));
        }
        if stored.version != Some(Version::V0x13.into()) {
            return Err(PasswordHashError::Version);
        }
        let (Some(salt), Some(tag)) = (stored.salt, stored.hash) else {
            return Err(PasswordHashError::Malformed);
        };
        if tag.len() < MIN_TAG {
            return Err(PasswordHashError::ShortTag);
        }
        let params = Params::try_from(&stored).map_err(|_| PasswordHashError::Parameters)?;
        if !params.keyid().is_empty() || !params.data().is_empty() {
            return Err(PasswordHashError::Parameters);
        }
        for (name, value, cap) in [
            ("m", params.m_cost(), MAX_MEMORY_KIB),
            ("t", params.t_cost(), MAX_PASSES),
            ("p", params.p_cost(), MAX_LANES),
        ] {
            if value > cap {
                return Err(PasswordHashError::TooCostly { name, value, cap });
            }
        }
        Ok(Self { params, salt, tag })
    }

    /// True when verifying costs as much as for an unknown user, so that time tells nothing.
    #[must_use]
    pub fn has_standard_cost(&self) -> bool {
        let (ours, standard) = (&self.params, standard_params());
        (ours.m_cost(), ours.t_cost(), ours.p_cost())
            == (standard.m_cost(), standard.t_cost(), standard.p_cost())
    }

    /// Verifies in the memory given, which grows to what this hash needs and is left as it is:
    /// its next use overwrites it, and nothing in it leads back to the password more easily than
    /// the stored hash does.
    fn verify(&self, password: &Password, memory: &mut Vec<Block>) -> Result<bool, argon2::Error> {
        let needed = self.params.block_count();
        if memory.len() < needed {
            memory.resize(needed, Block::new());
        }
        let mut bytes = [0; phc::Output::MAX_LENGTH];
        let computed = &mut bytes[..self.tag.len()];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone())
            .hash_password_into_with_memory(
                password.expose(),
                &self.salt,
                computed,
                memory.as_mut_slice(),
            )?;
        // The comparison of `Output` takes constant time.
        Ok(phc::Output::new(computed).is_ok_and(|computed| computed == self.tag))
    }

    /// The hash that unknown users are verified against. No password is known to match it, and
    /// the answer does not depend on it.
    fn decoy() -> Self {
        let salt = phc::Salt::new(&[0x5a; SALT_LENGTH]).expect("16 bytes are a salt");
        let tag = phc::Output::new(&[0xa5; TAG_LENGTH]).expect("32 bytes are a tag");
        let params = standard_params();
        Self { params, salt, tag }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash")
            .field("m", &self.params.m_cost())
            .field("t", &self.params.t_cost())
            .field("p", &self.params.p_cost())
            .finish_non_exhaustive()
    }
}

/// Why a string is no password hash that can be used here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PasswordHashError {
    /// Not a PHC string with salt and tag.
    #[error("not a password hash; make one with `syncgate hash`")]
    Malformed,
    /// Another algorithm than argon2id.
    #[error(
        "password hashes of `{0}` cannot be used, only argon2id; make one with `syncgate hash`"
    )]
    Algorithm(String),
    /// Another version than 19 (0x13), or none.
    #[error("the hash must say `v=19`, the present version of argon2id")]
    Version,
    /// Parameters that are unknown, out of range or do not fit each other.
    #[error(
        "the parameters of the hash are not those of argon2id: m, t and p, m at least 8 times p"
    )]
    Parameters,
    /// A tag too short to be safe.
    #[error("the hash is shorter than {MIN_TAG} bytes")]
    ShortTag,
    /// A cost that would let one login take too much memory or time.
    #[error("the hash costs too much to verify: {name}={value}, at most {name}={cap} is allowed")]
    TooCostly {
        /// Name of the parameter.
        name: &'static str,
        /// Its value in the hash.
        value: u32,
        /// The most that is allowed.
        cap: u32,
    },
}

/// The operating system gave no random bytes, or no memory.
#[derive(Debug, Error)]
#[error("the password could not be hashed: the system gave no random numbers or no memory")]
pub struct HashingFailed;

/// Hashes a password for storing, as a PHC string with a fresh salt.
///
/// # Errors
/// When the system's random numbers or memory fail.
pub fn hash_password(password: &Password) -> Result<String, HashingFailed> {
    let mut salt = [0; SALT_LENGTH];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| HashingFailed)?;
    let mut tag = [0; TAG_LENGTH];
    let params = standard_params();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into(password.expose(), &salt, &mut tag)
        .map_err(|_| HashingFailed)?;
    let stored = phc::PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: phc::ParamsString::try_from(&params).map_err(|_| HashingFailed)?,
        salt: Some(phc::Salt::new(&salt).map_err(|_| HashingFailed)?),
        hash: Some(phc::Output::new(&tag).map_err(|_| HashingFailed)?),
    };
    Ok(stored.to_string())
}

/// Threads that verify passwords, and the bounded queue in front of them.
///
/// Dropping the pool ends the threads after the job each is at; jobs still queued are dropped.
#[derive(Debug)]
pub struct HashingPool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

/// No room in the queue of the hashing threads, or they are stopping: answer 503 and do not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("password hashing is saturated")]
pub struct Saturated;

impl HashingPool {
    /// Starts the threads. `queue` bounds the jobs that wait, not those being worked at.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(threads: NonZeroUsize, queue: NonZeroUsize) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::new(QueueState {
                jobs: VecDeque::new(),
                closed: false,
            }),
            filled: Condvar::new(),
            bound: queue.get(),
        });
        let mut pool = Self {
            queue,
            threads: Vec::with_capacity(threads.get()),
        };
        for index in 0..threads.get() {
            let queue = Arc::clone(&pool.queue);
            let thread = thread::Builder::new()
                .name(format!("syncgate-hash-{index}"))
                .spawn(move || work(&queue))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Verifies a password; `None` stands for a user that does not exist or may not sign in, costs
    /// the same, and is always false.
    ///
    /// Runs on any executor. Cancel safe: a job whose caller is gone is skipped.
    ///
    /// # Errors
    /// At once when the queue is full; later when the pool ends before the job was done.
    pub async fn verify(
        &self,
        password: Password,
        hash: Option<Arc<PasswordHash>>,
    ) -> Result<bool, Saturated> {
        let (answer, verdict) = oneshot::channel();
        self.queue.push(Job {
            password,
            hash,
            answer,
        })?;
        verdict.await.map_err(|_| Saturated)
    }
}

impl Drop for HashingPool {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // The loop of a thread catches panics, so there is nothing to learn from the result.
            let _ = thread.join();
        }
    }
}

struct Job {
    password: Password,
    hash: Option<Arc<PasswordHash>>,
    answer: oneshot::Sender<bool>,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<QueueState>,
    filled: Condvar,
    bound: usize,
}

struct QueueState {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl fmt::Debug for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueState")
            .field("jobs", &self.jobs.len())
            .field("closed", &self.closed)
            .finish()
    }
}

impl Queue {
    fn push(&self, job: Job) -> Result<(), Saturated> {
        let mut state = self.lock();
        if state.jobs.len() >= self.bound {
            // Callers that gave up must not keep others out.
            state.jobs.retain(|job| !job.answer.is_closed());
        }
        if state.closed || state.jobs.len() >= self.bound {
            return Err(Saturated);
        }
        state.jobs.push_back(job);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for a job whose caller still waits; `None` once the pool is closed.
    fn pop(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            match state.jobs.pop_front() {
                Some(job) if job.answer.is_closed() => {}
                Some(job) => return Some(job),
                None => {
                    state = self
                        .filled
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner)
                }
            }
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.filled.notify_all();
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread: keeps its memory from job to job, since fresh pages cost a third of the time.
fn work(queue: &Queue) {
    lower_priority();
    let decoy = PasswordHash::decoy();
    let mut memory = Vec::new();
    while let Some(Job {
        password,
        hash,
        answer,
    }) = queue.pop()
    {
        let known = hash.is_some();
        let hash = hash.as_deref().unwrap_or(&decoy);
        let verified = catch_unwind(AssertUnwindSafe(|| hash.verify(&password, &mut memory)));
        let matches = match verified {
            Ok(Ok(matches)) => matches,
            Ok(Err(error)) => {
                tracing::error!(%error, "a password could not be verified");
                false
            }
            Err(_) => {
                tracing::error!("a password could not be verified: the hashing code panicked");
                false
            }
        };
        // A caller that is gone needs no answer.
        let _ = answer.send(matches && known);
    }
}

/// Lets forwarding go first. A refusal costs nothing but that.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        let thread = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(thread), NICENESS) {
            tracing::warn!(%error, "password hashing keeps its normal priority");
        }
    }
}

/// The parameters OWASP recommends first for argon2id: 19 MiB, 2 passes, 1 lane.
fn standard_params() -> Params {
    Params::new(19_456, 2, 1, Some(TAG_LENGTH)).expect("the standard parameters are in range")
}

const SALT_LENGTH: usize = 16;
const TAG_LENGTH: usize = 32;
const MIN_TAG: usize = 16;
const MAX_MEMORY_KIB: u32 = 65_536;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 4;
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// From the test suite of the reference implementation.
    const REFERENCE: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
                             $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    fn pool() -> HashingPool {
        HashingPool::start(NonZeroUsize::MIN, NonZeroUsize::MIN).expect("threads")
    }

    fn stored(text: &str) -> Option<Arc<PasswordHash>> {
        Some(Arc::new(PasswordHash::parse(text).expect("a usable hash")))
    }

    fn waiting(queue: &Queue) -> Result<oneshot::Receiver<bool>, Saturated> {
        let (answer, verdict) = oneshot::channel();
        queue
            .push(Job {
                password: password("p"),
                hash: None,
                answer,
            })
            .map(|()| verdict)
    }

    fn idle_queue(bound: usize) -> Queue {
        let state = QueueState {
            jobs: VecDeque::new(),
            closed: false,
        };
        Queue {
            state: Mutex::new(state),
            filled: Condvar::new(),
            bound,
        }
    }

    #[tokio::test]
    async fn verifies_what_it_hashed_and_nothing_else() {
        let text = hash_password(&password("correct horse")).expect("hashed");
        assert!(
            text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{text}"
        );
        let hash = stored(&text);
        assert!(hash.as_ref().is_some_and(|hash| hash.has_standard_cost()));
        let pool = pool();
        for (attempt, expected) in [
            ("correct horse", true),
            ("Correct horse", false),
            ("", false),
        ] {
            let verdict = pool.verify(password(attempt), hash.clone()).await;
            assert_eq!(verdict, Ok(expected), "{attempt}");
        }
        let again = hash_password(&password("correct horse")).expect("hashed");
        assert_ne!(text, again, "every hash has its own salt");
    }

    #[tokio::test]
    async fn agrees_with_the_reference_implementation_also_in_used_memory() {
        let pool = pool();
        let small = stored(&hash_password(&password("other")).expect("hashed"));
        let hash = stored(REFERENCE);
        for _ in 0..2 {
            assert_eq!(
                pool.verify(password("other"), small.clone()).await,
                Ok(true)
            );
            assert_eq!(
                pool.verify(password("password"), hash.clone()).await,
                Ok(true)
            );
            assert_eq!(
                pool.verify(password("passwore"), hash.clone()).await,
                Ok(false)
            );
        }
    }

    #[tokio::test]
    async fn an_unknown_user_never_signs_in() {
        assert_eq!(pool().verify(password(""), None).await, Ok(false));
        assert!(PasswordHash::decoy().has_standard_cost());
    }

    #[test]
    fn refuses_hashes_that_are_weak_foreign_or_costly() {
        use PasswordHashError as E;
        let costly = |name, value, cap| E::TooCostly { name, value, cap };
        let tail = "c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let cases = [
            ("", E::Malformed),
            ("secret", E::Malformed),
            ("$argon2id$v=19$m=19456,t=2,p=1", E::Malformed),
            (
                "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
                E::Malformed,
            ),
            (
                &format!("$argon2i$v=19$m=19456,t=2,p=1${tail}"),
                E::Algorithm("argon2i".into()),
            ),
            (
                &format!("$argon2id$v=16$m=19456,t=2,p=1${tail}"),
                E::Version,
            ),
            (&format!("$argon2id$m=19456,t=2,p=1${tail}"), E::Version),
            (&format!("$argon2id$v=19$m=7,t=2,p=1${tail}"), E::Parameters),
            (
                &format!("$argon2id$v=19$m=19456,t=0,p=1${tail}"),
                E::Parameters,
            ),
            (
                &format!("$argon2id$v=19$m=19456,t=2,p=1,x=1${tail}"),
                E::Parameters,
            ),
            (
                &format!("$argon2id$v=19$m=19456,t=2,p=1,keyid=YQ${tail}"),
                E::Parameters,
            ),
            (
                "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6M",
                E::ShortTag,
            ),
            (
                &format!("$argon2id$v=19$m=65537,t=2,p=1${tail}"),
                costly("m", 65_537, 65_536),
            ),
            (
                &format!("$argon2id$v=19$m=4294967295,t=2,p=1${tail}"),
                costly("m", u32::MAX, 65_536),
            ),
            (
                &format!("$argon2id$v=19$m=19456,t=11,p=1${tail}"),
                costly("t", 11, 10),
            ),
            (
                &format!("$argon2id$v=19$m=19456,t=2,p=5${tail}"),
                costly("p", 5, 4),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(PasswordHash::parse(text).map(drop), Err(expected), "{text}");
        }
        assert!(PasswordHash::parse(&format!("$argon2id$v=19$m=65536,t=10,p=4${tail}")).is_ok());
    }

    #[test]
    fn debug_shows_the_cost_and_not_the_hash() {
        let shown = format!(
            "{:?}",
            PasswordHash::parse(REFERENCE).expect("a usable hash")
        );
        assert!(shown.contains("65536") && !shown.contains("CTFh") && !shown.contains("c29t"));
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let queue = idle_queue(2);
        let (_first, _second) = (
            waiting(&queue).expect("room"),
            waiting(&queue).expect("room"),
        );
        assert_eq!(waiting(&queue).map(drop), Err(Saturated));
    }

    #[test]
    fn callers_that_gave_up_neither_take_room_nor_work() {
        let queue = idle_queue(2);
        drop(waiting(&queue).expect("room"));
        let kept = waiting(&queue).expect("room");
        let late = waiting(&queue).expect("the room of the one who left");
        drop(kept);
        let job = queue.pop().expect("the job still waited for");
        job.answer.send(true).expect("a caller");
        assert_eq!(late.blocking_recv(), Ok(true));
        assert!(queue.lock().jobs.is_empty());
    }

    #[test]
    fn a_closed_queue_takes_and_gives_nothing() {
        let queue = idle_queue(2);
        let verdict = waiting(&queue).expect("room");
        queue.close();
        assert!(queue.pop().is_none());
        assert_eq!(waiting(&queue).map(drop), Err(Saturated));
        assert!(verdict.blocking_recv().is_err());
    }
}
