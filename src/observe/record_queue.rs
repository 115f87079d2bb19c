//! The way of access records to their output: a thread behind a bounded queue, so that a slow disk or a stuck
//! reader never delays a request. What the queue or the output does not take is dropped and counted.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::access_file;

/// Where access records go.
pub(super) enum Output {
    Stream(Box<dyn Write + Send>),
    File { path: PathBuf, file: File },
}

/// The sender's end of the queue.
#[derive(Clone)]
pub(super) struct RecordQueue {
    sender: SyncSender<Message>,
    state: Arc<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    dropped: AtomicU64,
    reopen: AtomicBool,
    stop: AtomicBool,
}

enum Message {
    /// Whole lines.
    Records(Vec<u8>),
    /// Something was set in the state.
    Wake,
}

/// Ends the thread when it is dropped, after all that is queued was written.
#[derive(Debug)]
pub(super) struct Drained {
    queue: RecordQueue,
    done: Done,
}

/// Nothing is ever sent; it is disconnected when the thread has ended.
pub(super) type Done = Receiver<()>;

impl fmt::Debug for RecordQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

impl RecordQueue {
    /// Starts the thread, which ends when it is told to by [`Drained`], or with the last sender.
    ///
    /// # Panics
    /// If the thread cannot be started.
    pub(super) fn start(output: Output, room: usize) -> (Self, Done) {
        let (sender, received) = sync_channel(room);
        let state = Arc::new(QueueState::default());
        let mut writer = Writer {
            output,
            state: Arc::clone(&state),
            is_torn: false,
            reported: 0,
            reported_at: None,
        };
        let (ended, done) = sync_channel(0);
        let thread = thread::Builder::new().name("syncgate-access".to_owned());
        let started = thread.spawn(move || {
            writer.run(&received);
            drop(ended);
        });
        started.expect("the operating system starts a thread for access records");
        (Self { sender, state }, done)
    }

    /// Queues whole lines, or drops and counts them; never waits.
    pub(super) fn write(&self, lines: &[u8]) {
        if self
            .sender
            .try_send(Message::Records(lines.to_vec()))
            .is_err()
        {
            self.state.drop_lines(lines);
        }
    }

    /// Has the file opened again, before anything that is queued from now on.
    pub(super) fn reopen(&self) {
        self.state.reopen.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // If the queue is full, the thread looks at the state after the next message.
        let _ = self.sender.try_send(Message::Wake);
    }

    /// How many records were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }
}

impl QueueState {
    fn drop_lines(&self, lines: &[u8]) {
        let count = memchr::memchr_iter(b'\n', lines).count();
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Drained {
    pub(super) fn new(queue: RecordQueue, done: Done) -> Self {
        Self { queue, done }
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        self.queue.state.stop.store(true, Ordering::Release);
        self.queue.wake();
        // A reader that is stuck must not keep the process.
        let _ = self.done.recv_timeout(LONGEST_DRAIN);
    }
}

struct Writer {
    output: Output,
    state: Arc<QueueState>,
    /// Whether the last line in the output has no end.
    is_torn: bool,
    /// The dropped records that the log was told of, and when.
    reported: u64,
    reported_at: Option<Instant>,
}

impl Writer {
    fn run(&mut self, received: &Receiver<Message>) {
        loop {
            let message = match self.state.stop.load(Ordering::Acquire) {
                false => received.recv_timeout(REPORT_INTERVAL),
                // What is queued, and no more.
                true => received
                    .try_recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            if self.state.reopen.swap(false, Ordering::Acquire) {
                self.reopen();
            }
            match message {
                Ok(Message::Records(lines)) => self.write(&lines),
                Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.report();
        }
        self.reported_at = None;
        self.report();
    }

    fn write(&mut self, lines: &[u8]) {
        if self.is_torn {
            match self.output.write_all(b"\n") {
                Ok(()) => self.is_torn = false,
                Err(_) => return self.state.drop_lines(lines),
            }
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "access records cannot be written");
                    break;
                }
            }
        }
        if !rest.is_empty() {
            let written = lines.len() - rest.len();
            self.is_torn = lines[..written].last().is_some_and(|&last| last != b'\n');
            self.state.drop_lines(rest);
        }
    }

    fn reopen(&mut self) {
        let Output::File { path, file } = &mut self.output else {
            return;
        };
        match access_file::open(path) {
            Ok(fresh) => {
                *file = fresh;
                self.is_torn = false;
                tracing::info!(path = %path.display(), "the file of access records was reopened");
            }
            Err(error) => {
                let error = crate::error_chain::chain(&error);
                tracing::error!(
                    error,
                    "the file of access records was not reopened; the records still go to the former one"
                );
            }
        }
    }

    /// Says how many records were dropped, at most once a minute.
    fn report(&mut self) {
        let dropped = self.state.dropped.load(Ordering::Relaxed);
        let is_due = self
            .reported_at
            .is_none_or(|at| at.elapsed() >= REPORT_INTERVAL);
        if dropped > self.reported && is_due {
            tracing::warn!(
                dropped = dropped - self.reported,
                total = dropped,
                "access records were dropped: their output is too slow, full or gone"
            );
            self.reported = dropped;
            self.reported_at = Some(Instant::now());
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

const REPORT_INTERVAL: Duration = Duration::from_secs(60);
const LONGEST_DRAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// An output of which each write takes so many bytes, or fails where none is left.
    struct Disk {
        written: Arc<Mutex<Vec<u8>>>,
        room: Arc<Mutex<Vec<usize>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            let most = if room.is_empty() {
                bytes.len()
            } else {
                room.remove(0)
            };
            if most == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = most.min(bytes.len());
            self.written
                .lock()
                .unwrap()
                .extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(room: &[usize], blocks: &[&str]) -> (String, u64) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let disk = Disk {
            written: Arc::clone(&written),
            room: Arc::new(Mutex::new(room.to_vec())),
        };
        let (queue, done) = RecordQueue::start(Output::Stream(Box::new(disk)), 64);
        for block in blocks {
            queue.write(block.as_bytes());
        }
        // Others may still have it.
        drop(Drained::new(queue.clone(), done));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        (text, queue.dropped())
    }

    #[test]
    fn every_record_is_written_or_counted_as_dropped_and_begins_a_line() {
        let blocks = ["a\nb\n", "c\n", "d\n"];
        for (room, expected, dropped) in [
            (&[][..], "a\nb\nc\nd\n", 0),
            // In pieces.
            (&[1, 2, 1], "a\nb\nc\nd\n", 0),
            // Full at once, and empty again.
            (&[0], "c\nd\n", 2),
            // Full after one whole record.
            (&[2, 0], "a\nc\nd\n", 1),
            // Full in the middle of one, and again before its line is ended.
            (&[3, 0, 0], "a\nb\nd\n", 2),
        ] {
            assert_eq!(
                written(room, &blocks),
                (expected.to_owned(), dropped),
                "{room:?}"
            );
        }
    }

    #[test]
    fn records_are_dropped_and_counted_one_by_one_while_the_output_is_stuck_and_the_queue_full() {
        /// A write blocks until the test receives it.
        struct Stuck(SyncSender<Vec<u8>>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let sent = self.0.send(bytes.to_vec());
                sent.map_err(io::Error::other).map(|()| bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (output, received) = sync_channel(0);
        let (queue, _) = RecordQueue::start(Output::Stream(Box::new(Stuck(output))), 4);
        for _ in 0..100 {
            queue.write(b"1\n2\n3\n");
        }
        // The queue holds four blocks, and the thread one that it cannot write.
        let dropped = queue.dropped();
        assert!(dropped == 3 * 95 || dropped == 3 * 96, "{dropped}");
        drop(queue);
        let kept: Vec<_> = received
            .iter()
            .flatten()
            .filter(|&byte| byte == b'\n')
            .collect();
        assert_eq!(kept.len() as u64 + dropped, 300);
    }
}
