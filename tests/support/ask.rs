//! A request as a test states it, for either protocol.

use super::Token;

/// One block of a generated body; its length has no small factors, so that no boundary of a
/// buffer or chunk falls in step with it.
pub const BLOCK: usize = 65_521;

/// A request's body and how it is framed on HTTP/1.1. On HTTP/2 the length is stated by a
/// `content-length` field or left out.
#[derive(Clone, Debug, Default)]
pub enum Payload {
    /// No body and no length.
    #[default]
    Absent,
    Sized(Vec<u8>),
    Chunked(Vec<u8>),
    /// So many bytes of a pattern, made while they are sent.
    Generated {
        length: u64,
        sized: bool,
    },
}

#[derive(Clone, Default)]
pub struct Ask {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub host: Option<String>,
    pub payload: Payload,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            ..Self::default()
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    /// A log-in as the contract describes it.
    pub fn login(username: &str, password: &str) -> Self {
        let body = serde_json::json!({"username": username, "password": password});
        Self::post("/api/getToken").json(body.to_string())
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub fn token(self, token: &Token) -> Self {
        let value = token.secret().to_owned();
        self.field("Authorization", &value)
    }

    pub fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.field("Content-Type", "application/json").sized(body)
    }

    pub fn sized(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.payload = Payload::Sized(body.into());
        self
    }

    pub fn chunked(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.payload = Payload::Chunked(body.into());
        self
    }

    pub fn generated(mut self, length: u64, sized: bool) -> Self {
        self.payload = Payload::Generated { length, sized };
        self
    }

    /// The head as HTTP/1.1 writes it, with the framing fields of the payload.
    pub fn head(&self, default_host: &str) -> Vec<u8> {
        let host = self.host.as_deref().unwrap_or(default_host);
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\n",
            self.method, self.target
        );
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.payload {
            Payload::Absent => {}
            Payload::Sized(body) => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
            Payload::Generated {
                length,
                sized: true,
            } => {
                head.push_str(&format!("Content-Length: {length}\r\n"));
            }
            Payload::Chunked(_) | Payload::Generated { .. } => {
                head.push_str("Transfer-Encoding: chunked\r\n");
            }
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Head and body as HTTP/1.1 bytes; for bodies that fit in memory.
    pub fn bytes(&self, default_host: &str) -> Vec<u8> {
        let mut bytes = self.head(default_host);
        match &self.payload {
            Payload::Absent => {}
            Payload::Sized(body) => bytes.extend_from_slice(body),
            Payload::Chunked(body) => {
                for piece in body.chunks(1000) {
                    bytes.extend_from_slice(&chunk(piece));
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            Payload::Generated { .. } => panic!("a generated body is streamed, not collected"),
        }
        bytes
    }
}

/// One chunk of the chunked coding.
pub fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

/// The block that generated bodies repeat.
pub fn pattern() -> Vec<u8> {
    (0..BLOCK).map(|i| (i % 251) as u8).collect()
}

/// SHA-256 of a generated body of this length.
pub fn pattern_digest(length: u64) -> String {
    let block = pattern();
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut left = length;
    while left > 0 {
        let here = left.min(BLOCK as u64);
        digest.update(&block[..here as usize]);
        left -= here;
    }
    super::hex(digest.finish().as_ref())
}
