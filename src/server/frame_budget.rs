//! Pure: how many HTTP/2 frames a client may send that ask for nothing, and trailers that are malformed.
//!
//! h2 bounds CONTINUATION frames, header lists, empty DATA frames, streams that are reset before they
//! were looked at and streams that it resets itself. It answers any number of PING and SETTINGS
//! frames, and takes any number of WINDOW_UPDATE, PRIORITY and unknown ones and of resets of streams
//! that are being served. Those are counted here, by the nine bytes that each frame begins with.
//! Trailers it takes whatever is in them, and drops their pseudo-header fields: [`super::trailers`].

use std::time::Duration;

use super::trailers::FirstField;

/// What a connection has sent and may still send.
#[derive(Debug)]
pub(super) struct FrameBudget {
    received: FrameWalk,
    sent: FrameWalk,
    /// The last stream that the client opened.
    last_stream: u32,
    /// While trailers arrive whose first field is not known yet.
    trailers: Option<FirstField>,
    said_goaway: bool,
    control: Bucket,
    windows: Bucket,
    resets: Bucket,
}

/// What no honest client sends: frames of one sort beyond measure, or malformed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// PING, SETTINGS, PRIORITY, GOAWAY and unknown frames.
    Control,
    /// WINDOW_UPDATE.
    Windows,
    /// RST_STREAM.
    Resets,
    /// Trailers that begin with a pseudo-header field (RFC 9113, section 8.1).
    PseudoTrailers,
}

impl Violation {
    /// The error code (RFC 9113, section 7).
    fn code(self) -> u32 {
        match self {
            Self::Control | Self::Windows | Self::Resets => ENHANCE_YOUR_CALM,
            Self::PseudoTrailers => PROTOCOL_ERROR,
        }
    }
}

impl FrameBudget {
    pub(super) fn new() -> Self {
        Self {
            received: FrameWalk {
                payload: PREFACE,
                ..FrameWalk::default()
            },
            sent: FrameWalk::default(),
            last_stream: 0,
            trailers: None,
            said_goaway: false,
            control: Bucket::default(),
            windows: Bucket::default(),
            resets: Bucket::default(),
        }
    }

    /// Counts what the client sent. `elapsed` is the connection's age, asked for only when a burst is
    /// used up.
    ///
    /// # Errors
    /// Which frames are too many or malformed: the connection is to be ended.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        elapsed: impl Fn() -> Duration,
    ) -> Result<(), Violation> {
        let mut walk = self.received;
        let mut result = Ok(());
        walk.over(bytes, |part| {
            let frame = match part {
                Part::Head(frame) => frame,
                Part::Payload(payload) => {
                    if let Some(trailers) = &mut self.trailers
                        && let Some(is_pseudo) = trailers.read(payload)
                    {
                        self.trailers = None;
                        if is_pseudo {
                            result = Err(Violation::PseudoTrailers);
                        }
                    }
                    return;
                }
            };
            let (bucket, burst, cost, violation) = match frame.kind {
                DATA => return,
                CONTINUATION => {
                    if let Some(trailers) = &mut self.trailers {
                        trailers.go_on(frame.length);
                    }
                    return;
                }
                HEADERS => {
                    // Whatever else it may be on a stream that is over, h2 sees to.
                    let ends_request = frame.stream <= self.last_stream;
                    self.trailers =
                        ends_request.then(|| FirstField::new(frame.length, frame.flags));
                    self.last_stream = self.last_stream.max(frame.stream);
                    self.control.earn(CONTROL_PER_FRAME);
                    self.windows.earn(WINDOWS_PER_STREAM);
                    return;
                }
                RST_STREAM => (&mut self.resets, RESETS, 1, Violation::Resets),
                WINDOW_UPDATE => (&mut self.windows, WINDOWS, 1, Violation::Windows),
                // Each setting in a SETTINGS frame takes 6 bytes and is looked at.
                _ => {
                    let cost = 1 + frame.length / 64;
                    (&mut self.control, CONTROL, cost, Violation::Control)
                }
            };
            if !bucket.spend(cost, burst, &elapsed) {
                result = Err(violation);
            }
        });
        self.received = walk;
        result
    }

    /// Counts what was written to the client: a client that is sent much opens windows often.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let mut walk = self.sent;
        walk.over(bytes, |part| {
            let Part::Head(frame) = part else { return };
            if frame.kind == DATA {
                self.windows.earn(WINDOWS_PER_DATA);
                self.control.earn(CONTROL_PER_FRAME);
            }
            self.said_goaway |= frame.kind == GOAWAY;
        });
        self.sent = walk;
    }

    /// Whether a GOAWAY frame was written.
    pub(super) fn has_said_goaway(&self) -> bool {
        self.said_goaway
    }

    /// GOAWAY for this reason, or nothing where it would stand within another frame.
    pub(super) fn goaway(&self, violation: Violation) -> Vec<u8> {
        if self.sent.payload > 0 || self.sent.have > 0 {
            return Vec::new();
        }
        let mut frame = vec![0, 0, 8, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&self.last_stream.to_be_bytes());
        frame.extend_from_slice(&violation.code().to_be_bytes());
        frame
    }
}

/// A bucket that leaks: what is spent comes back with time, and with work that calls for it.
#[derive(Debug, Default)]
struct Bucket {
    spent: u32,
    leaked_at: Duration,
}

impl Bucket {
    fn earn(&mut self, amount: u32) {
        self.spent = self.spent.saturating_sub(amount);
    }

    fn spend(&mut self, cost: u32, burst: u32, elapsed: impl Fn() -> Duration) -> bool {
        self.spent = self.spent.saturating_add(cost);
        if self.spent <= burst {
            return true;
        }
        let now = elapsed();
        let since = now.saturating_sub(self.leaked_at).as_millis();
        let back = u32::try_from(since * u128::from(PER_SECOND) / 1000).unwrap_or(u32::MAX);
        if back > 0 {
            self.leaked_at = now;
            self.earn(back);
        }
        self.spent <= burst
    }
}

/// Finds the frames in a stream of bytes that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
struct FrameWalk {
    /// Bytes of the present payload that are still to come.
    payload: u32,
    head: [u8; HEAD],
    have: usize,
}

/// What a frame's first nine bytes say.
#[derive(Clone, Copy, Debug)]
struct FrameHead {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// What stands in a stream of frames: the head of one, and then pieces of its payload.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Head(FrameHead),
    Payload(&'a [u8]),
}

impl FrameWalk {
    fn over(&mut self, mut bytes: &[u8], mut each: impl FnMut(Part<'_>)) {
        loop {
            let (payload, rest) = bytes.split_at(bytes.len().min(self.payload as usize));
            if !payload.is_empty() {
                self.payload -= payload.len() as u32;
                each(Part::Payload(payload));
            }
            bytes = rest;
            if bytes.is_empty() {
                return;
            }
            let taken = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                self.have = 0;
                let [a, b, c, kind, flags, d, e, f, g] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
                self.payload = length;
                each(Part::Head(FrameHead {
                    length,
                    kind,
                    flags,
                    stream,
                }));
            }
        }
    }
}

/// The length of a frame's head.
const HEAD: usize = 9;

/// "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", before the client's first frame.
const PREFACE: u32 = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// nghttp2 keeps 1,000 answers to PING and SETTINGS for a client before it gives up.
const CONTROL: u32 = 1000;

/// A client that measures the line sends a PING for DATA that it got.
const CONTROL_PER_FRAME: u32 = 1;

const WINDOWS: u32 = 1000;

/// Envoy allows 10 WINDOW_UPDATE frames for each DATA frame sent, and 2 for each stream.
const WINDOWS_PER_DATA: u32 = 10;
const WINDOWS_PER_STREAM: u32 = 2;

/// Envoy ends a connection at 500 streams that were reset early.
const RESETS: u32 = 500;

/// What comes back each second; nghttp2's rate for resets and oddities.
const PER_SECOND: u32 = 33;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, 0];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.resize(HEAD + length, b'x');
        frame
    }

    fn begun() -> FrameBudget {
        let mut budget = FrameBudget::new();
        let hello = [vec![b'P'; 24], frame(4, 0, 18)].concat();
        assert_eq!(budget.receive(&hello, || Duration::ZERO), Ok(()));
        budget
    }

    /// How many of these frames pass, each a second of `per_second` frames after the other.
    fn passed(mut budget: FrameBudget, kind: u8, length: usize, per_second: u32) -> u32 {
        for number in 0..20_000 {
            let elapsed = || Duration::from_secs(1) * number / per_second;
            if budget.receive(&frame(kind, 1, length), elapsed).is_err() {
                return number;
            }
        }
        u32::MAX
    }

    #[test]
    fn each_sort_of_frame_has_its_burst_and_its_rate() {
        let endless = u32::MAX;
        for (name, kind, length, per_second, expected) in [
            ("ping", 6, 8, 1_000_000, 999),
            ("ping, as often as allowed", 6, 8, 33, endless),
            ("settings", 4, 0, 1_000_000, 999),
            ("settings of 2,000 values", 4, 12_000, 1_000_000, 5),
            ("priority", 2, 5, 1_000_000, 999),
            ("unknown", 99, 0, 1_000_000, 999),
            ("window", 8, 4, 1_000_000, 1000),
            ("reset", 3, 4, 1_000_000, 500),
            ("reset, somewhat too often", 3, 4, 66, 1000),
            ("data", 0, 1, 1_000_000, endless),
            ("headers", 1, 10, 1_000_000, endless),
            ("continuation", 9, 0, 1_000_000, endless),
        ] {
            let count = passed(begun(), kind, length, per_second);
            let near = expected == endless || expected < 900;
            let tolerance = if near { 0 } else { 30 };
            assert!(
                count.abs_diff(expected) <= tolerance,
                "{name}: {count} passed, not {expected}"
            );
        }
    }

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let mut bytes = vec![b'P'; 24];
        for _ in 0..1001 {
            bytes.extend(frame(6, 0, 8));
            bytes.extend(frame(0, 1, 3));
        }
        for cut in 1..40 {
            let mut budget = FrameBudget::new();
            let pieces = bytes.chunks(cut);
            let flood = pieces
                .map(|piece| budget.receive(piece, || Duration::ZERO))
                .filter(|result| *result == Err(Violation::Control))
                .count();
            assert_eq!(flood, 1, "in pieces of {cut}");
        }
    }

    #[test]
    fn a_client_that_is_sent_much_may_open_windows_often() {
        let mut budget = begun();
        for _ in 0..10_000 {
            budget.send(&frame(0, 1, 100));
            for _ in 0..10 {
                assert_eq!(budget.receive(&frame(8, 1, 4), || Duration::ZERO), Ok(()));
            }
            assert_eq!(budget.receive(&frame(6, 0, 8), || Duration::ZERO), Ok(()));
        }
    }

    #[test]
    fn goaway_names_the_last_stream_and_stands_between_frames() {
        let mut budget = begun();
        budget.receive(&frame(1, 7, 3), || Duration::ZERO).unwrap();
        let goaway = budget.goaway(Violation::Resets);
        assert_eq!(goaway[..9], [0, 0, 8, 7, 0, 0, 0, 0, 0]);
        assert_eq!(goaway[9..], [0, 0, 0, 7, 0, 0, 0, 11]);
        budget.send(&frame(0, 1, 100)[..50]);
        assert!(budget.goaway(Violation::Resets).is_empty());
        budget.send(&frame(0, 1, 100)[50..]);
        assert_eq!(budget.goaway(Violation::PseudoTrailers)[13..], [0, 0, 0, 1]);
    }

    #[test]
    fn only_a_second_header_section_of_a_stream_is_looked_at_wherever_the_bytes_are_cut() {
        let section = |kind, stream, flags, block: &[u8]| {
            let mut bytes = frame(kind, stream, block.len());
            bytes[4] = flags;
            bytes[HEAD..].copy_from_slice(block);
            bytes
        };
        let pseudo: &[u8] = &[0x3f, 0xe1, 0x1f, 0x84];
        let other: &[u8] = b"\0\x03x-a\x01b";
        let malformed = Err(Violation::PseudoTrailers);
        for (what, frames, expected) in [
            (
                "the head of a request",
                vec![section(1, 1, 4, pseudo)],
                Ok(()),
            ),
            (
                "trailers",
                vec![
                    section(1, 1, 4, pseudo),
                    section(0, 1, 0, pseudo),
                    section(1, 1, 5, other),
                ],
                Ok(()),
            ),
            (
                "pseudo-header fields",
                vec![
                    section(1, 1, 4, other),
                    frame(0, 1, 5),
                    section(1, 1, 5, pseudo),
                ],
                malformed,
            ),
            (
                "a head of another stream between",
                vec![
                    section(1, 1, 4, other),
                    section(1, 3, 5, pseudo),
                    section(1, 1, 5, pseudo),
                ],
                malformed,
            ),
            (
                "in continuations",
                vec![
                    section(1, 1, 4, other),
                    section(1, 1, 1, &[]),
                    section(9, 1, 0, &pseudo[..2]),
                    section(9, 1, 4, &pseudo[2..]),
                ],
                malformed,
            ),
            (
                "a payload that looks like them",
                vec![
                    section(1, 1, 4, other),
                    section(1, 1, 1, other),
                    section(9, 1, 4, pseudo),
                ],
                Ok(()),
            ),
        ] {
            let bytes = frames.concat();
            for cut in 1..bytes.len() {
                let mut budget = begun();
                let mut pieces = bytes.chunks(cut);
                let found = pieces.find_map(|piece| budget.receive(piece, || Duration::ZERO).err());
                let found = found.map_or(Ok(()), Err);
                assert_eq!(found, expected, "{what}, in pieces of {cut}");
            }
        }
    }
}
