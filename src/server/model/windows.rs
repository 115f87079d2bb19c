//! HTTP/2 answers for which the client makes room late, a little or never, explored: whatever it does
//! with its windows, no request is under way for longer than the limits say, and a connection ends.

use std::time::Duration;

use proptest::prelude::*;
use tokio::net::TcpStream;
use tokio::time::advance;

use super::{KEEP_ALIVE, World, run};
use crate::connection::ClientConnection;

/// What the client does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It sends a request that the gateway answers itself.
    AskGateway,
    /// It sends a request whose answer by the backend has so many bytes.
    AskBackend(usize),
    /// It makes room for so many bytes more, on the connection and for the latest answer.
    Open(u32),
    /// It resets the latest stream.
    Reset,
    /// It does nothing for so many seconds but answer PING.
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let lengths = prop_oneof![Just(2_usize), Just(5000), Just(20_000), Just(100_000)];
    let rooms = prop_oneof![Just(1_u32), Just(4000), Just(20_000), Just(200_000)];
    prop_oneof![
        2 => Just(Step::AskGateway),
        4 => lengths.prop_map(Step::AskBackend),
        4 => rooms.prop_map(Step::Open),
        1 => Just(Step::Reset),
        4 => prop_oneof![Just(3_u64), Just(25), Just(UNREAD)].prop_map(Step::Pause),
    ]
}

/// For how long a request may be under way whose client makes no room: `response_grace`, and the time
/// for a piece of 16 KiB at `response_min_rate`, by default.
const UNREAD: u64 = 30 + 16 + 2;
/// `limits.request`.
const REQUEST: u64 = 100;

/// A client that writes its frames itself.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    to_send: Vec<u8>,
    streams: u32,
    ended: bool,
}

impl Client {
    fn new(stream: TcpStream, window: u32) -> Self {
        let mut client = Self {
            stream,
            received: Vec::new(),
            to_send: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            streams: 0,
            ended: false,
        };
        let initial_window_size = [&[0, 4][..], &window.to_be_bytes()].concat();
        client.frame(SETTINGS, 0, 0, &initial_window_size);
        client
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        self.to_send.extend_from_slice(&length[1..]);
        self.to_send.extend_from_slice(&[kind, flags]);
        self.to_send.extend_from_slice(&stream.to_be_bytes());
        self.to_send.extend_from_slice(payload);
    }

    fn latest(&self) -> u32 {
        2 * self.streams - 1
    }

    fn ask(&mut self, path: &str, token: &str) {
        self.streams += 1;
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", path),
            ("authorization", token),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).expect("short"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        let (stream, ends) = (self.latest(), END_STREAM | END_HEADERS);
        self.frame(HEADERS, ends, stream, &block);
    }

    /// Sends what there is to send, and reads everything that has come: it is never the socket that
    /// is waited for.
    fn exchange(&mut self) {
        loop {
            let mut some = [0; 16 * 1024];
            match self.stream.try_read(&mut some) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    self.received.extend_from_slice(&some[..length]);
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => self.ended = true,
            }
            break;
        }
        while let Some((head, rest)) = self.received.split_first_chunk::<9>() {
            let [a, b, c, kind, flags, ..] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if rest.len() < length {
                break;
            }
            let payload = rest[..length].to_vec();
            self.received.drain(..9 + length);
            if kind == PING && flags & ACK == 0 {
                self.frame(PING, ACK, 0, &payload);
            }
        }
        if let Ok(sent) = self.stream.try_write(&self.to_send) {
            self.to_send.drain(..sent);
        }
    }
}

/// What the requests of a client have come to by the clock.
#[derive(Default)]
struct Times {
    now: u64,
    /// When each request was sent.
    asked: Vec<u64>,
    /// When the client last did something that an answer can go on by.
    moved: u64,
}

impl Times {
    fn check(&self, connection: &ClientConnection, steps: &[Step], window: u32) {
        let under_way = connection.in_flight();
        let young = self.asked.iter().filter(|at| self.now - *at <= REQUEST + 2);
        assert!(
            under_way <= young.count(),
            "{under_way} requests outlive limits.request: {steps:?}, {window}"
        );
        assert!(
            under_way == 0 || self.now - self.moved <= UNREAD,
            "{under_way} requests outlive the minimum rate: {steps:?}, {window}"
        );
    }
}

async fn play(steps: &[Step], window: u32) {
    let world = World::with(&format!("request = \"{REQUEST}s\"\n")).await;
    let (stream, connection) = world.connect(true).await;
    let mut client = Client::new(stream, window);
    let mut times = Times::default();
    let mut last = Vec::from(steps);
    // Whatever came before: twice a rest, and the time to leave.
    last.push(Step::Pause(REQUEST + 3 * KEEP_ALIVE + 10));
    for step in &last {
        let mut seconds = 0;
        match *step {
            Step::AskGateway => client.ask("/api/Nothing", &world.token),
            Step::AskBackend(length) => {
                let mut backend = world.backend.borrow_mut();
                backend.padding = length - 2;
                backend.allowed.push_back(client.streams.is_multiple_of(2));
                drop(backend);
                client.ask("/api/SyncData", &world.token);
            }
            Step::Open(room) if client.streams > 0 => {
                times.moved = times.now;
                for stream in [0, client.latest()] {
                    client.frame(WINDOW_UPDATE, 0, stream, &room.to_be_bytes());
                }
            }
            Step::Reset if client.streams > 0 => {
                let stream = client.latest();
                client.frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            }
            Step::Pause(length) => seconds = length,
            Step::Open(_) | Step::Reset => {}
        }
        if matches!(step, Step::AskGateway | Step::AskBackend(_)) {
            times.asked.push(times.now);
            times.moved = times.now;
        }
        for second in 0..=seconds {
            if second > 0 {
                advance(Duration::from_secs(1)).await;
                times.now += 1;
            }
            client.exchange();
            world.settle().await;
            client.exchange();
            times.check(&connection, steps, window);
        }
    }
    world
        .settle_until(|| {
            client.exchange();
            client.ended
        })
        .await;
    assert!(
        client.ended,
        "a connection without end: {steps:?}, {window}"
    );
    assert_eq!(connection.in_flight(), 0, "{steps:?}, {window}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_outlives_its_limits_whatever_room_its_answer_finds(
        steps in prop::collection::vec(step(), 1..12),
        window in prop_oneof![Just(0_u32), Just(1), Just(10_000)],
    ) {
        run(play(&steps, window));
    }
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
