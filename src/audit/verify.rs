//! Checks a trail, line by line: that each is as it was written and follows the one before. Knows what a gateway that
//! is killed leaves, and that files are deleted as configured.

use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256};

use super::chain::{Head, LONGEST_LINE, LineHash, ReadLine, TrailNote, signed_text};
use super::file::first_line;
use crate::identity::key::PublicKey;

/// Checks a trail, whose files are given in their order.
pub struct Verifier<'a> {
    keys: &'a [PublicKey],
    /// Lines that are known from elsewhere.
    known: Vec<Head>,
    found: Verified,
    last: Option<Head>,
    garbage: Option<Garbage>,
    /// The last line that was deleted as configured.
    removed: u64,
    place: Position,
    /// Where the first line is.
    begin: Position,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Verified {
    /// How many lines are as they were written.
    pub lines: u64,
    /// The number of the first.
    pub first: u64,
    /// The last line.
    pub head: Option<Head>,
    /// The last line that a checkpoint signs.
    pub signed: Option<u64>,
    /// Whether the gateway ended in good order after it.
    pub is_stopped: bool,
    /// What is wrong, and what is only worth knowing.
    pub findings: Vec<Finding>,
}

/// Something about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub at: Position,
    /// What.
    pub fault: Fault,
}

/// A line of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1 on.
    pub line: u64,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not as a gateway wrote it.
    Changed,
    /// A gateway was killed while it wrote this, as the next has noted: no fault.
    Torn {
        /// How much it is.
        bytes: u64,
    },
    /// The trail ends within it.
    Unfinished,
    /// It does not follow the line before.
    OutOfOrder {
        /// The number that would.
        expected: u64,
        /// Its number.
        found: u64,
    },
    /// It follows another line of the same number.
    OtherPast {
        /// That number.
        seq: u64,
    },
    /// Lines before it are missing, and were not deleted as configured.
    NoBeginning {
        /// Its number.
        first: u64,
    },
    /// It is a checkpoint whose signature is wrong.
    BadSignature {
        /// The id of the key.
        key: String,
    },
    /// It is a checkpoint of a key that is not known.
    UnknownKey {
        /// The id of the key.
        key: String,
    },
    /// It should be this line.
    NotAsKnown {
        /// The line.
        known: Head,
    },
    /// This line is missing.
    Missing {
        /// The line.
        known: Head,
    },
}

impl Fault {
    /// Whether somebody changed the trail, as far as can be told.
    #[must_use]
    pub fn is_change(&self) -> bool {
        match self {
            Self::Torn { .. } => false,
            Self::Changed
            | Self::Unfinished
            | Self::OutOfOrder { .. }
            | Self::OtherPast { .. }
            | Self::NoBeginning { .. }
            | Self::BadSignature { .. }
            | Self::UnknownKey { .. }
            | Self::NotAsKnown { .. }
            | Self::Missing { .. } => true,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("this is not as it was written"),
            Self::Torn { bytes } => write!(
                f,
                "a gateway was killed while it wrote this ({bytes} bytes); the next has noted it"
            ),
            Self::Unfinished => f.write_str(
                "this line has no end: it was changed, or a gateway was killed while it wrote it (the next notes \
                 it when it starts)",
            ),
            Self::OutOfOrder { expected, found } if found > expected => write!(
                f,
                "line {found} of the trail follows line {}: {} lines are missing, or stand elsewhere",
                expected - 1,
                found - expected
            ),
            Self::OutOfOrder { expected, found } => {
                write!(f, "line {found} of the trail follows line {}", expected - 1)
            }
            Self::OtherPast { seq } => write!(f, "this line follows another line {seq} than the one before it"),
            Self::NoBeginning { first } => write!(
                f,
                "the trail begins with line {first}: give the files before it too, or what is known of line {} \
                 (--expect)",
                first - 1
            ),
            Self::BadSignature { key } => write!(f, "the signature of this checkpoint is wrong (key {key})"),
            Self::UnknownKey { key } => write!(
                f,
                "this checkpoint is signed by a key that is not known (key {key}); --key FILE names an older one"
            ),
            Self::NotAsKnown { known } => write!(f, "this is not the line {known}"),
            Self::Missing { known } => write!(f, "the trail does not have the line {known}"),
        }
    }
}

/// Bytes that are no line.
struct Garbage {
    at: Position,
    bytes: u64,
    context: Context,
    /// Line breaks among them.
    breaks: u64,
    /// The hash of all but the last line break, if they end with one.
    unbroken: Option<LineHash>,
}

impl<'a> Verifier<'a> {
    /// Checks signatures by these keys, and that these lines are there.
    #[must_use]
    pub fn new(keys: &'a [PublicKey], known: Vec<Head>) -> Self {
        Self {
            keys,
            known,
            found: Verified::default(),
            last: None,
            garbage: None,
            removed: 0,
            place: Position::default(),
            begin: Position::default(),
        }
    }

    /// Checks the next file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(&mut self, file: &Path, mut reader: impl BufRead) -> io::Result<()> {
        self.place = Position {
            file: file.to_owned(),
            line: 1,
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut some = reader.by_ref().take(LONGEST_LINE as u64);
            if some.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            self.line(&line);
            self.place.line += u64::from(line.ends_with(b"\n"));
        }
    }

    fn line(&mut self, line: &[u8]) {
        match line.strip_suffix(b"\n").and_then(ReadLine::read) {
            Some(read) => self.accept(&read),
            None => {
                let at = self.place.clone();
                let garbage = self.garbage.get_or_insert_with(|| Garbage::at(at));
                garbage.add(line);
            }
        }
    }

    fn accept(&mut self, line: &ReadLine) {
        let mut is_noted = false;
        if let Some(garbage) = self.garbage.take() {
            let follows = self.last.is_none_or(|last| last.hash == line.prev);
            let fault = garbage.fault(line, follows);
            is_noted = true;
            self.find(garbage.at, fault);
        }
        self.follow(line, is_noted);
        self.look_up(line);
        self.found.lines += 1;
        self.found.head = Some(line.head);
        self.found.is_stopped = match line.note {
            Some(TrailNote::Stopped) => true,
            Some(TrailNote::Checkpoint { .. }) => self.found.is_stopped,
            Some(TrailNote::Sealed(..) | TrailNote::Removed { .. }) | None => false,
        };
        match &line.note {
            Some(TrailNote::Removed { last, .. }) => self.removed = self.removed.max(*last),
            Some(TrailNote::Checkpoint { key, signature }) => {
                self.checkpoint(line, key, signature);
            }
            Some(TrailNote::Sealed(..) | TrailNote::Stopped) | None => {}
        }
        self.last = Some(line.head);
    }

    /// Whether the line follows the one before. What is between them, if anything, was found already.
    fn follow(&mut self, line: &ReadLine, is_after_garbage: bool) {
        let found = line.head.seq;
        let Some(last) = self.last else {
            self.found.first = found;
            self.begin = self.place.clone();
            return;
        };
        let expected = last.seq + 1;
        if found != expected {
            // The lines that were changed are missing between them, too.
            if !(is_after_garbage && found > expected) {
                self.find_here(Fault::OutOfOrder { expected, found });
            }
        } else if line.prev != last.hash {
            self.find_here(Fault::OtherPast { seq: last.seq });
        }
    }

    fn look_up(&mut self, line: &ReadLine) {
        let here = line.head.seq;
        let before = Head {
            seq: here.saturating_sub(1),
            hash: line.prev,
        };
        let is_first = self.found.lines == 0;
        let known = std::mem::take(&mut self.known);
        for known in known {
            let read = match known.seq {
                seq if seq == here => line.head,
                seq if seq == before.seq && is_first => before,
                _ => {
                    self.known.push(known);
                    continue;
                }
            };
            if read != known {
                self.find_here(Fault::NotAsKnown { known });
            } else if is_first {
                // Whoever knows it knows all before.
                self.removed = self.removed.max(before.seq);
            }
        }
    }

    fn checkpoint(&mut self, line: &ReadLine, key: &str, signature: &str) {
        let head = Head {
            seq: line.head.seq.saturating_sub(1),
            hash: line.prev,
        };
        if self.keys.is_empty() {
            return;
        }
        let Some(known) = self.keys.iter().find(|it| it.id() == key) else {
            let key = key.to_owned();
            return self.find_here(Fault::UnknownKey { key });
        };
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        match known.verifies(&signed_text(head), &bytes) {
            true => self.found.signed = Some(head.seq),
            false => {
                let key = key.to_owned();
                self.find_here(Fault::BadSignature { key });
            }
        }
    }

    /// What was found, once all files are read.
    #[must_use]
    pub fn finish(mut self) -> Verified {
        if let Some(garbage) = self.garbage.take() {
            let fault = match garbage.breaks {
                0 => Fault::Unfinished,
                _ => Fault::Changed,
            };
            self.find(garbage.at, fault);
        }
        let first = self.found.first;
        if first > 1 && self.removed + 1 < first {
            let (at, fault) = (self.begin.clone(), Fault::NoBeginning { first });
            self.find(at, fault);
        }
        for known in std::mem::take(&mut self.known) {
            self.find_here(Fault::Missing { known });
        }
        self.found
    }

    fn find_here(&mut self, fault: Fault) {
        self.find(self.place.clone(), fault);
    }

    fn find(&mut self, at: Position, fault: Fault) {
        self.found.findings.push(Finding { at, fault });
    }
}

impl Garbage {
    fn at(at: Position) -> Self {
        Self {
            at,
            bytes: 0,
            context: Context::new(&SHA256),
            breaks: 0,
            unbroken: None,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.unbroken = None;
        match bytes.strip_suffix(b"\n") {
            Some(before) => {
                self.context.update(before);
                self.unbroken = Some(LineHash::finish(self.context.clone()));
                self.context.update(b"\n");
                self.breaks += 1;
            }
            None => self.context.update(bytes),
        }
    }

    /// What it is, by the line after it, which may follow the one before it.
    fn fault(&self, line: &ReadLine, follows: bool) -> Fault {
        let Some(TrailNote::Sealed(bytes, hash)) = line.note else {
            return Fault::Changed;
        };
        let whole = LineHash::finish(self.context.clone());
        let is_whole = self.breaks == 0 && (bytes, hash) == (self.bytes, whole);
        // Whoever noted it has ended its line.
        let is_unbroken =
            self.breaks == 1 && bytes + 1 == self.bytes && self.unbroken == Some(hash);
        match follows && (is_whole || is_unbroken) {
            true => Fault::Torn { bytes },
            false => Fault::Changed,
        }
    }
}

/// Puts files into the order of their lines. Those without a line come first, so that they are found.
#[must_use]
pub fn in_order(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut numbered: Vec<_> = files
        .into_iter()
        .map(|file| (first_line(&file).unwrap_or(0), file))
        .collect();
    numbered.sort();
    numbered.into_iter().map(|(_, file)| file).collect()
}
