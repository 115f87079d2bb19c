//! An HTTP/1.1 client that writes whatever bytes a test wants and reads answers strictly.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{NamedGroup, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::ask::{self, Ask, Payload};
use super::wire::{Broken, Framing, Head, Reader};
use super::{Http2, redact, tls, within};

/// An access token. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub fn new(secret: &str) -> Self {
        Self(secret.to_owned())
    }

    /// The token itself; for request heads only, never for a message.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(<secret>)")
    }
}

/// A response, read to its end.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields; on HTTP/2 the line is empty.
    pub head: Head,
    pub framing: Framing,
    pub body: Vec<u8>,
    /// Length and digest of the whole body; `body` keeps only the first MiB of a large one.
    pub length: u64,
    pub sha256: String,
    /// Heads of interim (1xx) responses that came before.
    pub interim: Vec<u16>,
}

impl Answer {
    /// The only value of a header; a header that occurs twice fails the test.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// What a refused token's client is told of it.
    pub fn token_fault(&self) -> &str {
        assert_eq!(self.status, 401, "{self:?}");
        let challenge = self.header("www-authenticate").unwrap_or_default();
        let (_, fault) = challenge.split_once("error_description=\"").expect("one");
        fault.trim_end_matches('"')
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("a body that is no JSON ({error}): {self:?}"),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.status, self.head.start)?;
        for (name, value) in &self.head.fields {
            writeln!(f, "{name}: {}", redact(value))?;
        }
        let text = redact(&self.text());
        write!(f, "\n{}", text.chars().take(2000).collect::<String>())
    }
}

/// How a connection ended, as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// TLS said goodbye (or, in the clear, the stream ended).
    Clean,
    /// The stream ended, or was reset, with no goodbye from TLS.
    Abrupt,
}

/// What TLS agreed on.
#[derive(Clone, Debug, Default)]
pub struct Agreed {
    pub version: Option<ProtocolVersion>,
    pub alpn: Option<String>,
    pub group: Option<NamedGroup>,
    pub certificate: Option<CertificateDer<'static>>,
}

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One connection to the gateway.
pub struct Connection {
    pub agreed: Agreed,
    host: String,
    reader: Reader<tokio::io::ReadHalf<Box<dyn Stream>>>,
    writer: tokio::io::WriteHalf<Box<dyn Stream>>,
}

impl Connection {
    pub fn new(stream: Box<dyn Stream>, host: &str, agreed: Agreed) -> Self {
        let (read, writer) = tokio::io::split(stream);
        Self {
            agreed,
            host: host.to_owned(),
            reader: Reader::new(read, |_| {}),
            writer,
        }
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_write(bytes).await {
            panic!("could not write to the gateway: {error}");
        }
    }

    /// Writes bytes to a peer that may be gone.
    pub async fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        within("room to write", async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        })
        .await
    }

    /// Ends the sending side (with a close_notify over TLS).
    pub async fn finish(&mut self) {
        let _ = within("the end of sending", self.writer.shutdown()).await;
    }

    /// Writes a request whole. A generated body is written while the answer may already come.
    pub async fn send(&mut self, ask: &Ask) {
        let Payload::Generated { length, sized } = ask.payload else {
            let bytes = ask.bytes(&self.host);
            return self.write(&bytes).await;
        };
        let head = ask.head(&self.host);
        self.write(&head).await;
        let block = ask::pattern();
        let mut left = length;
        while left > 0 {
            let piece = &block[..left.min(block.len() as u64) as usize];
            if sized {
                self.write(piece).await;
            } else {
                self.write(&ask::chunk(piece)).await;
            }
            left -= piece.len() as u64;
        }
        if !sized {
            self.write(b"0\r\n\r\n").await;
        }
    }

    /// Sends a request and reads its answer.
    pub async fn exchange(&mut self, ask: &Ask) -> Answer {
        self.send(ask).await;
        self.answer_to(&ask.method).await
    }

    /// Reads the answer to a request whose method is not HEAD.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("").await
    }

    pub async fn answer_to(&mut self, method: &str) -> Answer {
        match self.try_answer(method).await {
            Ok(answer) => answer,
            Err(broken) => panic!("no whole answer: {broken}"),
        }
    }

    /// Reads an answer that may break off.
    pub async fn try_answer(&mut self, method: &str) -> Result<Answer, Broken> {
        within("an answer", self.read_answer(method)).await
    }

    async fn read_answer(&mut self, method: &str) -> Result<Answer, Broken> {
        let mut interim = Vec::new();
        let (status, head) = loop {
            let (status, head) = self.response_head().await?;
            if status >= 200 {
                break (status, head);
            }
            interim.push(status);
        };
        let framing = match head.stated_framing()? {
            _ if method == "HEAD" || matches!(status, 204 | 304) => Framing::None,
            Some(framing) => framing,
            None => Framing::UntilClose,
        };
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let (mut length, mut body) = (0, Vec::new());
        self.reader
            .body(framing, &mut |piece| {
                digest.update(piece);
                length += piece.len() as u64;
                let room = (1024 * 1024_usize).saturating_sub(body.len());
                body.extend_from_slice(&piece[..room.min(piece.len())]);
            })
            .await?;
        let sha256 = super::hex(digest.finish().as_ref());
        Ok(Answer {
            status,
            head,
            framing,
            body,
            length,
            sha256,
            interim,
        })
    }

    /// Reads one head; for answers whose body is to be awaited apart.
    pub async fn response_head(&mut self) -> Result<(u16, Head), Broken> {
        let head = within("the head of an answer", self.reader.head()).await?;
        let mut words = head.start.splitn(3, ' ');
        let status = match (words.next(), words.next().map(str::parse), words.next()) {
            // HTTP/1.0 only to a request of that version.
            (Some("HTTP/1.1" | "HTTP/1.0"), Some(Ok(status)), Some(_)) => status,
            _ => return Err(Broken::Malformed(head.start.clone())),
        };
        Ok((status, head))
    }

    /// Exactly so many bytes, as they come.
    pub async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Broken> {
        within("bytes from the gateway", self.reader.exactly(count)).await
    }

    /// Waits for the gateway to end the connection; anything it still sends fails the test.
    pub async fn ending(&mut self) -> Ending {
        let (rest, ending) = self.remainder().await;
        assert!(
            rest.is_empty(),
            "{} bytes came where the end was due",
            rest.len()
        );
        ending
    }

    /// Everything that still comes before the gateway ends the connection.
    pub async fn remainder(&mut self) -> (Vec<u8>, Ending) {
        let (rest, ending) = within("the end of the connection", self.reader.until_end()).await;
        (
            rest,
            if ending.is_ok() {
                Ending::Clean
            } else {
                Ending::Abrupt
            },
        )
    }
}

/// Someone who talks to the gateway: where it is, whom to trust, and in what role.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub trusted: Vec<CertificateDer<'static>>,
    /// The name sent by SNI and in `Host`.
    pub name: String,
    pub token: Option<Token>,
}

impl Client {
    /// Connects by TLS, offering only HTTP/1.1.
    pub async fn connect(&self) -> Connection {
        let config = tls::client(
            &self.trusted,
            &["http/1.1"],
            rustls::ALL_VERSIONS,
            tls::provider(),
        );
        match self.connect_with(config).await {
            Ok(connection) => connection,
            Err(error) => panic!("no TLS connection to the gateway: {error}"),
        }
    }

    /// Connects by TLS with settings of the test's own.
    pub async fn connect_with(&self, config: Arc<rustls::ClientConfig>) -> io::Result<Connection> {
        self.connect_behind(&[], config).await
    }

    /// The same after some pieces of text in the clear, as a proxy before the gateway sends them.
    pub async fn connect_behind(
        &self,
        pieces: &[&[u8]],
        config: Arc<rustls::ClientConfig>,
    ) -> io::Result<Connection> {
        within("a TLS connection", async {
            let mut tcp = TcpStream::connect(self.address).await?;
            tcp.set_nodelay(true)?;
            for piece in pieces {
                tcp.write_all(piece).await?;
            }
            let name = ServerName::try_from(self.name.clone()).map_err(io::Error::other)?;
            let stream = TlsConnector::from(config).connect(name, tcp).await?;
            let session = stream.get_ref().1;
            let agreed = Agreed {
                version: session.protocol_version(),
                alpn: session
                    .alpn_protocol()
                    .map(|name| String::from_utf8_lossy(name).into_owned()),
                group: session
                    .negotiated_key_exchange_group()
                    .map(|group| group.name()),
                certificate: session
                    .peer_certificates()
                    .and_then(<[_]>::first)
                    .map(|certificate| certificate.clone().into_owned()),
            };
            Ok(Connection::new(Box::new(stream), &self.name, agreed))
        })
        .await
    }

    /// Connects by TLS and opens HTTP/2.
    pub async fn connect_h2(&self) -> Http2 {
        Http2::connect(self).await
    }

    /// Connects in the clear.
    pub async fn connect_plain(&self) -> Connection {
        within("a connection", async {
            let tcp = TcpStream::connect(self.address)
                .await
                .expect("a connection");
            tcp.set_nodelay(true).expect("a socket that can be set");
            Connection::new(Box::new(tcp), &self.name, Agreed::default())
        })
        .await
    }

    /// The request with this role's token.
    pub fn with_token(&self, ask: Ask) -> Ask {
        match &self.token {
            Some(token) => ask.token(token),
            None => ask,
        }
    }

    /// Sends a request in this role over a new HTTP/1.1 connection.
    pub async fn send(&self, ask: Ask) -> Answer {
        self.connect().await.exchange(&self.with_token(ask)).await
    }

    /// Posts a JSON body in this role.
    pub async fn post(&self, target: &str, body: &str) -> Answer {
        self.send(Ask::post(target).json(body)).await
    }
}
