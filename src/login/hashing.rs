//! Verifying passwords on threads of their own.
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

use thiserror::Error;
use tokio::sync::oneshot;

use super::body::Password;
pub use super::password_hash::{HashingFailed, PasswordHash, PasswordHashError, hash_password};
use crate::process;

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
    process::lower_priority("password hashing");
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
