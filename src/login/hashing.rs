//! Verifying passwords on threads of their own.
//!
//! Verification is the one costly step that a stranger can ask for, so it has its own few threads,
//! a bounded queue, and the same work for a user that exists and one that does not.
//!
//! The threads have only the time that nobody else needs, so that forwarding does not notice a flood
//! of logins. On a machine that is busy without a pause that is next to none: there one thread more,
//! the stand-in, of low priority and so with a small share of its own, does what waits for too long,
//! be it in the queue or in one of the threads.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use argon2::Block;
use tokio::sync::oneshot;

use super::queue::LoginQueue;
pub use super::queue::{Caller, Saturated};
use crate::metrics::{Distribution, Histogram};
use crate::password::{Password, PasswordHash};
use crate::process;

/// Threads that verify passwords, and the bounded queue in front of them.
///
/// Dropping the pool ends the threads after the job each is at, without waiting for them, which on a
/// busy machine could take long; jobs still queued are dropped.
#[derive(Debug)]
pub struct HashingPool {
    queue: Arc<Queue>,
}

impl HashingPool {
    /// Starts the threads, and the one that stands in for them. `queue` bounds the jobs that wait,
    /// not those being worked at.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(threads: NonZeroUsize, queue: NonZeroUsize) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::new(QueueState::new(queue.get(), Instant::now())),
            filled: Condvar::new(),
            grace: GRACE,
        });
        let pool = Self { queue };
        for index in 0..threads.get() {
            pool.start_thread(format!("syncgate-hash-{index}"), |queue| {
                process::run_only_when_idle("password hashing");
                let mut hasher = Hasher::new();
                while let Some(job) = queue.begin() {
                    hasher.work(&job);
                    queue.end(&job);
                }
            })?;
        }
        pool.start_thread("syncgate-hash-in".to_owned(), |queue| {
            process::lower_priority("password hashing");
            let mut hasher = Hasher::new();
            while let Some(job) = queue.take_over() {
                hasher.work(&job);
            }
        })?;
        Ok(pool)
    }

    fn start_thread(&self, name: String, run: fn(&Queue)) -> io::Result<()> {
        let queue = Arc::clone(&self.queue);
        let thread = thread::Builder::new().name(name);
        thread.spawn(move || run(&queue)).map(drop)
    }

    /// How many passwords wait, and how long those that do not wait any more have waited.
    #[must_use]
    pub fn queue(&self) -> (usize, Distribution) {
        let state = self.queue.lock();
        (state.waiting.len(), state.waits.read())
    }

    /// Verifies a password; `None` stands for a user that does not exist or may not sign in, costs
    /// the same, and is always false.
    ///
    /// Runs on any executor. Cancel safe: a job whose caller is gone is skipped.
    ///
    /// # Errors
    /// At once when the queue has no place for the caller; later when the pool ends before the job was done.
    pub async fn verify(
        &self,
        password: Password,
        hash: Option<Arc<PasswordHash>>,
        caller: Caller,
    ) -> Result<bool, Saturated> {
        let (job, outcome) = Job::new(password, hash);
        self.queue.push(caller, job)?;
        outcome.await.map_err(|_| Saturated)
    }
}

impl Drop for HashingPool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

struct Job {
    password: Password,
    hash: Option<Arc<PasswordHash>>,
    queued: Instant,
    /// Until it is answered, which two threads may be about to do.
    answer: Mutex<Option<oneshot::Sender<bool>>>,
}

impl Job {
    fn new(
        password: Password,
        hash: Option<Arc<PasswordHash>>,
    ) -> (Arc<Self>, oneshot::Receiver<bool>) {
        let (answer, outcome) = oneshot::channel();
        let answer = Mutex::new(Some(answer));
        let job = Self {
            password,
            hash,
            queued: Instant::now(),
            answer,
        };
        (Arc::new(job), outcome)
    }

    /// How many times the work of a usual hash it is, at least 1.
    fn cost(&self) -> u32 {
        self.hash.as_ref().map_or(1, |hash| hash.relative_cost())
    }

    fn lock(&self) -> MutexGuard<'_, Option<oneshot::Sender<bool>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its caller still waits.
    fn is_wanted(&self) -> bool {
        let answer = self.lock();
        answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }

    fn answer(&self, matches: bool) {
        if let Some(answer) = self.lock().take() {
            // A caller that is gone needs no answer.
            let _ = answer.send(matches);
        }
    }
}

#[derive(Debug)]
struct Queue {
    state: Mutex<QueueState>,
    filled: Condvar,
    /// How long a job may be overdue before the stand-in takes it over.
    grace: Duration,
}

struct QueueState {
    waiting: LoginQueue<Arc<Job>>,
    /// What the threads are at, and when it is overdue; without what was taken over.
    running: Vec<(Instant, Arc<Job>)>,
    closed: bool,
    /// When one of the threads last began a job, or the first of those that wait came.
    moved: Instant,
    /// How long jobs waited.
    waits: Histogram,
}

impl QueueState {
    fn new(bound: usize, now: Instant) -> Self {
        Self {
            waiting: LoginQueue::new(bound),
            running: Vec::new(),
            closed: false,
            moved: now,
            waits: Histogram::default(),
        }
    }

    /// The first of those that wait.
    fn next(&mut self) -> Option<Arc<Job>> {
        let job = self.waiting.pop()?;
        self.waits.observe(job.queued.elapsed());
        Some(job)
    }

    /// When a job is overdue: one that a thread has running and does not get on with, or the first of
    /// those that wait while no thread begins any. `None` without a job.
    fn overdue_at(&self, grace: Duration) -> Option<Instant> {
        let running = self.running.iter().map(|(due, _)| *due);
        let waits = (!self.waiting.is_empty()).then(|| self.moved + grace);
        running.chain(waits).min()
    }

    /// The job that is overdue first.
    fn overdue(&mut self, grace: Duration) -> Option<Arc<Job>> {
        let first = self.overdue_at(grace);
        let running = |(due, _): &(Instant, Arc<Job>)| Some(*due) == first;
        match self.running.iter().position(running) {
            Some(at) => Some(self.running.swap_remove(at).1),
            None => self.next(),
        }
    }
}

impl fmt::Debug for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueState")
            .field("waiting", &self.waiting.len())
            .field("running", &self.running.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl Queue {
    fn push(&self, caller: Caller, job: Arc<Job>) -> Result<(), Saturated> {
        let mut state = self.lock();
        if state.closed {
            return Err(Saturated);
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.push(caller, job, |job| job.is_wanted())?;
        if was_empty {
            state.moved = Instant::now();
        }
        drop(state);
        // All, since the stand-in waits for the same and may be the one that is woken.
        self.filled.notify_all();
        Ok(())
    }

    /// Waits for a job whose caller still waits, to be ended with [`Self::end`]; `None` once the pool
    /// is closed.
    fn begin(&self) -> Option<Arc<Job>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            match state.next() {
                Some(job) if job.is_wanted() => {
                    state.moved = Instant::now();
                    let due = state.moved + self.grace * job.cost();
                    state.running.push((due, Arc::clone(&job)));
                    drop(state);
                    // The stand-in has an eye on it from now on.
                    self.filled.notify_all();
                    return Some(job);
                }
                Some(_) => {}
                None => state = self.wait(state, None),
            }
        }
    }

    fn end(&self, job: &Arc<Job>) {
        let mut state = self.lock();
        state
            .running
            .retain(|(_, running)| !Arc::ptr_eq(running, job));
    }

    /// Waits for a job that is overdue and whose caller still waits; `None` once the pool is closed.
    fn take_over(&self) -> Option<Arc<Job>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let due = state.overdue_at(self.grace);
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => match state.overdue(self.grace) {
                    Some(job) if job.is_wanted() => return Some(job),
                    Some(_) | None => state,
                },
                left => self.wait(state, left),
            };
        }
    }

    fn wait<'q>(
        &self,
        state: MutexGuard<'q, QueueState>,
        at_most: Option<Duration>,
    ) -> MutexGuard<'q, QueueState> {
        match at_most {
            Some(left) => {
                let waited = self.filled.wait_timeout(state, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.filled.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.filled.notify_all();
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one thread ttl from job to job: its memory, since fresh pages cost a third of the time.
struct Hasher {
    decoy: PasswordHash,
    memory: Vec<Block>,
}

impl Hasher {
    fn new() -> Self {
        Self {
            decoy: PasswordHash::decoy(),
            memory: Vec::new(),
        }
    }

    fn work(&mut self, job: &Job) {
        let Self { decoy, memory } = self;
        let hash = job.hash.as_deref().unwrap_or(decoy);
        let password_cache = catch_unwind(AssertUnwindSafe(|| hash.verify(&job.password, memory)));
        let matches = match password_cache {
            Ok(Ok(matches)) => matches,
            Ok(Err(error)) => {
                tracing::error!(%error, "a password could not be password_cache");
                false
            }
            Err(_) => {
                tracing::error!(
                    "a password could not be password_cache: the hashing code panicked"
                );
                false
            }
        };
        job.answer(matches && job.hash.is_some());
    }
}

/// Many times what a hash takes by itself: the machine has no time left then, or next to none.
const GRACE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::hash_password;

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
        let (job, outcome) = Job::new(password("p"), None);
        queue.push(Caller::Unknown, job).map(|()| outcome)
    }

    fn idle_queue(bound: usize) -> Queue {
        Queue {
            state: Mutex::new(QueueState::new(bound, Instant::now())),
            filled: Condvar::new(),
            grace: Duration::ZERO,
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
            let outcome = pool
                .verify(password(attempt), hash.clone(), Caller::Unknown)
                .await;
            assert_eq!(outcome, Ok(expected), "{attempt}");
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
                pool.verify(password("other"), small.clone(), Caller::Unknown)
                    .await,
                Ok(true)
            );
            assert_eq!(
                pool.verify(password("password"), hash.clone(), Caller::Unknown)
                    .await,
                Ok(true)
            );
            assert_eq!(
                pool.verify(password("passwore"), hash.clone(), Caller::Unknown)
                    .await,
                Ok(false)
            );
        }
    }

    #[tokio::test]
    async fn an_unknown_user_never_signs_in() {
        assert_eq!(
            pool().verify(password(""), None, Caller::Unknown).await,
            Ok(false)
        );
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
        let job = queue.begin().expect("the job still waited for");
        job.answer(true);
        assert_eq!(late.blocking_recv(), Ok(true));
        assert!(queue.lock().waiting.is_empty());
    }

    #[test]
    fn jobs_are_neglected_when_the_threads_do_not_get_on() {
        let queue = idle_queue(3);
        let overdue_at = || queue.lock().overdue_at(GRACE);
        assert_eq!(overdue_at(), None, "there is none");

        let _first = waiting(&queue).expect("room");
        let came = queue.lock().moved;
        let _second = waiting(&queue).expect("room");
        assert_eq!(queue.lock().moved, came, "the first still waits");
        assert_eq!(overdue_at(), Some(came + GRACE));

        let first = queue.begin().expect("a job");
        let running = queue.lock().moved;
        assert!(running >= came);
        // The queue of this test has no grace with what has running.
        assert_eq!(overdue_at(), Some(running));
        queue.end(&first);
        assert_eq!(overdue_at(), Some(running + GRACE), "the second one");
        let second = queue.begin().expect("a job");
        queue.end(&second);
        assert_eq!(overdue_at(), None);
    }

    #[test]
    fn a_dear_hash_is_given_more_time() {
        let (job, _verdict) = Job::new(password("p"), stored(REFERENCE));
        assert_eq!(job.cost(), 4);
        let (job, _verdict) = Job::new(password("p"), None);
        assert_eq!(job.cost(), 1);
    }

    #[test]
    fn the_stand_in_takes_over_what_a_thread_holds_and_what_waits() {
        let queue = idle_queue(4);
        let held = waiting(&queue).expect("room");
        let stuck = queue.begin().expect("a job");
        let gone = waiting(&queue).expect("room");
        let waits = waiting(&queue).expect("room");
        drop(gone);

        let job = queue.take_over().expect("a job");
        assert!(Arc::ptr_eq(&job, &stuck), "the one that came first");
        job.answer(true);
        assert_eq!(held.blocking_recv(), Ok(true));
        stuck.answer(false);
        queue.end(&stuck);

        queue.take_over().expect("a job").answer(true);
        assert_eq!(waits.blocking_recv(), Ok(true));
        queue.close();
        assert!(queue.take_over().is_none());
    }

    #[test]
    fn a_closed_queue_takes_and_gives_nothing() {
        let queue = idle_queue(2);
        let outcome = waiting(&queue).expect("room");
        queue.close();
        assert!(queue.begin().is_none());
        assert_eq!(waiting(&queue).map(drop), Err(Saturated));
        assert!(outcome.blocking_recv().is_err());
    }
}
