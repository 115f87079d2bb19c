//! Sends requests over kept connections, open loop or closed loop, and reports latencies.
//!
//! Open loop (`--rate R`): Poisson arrivals, and a latency counts from the instant at which
//! the request was due, whether or not a connection was free: no coordinated omission. The
//! timer is a timerfd, so it is not bound to epoll's milliseconds. Closed loop (no `--rate`):
//! each connection sends as soon as it has its reply. A line `begun` is printed when the load begins;
//! `first_error` and `last_error` are seconds from then on.
//!
//! `requests --connect ADDRESS --token TOKEN [--rate R] [--connections 64] [--seconds 4]
//! [--warmup 1] [--body 1024] [--path /api/SyncData] [--expect 200]`

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use rustls::ClientConfig;

use syncgate_load::arguments::Arguments;
use syncgate_load::connection::{Connection, request};
use syncgate_load::report::Latencies;
use syncgate_load::tls;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::from_env()?;
    let address = arguments.required("connect")?;
    let token: String = arguments.required("token")?;
    let rate: Option<f64> = arguments.optional("rate")?;
    let count: usize = arguments.value("connections", 64)?;
    let seconds: f64 = arguments.value("seconds", 4.0)?;
    let warmup: f64 = arguments.value("warmup", 1.0)?;
    let body: usize = arguments.value("body", 1024)?;
    let path: String = arguments.value("path", String::from("/api/SyncData"))?;
    let expected: u16 = arguments.value("expect", 200)?;
    arguments.finish()?;

    let mut run = Run::open(address, count, request(&path, &token, body), expected)?;
    println!("begun");
    let begin = Instant::now();
    let measured = begin + Duration::from_secs_f64(warmup);
    let end = measured + Duration::from_secs_f64(seconds);
    match rate {
        Some(rate) => run.open_loop(&mut Arrivals::new(rate, begin), measured, end)?,
        None => run.closed_loop(begin, measured, end)?,
    }
    let rate = run.latencies.count() as f64 / seconds;
    let [first, last] = run.error_times.map(|at| {
        at.map_or("null".to_owned(), |at| {
            format!("{:.3}", (at - begin).as_secs_f64())
        })
    });
    println!(
        r#"{{"sent":{},"done":{},"errors":{},"first_error":{first},"last_error":{last},"unsent":{},"reopened":{},"rate":{rate:.1},{}}}"#,
        run.sent,
        run.done,
        run.errors,
        run.due.len(),
        run.reopened,
        run.latencies.members()
    );
    Ok(())
}

struct Run {
    poll: Poll,
    timer: OwnedFd,
    config: Arc<ClientConfig>,
    address: SocketAddr,
    connections: Vec<Slot>,
    /// Connections without a request.
    idle: Vec<usize>,
    /// Instants of requests that wait for a connection.
    due: VecDeque<Instant>,
    request: Vec<u8>,
    expected: u16,
    sent: u64,
    done: u64,
    errors: u64,
    /// How many connections took the place of one that ended.
    reopened: u64,
    /// Of the first error and the last.
    error_times: [Option<Instant>; 2],
    latencies: Latencies,
}

struct Slot {
    connection: Connection,
    /// When the request in flight was due.
    due: Option<Instant>,
}

/// So that a proxy that bounds what it asks the upstream at once refuses nothing.
const OPENED_AT_ONCE: usize = 256;

impl Run {
    /// Opens every connection and sends one request over each, so that handshakes are over
    /// before anything is counted.
    fn open(
        address: SocketAddr,
        count: usize,
        request: Vec<u8>,
        expected: u16,
    ) -> Result<Self, Box<dyn Error>> {
        let poll = Poll::new()?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        poll.registry().register(
            &mut SourceFd(&timer.as_raw_fd()),
            Token(count),
            Interest::READABLE,
        )?;
        let config = tls::client(tls::Offer::default())?;
        let mut run = Self {
            poll,
            timer,
            config,
            address,
            connections: Vec::with_capacity(count),
            idle: Vec::new(),
            due: VecDeque::new(),
            request,
            expected,
            sent: 0,
            done: 0,
            errors: 0,
            reopened: 0,
            error_times: [None; 2],
            latencies: Latencies::default(),
        };
        let start = Instant::now();
        let mut events = Events::with_capacity(1024);
        while run.idle.len() < count {
            while run.connections.len() < count.min(run.idle.len() + OPENED_AT_ONCE) {
                run.add_connection()?;
                run.send(run.connections.len() - 1, start)?;
            }
            run.wait(&mut events)?;
            for event in events.iter() {
                if run.advance(event.token().0, start)?.is_some() {
                    run.idle.push(event.token().0);
                }
            }
            if start.elapsed() > Duration::from_secs(20) || run.errors > count as u64 {
                return Err("the connections did not all get a first reply".into());
            }
        }
        if run.errors > 0 {
            return Err("errors in the first replies".into());
        }
        (run.sent, run.done) = (0, 0);
        run.latencies = Latencies::default();
        Ok(run)
    }

    fn closed_loop(&mut self, begin: Instant, measured: Instant, end: Instant) -> io::Result<()> {
        for index in std::mem::take(&mut self.idle) {
            self.send(index, begin)?;
        }
        let mut events = Events::with_capacity(1024);
        while Instant::now() < end {
            self.wait(&mut events)?;
            for event in events.iter() {
                if self.advance(event.token().0, measured)?.is_some() {
                    self.send(event.token().0, Instant::now())?;
                }
            }
        }
        Ok(())
    }

    fn open_loop(
        &mut self,
        arrivals: &mut Arrivals,
        measured: Instant,
        end: Instant,
    ) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let now = Instant::now();
            while arrivals.next <= now && arrivals.next < end {
                self.due.push_back(arrivals.next);
                arrivals.step();
            }
            while let Some(index) = self.idle.pop_if(|_| !self.due.is_empty()) {
                let due = self.due.pop_front().unwrap_or(now);
                self.send(index, due)?;
            }
            let finished = self.due.is_empty() && self.idle.len() == self.connections.len();
            // What is still open two seconds after the end is reported as unsent.
            if now >= end && (finished || now > end + Duration::from_secs(2)) {
                return Ok(());
            }
            self.wake_in(arrivals.next.saturating_duration_since(Instant::now()))?;
            self.wait(&mut events)?;
            for event in events.iter() {
                let index = event.token().0;
                if index < self.connections.len() && self.advance(index, measured)?.is_some() {
                    self.idle.push(index);
                }
            }
        }
    }

    fn add_connection(&mut self) -> io::Result<()> {
        let token = Token(self.connections.len());
        let connection = Connection::open(self.poll.registry(), token, self.address, &self.config)?;
        self.connections.push(Slot {
            connection,
            due: None,
        });
        Ok(())
    }

    fn send(&mut self, index: usize, due: Instant) -> io::Result<()> {
        let slot = &mut self.connections[index];
        slot.due = Some(due);
        self.sent += 1;
        slot.connection.send(&self.request)?;
        // A connection that broke meanwhile has an event waiting, which tells.
        let _ = slot.connection.push();
        Ok(())
    }

    /// Reads; when the reply to a request is whole, counts it. A connection that ends is opened again, which
    /// is an error unless it had no request, or the reply said so.
    fn advance(&mut self, index: usize, measured: Instant) -> io::Result<Option<()>> {
        let slot = &mut self.connections[index];
        match slot.connection.advance() {
            Ok(None) => Ok(None),
            Ok(Some(status)) => {
                let Some(due) = slot.due.take() else {
                    return Ok(None);
                };
                self.done += 1;
                if status != self.expected {
                    count_error(&mut self.errors, &mut self.error_times);
                }
                if due >= measured {
                    self.latencies.push(due.elapsed());
                }
                if slot.connection.closes() {
                    self.reopen(index)?;
                }
                Ok(Some(()))
            }
            Err(_) => {
                let had_request = slot.due.take().is_some();
                self.reopen(index)?;
                if !had_request {
                    return Ok(None);
                }
                count_error(&mut self.errors, &mut self.error_times);
                Ok(Some(()))
            }
        }
    }

    fn reopen(&mut self, index: usize) -> io::Result<()> {
        let registry = self.poll.registry();
        let opened = Connection::open(registry, Token(index), self.address, &self.config)?;
        self.connections[index].connection = opened;
        self.reopened += 1;
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, Some(Duration::from_millis(200))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    /// Sets the timer. It is never read: setting it again clears it, and mio's edge-triggered
    /// registration reports each expiry once.
    fn wake_in(&self, delay: Duration) -> io::Result<()> {
        // A zero delay would switch the timer off.
        let delay = delay.max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: delay.subsec_nanos().into(),
        };
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spec = Itimerspec {
            it_interval: never,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

fn count_error(errors: &mut u64, times: &mut [Option<Instant>; 2]) {
    *errors += 1;
    let now = Some(Instant::now());
    *times = [times[0].or(now), now];
}

/// Poisson arrivals: exponential gaps from a fixed seed, the same for every peer.
struct Arrivals {
    next: Instant,
    mean: f64,
    state: u64,
}

impl Arrivals {
    fn new(rate: f64, begin: Instant) -> Self {
        let mut arrivals = Self {
            next: begin,
            mean: 1.0 / rate,
            state: 0x9E37_79B9_7F4A_7C15,
        };
        arrivals.step();
        arrivals
    }

    fn step(&mut self) {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        let uniform = (bits as f64 + 1.0) / (1u64 << 53) as f64;
        self.next += Duration::from_secs_f64(-uniform.ln() * self.mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential_with_the_asked_mean() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::new(1000.0, begin);
        let mut long = 0;
        for _ in 0..100_000 {
            let before = arrivals.next;
            arrivals.step();
            long += usize::from(arrivals.next - before > Duration::from_millis(1));
        }
        let mean = (arrivals.next - begin).as_secs_f64() / 100_001.0;
        assert!((0.000_98..0.001_02).contains(&mean), "mean {mean}");
        // A share of 1/e of exponential gaps is longer than the mean.
        assert!(
            (36_000..37_600).contains(&long),
            "{long} gaps over the mean"
        );
    }
}
