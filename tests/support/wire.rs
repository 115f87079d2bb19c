//! HTTP/1.1 read strictly from a byte stream, for the client's side and the upstream's alike.
//! What a lenient parser would let pass is an error here, so that a test sees it.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A start line and its fields, as they came.
#[derive(Clone, Default)]
pub struct Head {
    pub start: String,
    pub fields: Vec<(String, String)>,
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Why a message could not be read to its end.
#[derive(Debug)]
pub enum Broken {
    /// The peer closed before the first byte of a message.
    Ended,
    /// The peer closed within a message.
    Cut(&'static str),
    Malformed(String),
    Io(io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("closed before a message began"),
            Self::Cut(place) => write!(f, "closed within {place}"),
            Self::Malformed(what) => write!(f, "malformed: {}", super::redact(what)),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl Head {
    /// Every value of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The only value of a field; a field that occurs twice fails the test.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} occurs {} times", values.len());
        values.first().copied()
    }

    fn parse(raw: &[u8]) -> Result<Self, Broken> {
        let malformed = |what: &str| Broken::Malformed(what.to_owned());
        let text: String = raw.iter().map(|&byte| char::from(byte)).collect();
        let text = text
            .strip_suffix("\r\n\r\n")
            .ok_or_else(|| malformed("no empty line"))?;
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| malformed("a field without a colon"))?;
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(token) {
                return Err(malformed("a field name that is no token"));
            }
            if value.chars().any(|c| matches!(c, '\r' | '\n' | '\0')) {
                return Err(malformed("a control character in a field value"));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        if start.contains(['\r', '\n', '\0']) {
            return Err(malformed("a control character in the start line"));
        }
        Ok(Self { start, fields })
    }

    /// The framing that the fields state, or an error where they are ambiguous.
    pub fn stated_framing(&self) -> Result<Option<Framing>, Broken> {
        let malformed = |what: &str| Err(Broken::Malformed(what.to_owned()));
        match (
            &self.all("content-length")[..],
            &self.all("transfer-encoding")[..],
        ) {
            ([], []) => Ok(None),
            ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
                match length.parse() {
                    Ok(length) => Ok(Some(Framing::Length(length))),
                    Err(_) => malformed("a Content-Length out of range"),
                }
            }
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            _ => malformed("ambiguous framing"),
        }
    }
}

/// Reads messages from a stream and shows every byte to a tap first.
pub struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
    used: usize,
    tap: Tap,
}

type Tap = Box<dyn FnMut(&[u8]) + Send>;

impl<S: AsyncRead + Unpin> Reader<S> {
    pub fn new(stream: S, tap: impl FnMut(&[u8]) + Send + 'static) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            used: 0,
            tap: Box::new(tap),
        }
    }

    /// Reads once; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, Broken> {
        self.buffer.drain(..std::mem::take(&mut self.used));
        let mut block = vec![0; 64 * 1024];
        let length = self.stream.read(&mut block).await.map_err(Broken::Io)?;
        (self.tap)(&block[..length]);
        self.buffer.extend_from_slice(&block[..length]);
        Ok(length > 0)
    }

    fn pending(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Whether nothing that was read is left over.
    pub fn is_drained(&self) -> bool {
        self.pending().is_empty()
    }

    /// Waits for the next byte, without taking it.
    pub async fn readable(&mut self) -> Result<(), Broken> {
        if self.is_drained() && !self.fill().await? {
            return Err(Broken::Ended);
        }
        Ok(())
    }

    /// Reads what still comes until the stream ends; the bytes, and how it ended.
    pub async fn until_end(&mut self) -> (Vec<u8>, io::Result<()>) {
        let ending = loop {
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(Broken::Io(error)) => break Err(error),
                Err(other) => break Err(io::Error::other(other.to_string())),
            }
        };
        (self.pending().to_vec(), ending)
    }

    /// Exactly this many bytes.
    pub async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Broken> {
        while self.pending().len() < count {
            if !self.fill().await? {
                let ended = self.pending().is_empty();
                return Err(if ended {
                    Broken::Ended
                } else {
                    Broken::Cut("a frame")
                });
            }
        }
        let bytes = self.pending()[..count].to_vec();
        self.used += count;
        Ok(bytes)
    }

    async fn line(&mut self, place: &'static str) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(end) = self.pending().windows(2).position(|pair| pair == b"\r\n") {
                let line = self.pending()[..end].to_vec();
                self.used += end + 2;
                return Ok(line);
            }
            if !self.fill().await? {
                return Err(Broken::Cut(place));
            }
        }
    }

    /// Reads a head up to and with its empty line.
    pub async fn head(&mut self) -> Result<Head, Broken> {
        loop {
            if let Some(end) = self
                .pending()
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                let head = Head::parse(&self.pending()[..end + 4])?;
                self.used += end + 4;
                return Ok(head);
            }
            let begun = !self.pending().is_empty();
            if !self.fill().await? {
                return Err(if begun {
                    Broken::Cut("a head")
                } else {
                    Broken::Ended
                });
            }
        }
    }

    /// Reads a body and gives its pieces to `each`; the raw trailer lines, if any, are returned.
    pub async fn body(
        &mut self,
        framing: Framing,
        each: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Vec<String>, Broken> {
        match framing {
            Framing::None => Ok(Vec::new()),
            Framing::Length(length) => {
                self.span(length, "a body with Content-Length", each)
                    .await?;
                Ok(Vec::new())
            }
            Framing::UntilClose => loop {
                each(&self.buffer[self.used..]);
                self.used = self.buffer.len();
                if !self.fill().await? {
                    return Ok(Vec::new());
                }
            },
            Framing::Chunked => self.chunks(each).await,
        }
    }

    async fn span(
        &mut self,
        mut left: u64,
        place: &'static str,
        each: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(), Broken> {
        while left > 0 {
            if self.is_drained() && !self.fill().await? {
                return Err(Broken::Cut(place));
            }
            let here = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.pending().len());
            each(&self.buffer[self.used..self.used + here]);
            self.used += here;
            left -= here as u64;
        }
        Ok(())
    }

    async fn chunks(
        &mut self,
        each: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Vec<String>, Broken> {
        loop {
            let line = self.line("a chunk size").await?;
            let size = std::str::from_utf8(&line)
                .ok()
                .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|text| u64::from_str_radix(text, 16).ok())
                .ok_or_else(|| Broken::Malformed("a chunk size".to_owned()))?;
            if size == 0 {
                break;
            }
            self.span(size, "a chunk", each).await?;
            if self.exactly(2).await.map_err(|_| Broken::Cut("a chunk"))? != b"\r\n" {
                return Err(Broken::Malformed("no CRLF after a chunk".to_owned()));
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line("the trailers").await?;
            if line.is_empty() {
                return Ok(trailers);
            }
            trailers.push(String::from_utf8_lossy(&line).into_owned());
        }
    }
}
