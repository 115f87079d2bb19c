//! What is played between client, gateway and backend: requests with bodies that look like requests,
//! what the backend does with each, and when the client sends which bytes.

use std::fmt;
use std::time::Duration;

/// All that is sent, and what must come of it.
#[derive(Debug)]
pub struct Scene {
    pub requests: Vec<Request>,
    /// Of all requests, one behind the other.
    pub bytes: Vec<u8>,
    pub steps: Vec<Step>,
}

/// One request of the client's.
#[derive(Debug)]
pub struct Request {
    /// In its head, and again in the head of its answer.
    pub marker: String,
    pub body: Vec<u8>,
    pub answering: Answering,
    /// Where its head begins and ends in the bytes, and where its body ends.
    start: usize,
    head_end: usize,
    end: usize,
}

/// What the backend does with a request.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    pub after: After,
    pub then: Then,
    status: u16,
    chunked: bool,
}

/// When it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// When so many bytes of the body have come.
    Bytes(usize),
    Whole,
}

/// What it does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It reads what is left of the body and keeps the connection.
    Keep,
    /// It closes at once.
    Close,
    /// It reads what is left of the body and closes.
    CloseAtEnd,
}

/// What the client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends the bytes up to here.
    Send(usize),
    /// Lets time pass.
    Pause(Duration),
}

/// Of those of the gateway that end a request: for its head, and for the grace of its body.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(10);

/// How much a gateway's own timers are apart, from a tick to the longest rest.
const PAUSES: [u64; 8] = [10, 900, 1100, 2500, 5000, 11_000, 31_000, 125_000];

impl Scene {
    /// The one that these bytes stand for. `number` tells it from all others.
    pub fn read(input: &[u8], number: u64, token: &str) -> Option<Self> {
        let (&count, mut input) = input.split_first()?;
        let mut scene = Self {
            requests: Vec::new(),
            bytes: Vec::new(),
            steps: Vec::new(),
        };
        // Where something begins or ends that could be taken for something else.
        let mut marks = Vec::new();
        for index in 0..=count % 4 {
            let (four, rest) = input.split_first_chunk::<4>()?;
            input = rest;
            scene.add(&format!("n{number}-{index}"), *four, token, &mut marks);
        }
        for step in input.chunks_exact(2).take(24) {
            let [kind, value] = [step[0], step[1]];
            let sent = scene.sent();
            scene.steps.push(match kind % 4 {
                0 | 1 => {
                    let mark = marks.iter().filter(|mark| **mark > sent);
                    let mark = mark.copied().nth(usize::from(value % 4));
                    Step::Send(mark.unwrap_or(scene.bytes.len()))
                }
                2 => Step::Send((sent + usize::from(value) + 1).min(scene.bytes.len())),
                _ => Step::Pause(Duration::from_millis(PAUSES[usize::from(value % 8)])),
            });
        }
        Some(scene)
    }

    fn sent(&self) -> usize {
        let sent = self.steps.iter().filter_map(|step| match step {
            Step::Send(until) => Some(*until),
            Step::Pause(_) => None,
        });
        sent.max().unwrap_or(0)
    }

    fn add(&mut self, marker: &str, four: [u8; 4], token: &str, marks: &mut Vec<usize>) {
        let [shape, size, after, then] = four;
        let request_in_body = format!(
            "POST /api/GetData HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\
             X-Marker: of-a-body-{marker}\r\nContent-Length: 0\r\n\r\n"
        );
        // Short ones, and such as hold a whole request behind some bytes.
        let filler = usize::from(size % 16);
        let mut body = vec![b'x'; filler];
        for _ in 0..size / 64 {
            body.extend_from_slice(request_in_body.as_bytes());
        }
        let chunked = shape & 1 == 1;
        let framing = match chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {}", body.len()),
        };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(
            format!(
                "POST /api/SyncData HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\
                 X-Marker: {marker}\r\n{framing}\r\n\r\n"
            )
            .as_bytes(),
        );
        let head_end = self.bytes.len();
        marks.extend([start, head_end]);
        let mut pieces = vec![&body[..filler]];
        pieces.extend(body[filler..].chunks(request_in_body.len()));
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            if chunked {
                self.bytes
                    .extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                marks.push(self.bytes.len());
            }
            self.bytes.extend_from_slice(piece);
            marks.push(self.bytes.len());
            if chunked {
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
        if chunked {
            self.bytes.extend_from_slice(b"0\r\n\r\n");
        }
        marks.push(self.bytes.len());
        if shape & 8 != 0 {
            // An empty line, which belongs to no request.
            self.bytes.extend_from_slice(b"\r\n");
            marks.push(self.bytes.len());
        }
        marks.dedup();
        let answering = Answering {
            after: match after % 3 {
                0 => After::Whole,
                1 => After::Bytes(0),
                _ => After::Bytes(usize::from(after / 3)),
            },
            then: match then % 4 {
                0 | 1 => Then::Keep,
                2 => Then::Close,
                _ => Then::CloseAtEnd,
            },
            status: if shape & 2 == 0 { 200 } else { 413 },
            chunked: shape & 4 != 0,
        };
        self.requests.push(Request {
            marker: marker.to_owned(),
            body,
            answering,
            start,
            head_end,
            end: self.bytes.len(),
        });
    }

    /// The request with this marker.
    pub fn request(&self, marker: &str) -> Option<&Request> {
        self.requests
            .iter()
            .find(|request| request.marker == marker)
    }

    /// How many requests, from the first on, must be answered by the backend and reach it whole: all of
    /// each was sent before any deadline, and the backend keeps the connection, whenever it answers.
    pub fn served(&self, sent: usize) -> usize {
        let pauses = self.steps.iter().map(|step| match step {
            Step::Pause(time) => *time,
            Step::Send(_) => Duration::ZERO,
        });
        if pauses.sum::<Duration>() >= SHORTEST_DEADLINE {
            return 0;
        }
        let must_be_served =
            |request: &&Request| request.end <= sent && request.answering.then == Then::Keep;
        self.requests.iter().take_while(must_be_served).count()
    }

    /// Every answer belongs to the request whose turn it is, and none came without a request. Returns
    /// how many the backend gave.
    pub fn check_answers(&self, came: &[u8], sent: usize) -> usize {
        let mut rest = came;
        let (mut answers, mut relayed) = (0, 0);
        while let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
            rest = &rest[end + 4..];
            let field = |name: &str| {
                let mut lines = head.split("\r\n").skip(1);
                lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            let Some(request) = self.requests.get(answers) else {
                panic!("one answer too many: {head}\n{self}");
            };
            answers += 1;
            assert!(
                request.start < sent,
                "an answer without a request: {head}\n{self}"
            );
            match field("x-answers") {
                Some(marker) => {
                    relayed += 1;
                    assert_eq!(marker, request.marker, "another's answer\n{self}");
                    assert!(request.head_end <= sent, "an answer to half a head\n{self}");
                }
                None => assert!(
                    field("proxy-status").is_some(),
                    "an answer of nobody's: {head}\n{self}"
                ),
            }
            let Some(left) = skip_body(rest, field("content-length")) else {
                return relayed;
            };
            rest = left;
        }
        relayed
    }
}

/// What follows the body of an answer; nothing where it is not whole.
fn skip_body<'a>(bytes: &'a [u8], length: Option<&str>) -> Option<&'a [u8]> {
    if let Some(length) = length {
        return bytes.get(length.parse().expect("a length")..);
    }
    let mut rest = bytes;
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        rest = rest.get(end + 2 + size + 2..)?;
        if size == 0 {
            return Some(rest);
        }
    }
}

impl Request {
    /// The backend's answer.
    pub fn answer(&self) -> Vec<u8> {
        let Answering {
            status, chunked, ..
        } = self.answering;
        let framing = match chunked {
            true => "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            false => "Content-Length: 2\r\n\r\n{}",
        };
        let marker = &self.marker;
        format!("HTTP/1.1 {status} Fine\r\nX-Answers: {marker}\r\n{framing}").into_bytes()
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for request in &self.requests {
            let (length, answering) = (request.body.len(), request.answering);
            writeln!(
                f,
                "{}: a body of {length} bytes, {answering:?}",
                request.marker
            )?;
            writeln!(
                f,
                "  at {}, its body at {}",
                request.start, request.head_end
            )?;
        }
        write!(f, "{:?}", self.steps)
    }
}
