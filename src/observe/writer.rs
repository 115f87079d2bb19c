//! The thread that writes the log, and the bounded queue in front of it. Whoever logs never waits:
//! what finds the queue full is counted and lost.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

/// Queues whole lines for the writer thread. Clones share the queue.
#[derive(Clone, Debug)]
pub struct LogWriter {
    queue: SyncSender<Vec<u8>>,
    lost: Arc<AtomicUsize>,
}

/// Keeps the writer thread. Dropping it writes what is queued and ends the thread, within a second.
#[derive(Debug)]
pub struct WriterThread {
    closing: Arc<AtomicBool>,
    queue: SyncSender<Vec<u8>>,
    ended: Receiver<()>,
    patience: Duration,
}

impl LogWriter {
    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<(Self, WriterThread)> {
        Self::with(output, QUEUE, LAST_WRITES)
    }

    /// The same with room for so many blocks, and so much time for the last of them.
    fn with(
        output: impl Write + Send + 'static,
        room: usize,
        patience: Duration,
    ) -> io::Result<(Self, WriterThread)> {
        let (queue, blocks) = sync_channel(room);
        let (end, ended) = sync_channel(0);
        let closing = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&closing);
        thread::Builder::new()
            .name("syncgate-log".to_owned())
            .spawn(move || {
                write_blocks(&blocks, output, &told);
                drop(end);
            })?;
        let thread = WriterThread {
            closing,
            queue: queue.clone(),
            ended,
            patience,
        };
        let lost = Arc::default();
        Ok((Self { queue, lost }, thread))
    }

    /// How many writes were lost, of this writer and its clones.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Write for LogWriter {
    /// Queues `lines`; never waits and never fails.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(lines.to_vec()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // Wakes the thread if it waits for a block; if the queue is full, it does not.
        let _ = self.queue.try_send(Vec::new());
        match self.ended.recv_timeout(self.patience) {
            Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Writes block after block, and flushes whenever none is left, until told that the log ends.
fn write_blocks(blocks: &Receiver<Vec<u8>>, mut output: impl Write, closing: &AtomicBool) {
    while let Ok(block) = blocks.recv() {
        // There is nobody to tell that the log itself cannot be written.
        let _ = output.write_all(&block);
        loop {
            // Asked before the queue is: what was queued before the end is then seen.
            let last = closing.load(Ordering::SeqCst);
            match blocks.try_recv() {
                Ok(block) => drop(output.write_all(&block)),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) if last => {
                    let _ = output.flush();
                    return;
                }
                Err(TryRecvError::Empty) => break,
            }
        }
        let _ = output.flush();
    }
}

/// Blocks waiting to be written; with the access log's 32 KiB each, 32 MiB at the most.
const QUEUE: usize = 1024;
/// How long the end of the process waits for what is queued to be written.
const LAST_WRITES: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A test that passes never waits for it.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// Standard error, as it were: holds what was written, and is stuck while the lock is held.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_end_writes_what_is_queued() {
        let output = Output::default();
        let (writer, thread) = LogWriter::with(output.clone(), QUEUE, DEADLINE).unwrap();
        for number in 0..500 {
            writeln!(writer.clone(), "{number}").unwrap();
        }
        drop(thread);
        let expected: String = (0..500).map(|number| format!("{number}\n")).collect();
        assert_eq!(*output.0.lock().unwrap(), expected.as_bytes());
        assert_eq!(writer.lost(), 0);
    }

    #[test]
    fn what_finds_a_stuck_output_and_a_full_queue_is_counted_and_lost() {
        let output = Output::default();
        let (mut writer, thread) = LogWriter::with(output.clone(), 4, DEADLINE).unwrap();
        let stuck = output.0.lock().unwrap();
        for _ in 0..100 {
            writer.write_all(b"line\n").unwrap();
        }
        // The queue holds four, and the thread one that it could not write.
        let lost = writer.lost();
        assert!((95..=96).contains(&lost), "{lost}");
        drop(stuck);
        drop(thread);
        let written = output.0.lock().unwrap().len() / b"line\n".len();
        assert_eq!(written + lost, 100);
    }

    #[test]
    fn after_the_end_lines_are_lost_and_nobody_waits() {
        let (mut writer, thread) = LogWriter::with(io::sink(), QUEUE, DEADLINE).unwrap();
        drop(thread);
        writer.write_all(b"line\n").unwrap();
        assert_eq!(writer.lost(), 1);
    }
}
