//! An HTTP/2 client over TLS.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::ask::{self, Ask, Payload};
use super::client::{Answer, Client};
use super::wire::{Framing, Head};
use super::{tls, within};

pub struct Http2 {
    sender: http2::SendRequest<Upload>,
    driver: JoinHandle<hyper::Result<()>>,
    socket: std::net::TcpStream,
    host: String,
}

/// A request body: made at once, generated, or fed by the test.
pub enum Upload {
    Pieces {
        pieces: VecDeque<Bytes>,
        sized: bool,
    },
    Pattern {
        block: Bytes,
        left: u64,
        sized: bool,
    },
    Fed(mpsc::Receiver<io::Result<Frame<Bytes>>>),
}

impl Upload {
    fn of(payload: &Payload) -> Self {
        match payload {
            Payload::Absent => Self::Pieces {
                pieces: VecDeque::new(),
                sized: true,
            },
            Payload::Sized(body) => Self::Pieces {
                pieces: [Bytes::from(body.clone())].into(),
                sized: true,
            },
            Payload::Chunked(body) => {
                let pieces = body.chunks(1000).map(Bytes::copy_from_slice).collect();
                Self::Pieces {
                    pieces,
                    sized: false,
                }
            }
            Payload::Generated { length, sized } => Self::Pattern {
                block: Bytes::from(ask::pattern()),
                left: *length,
                sized: *sized,
            },
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Pieces { pieces, .. } => {
                Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
            }
            Self::Pattern { left: 0, .. } => Poll::Ready(None),
            Self::Pattern { block, left, .. } => {
                let here = (*left).min(block.len() as u64);
                *left -= here;
                Poll::Ready(Some(Ok(Frame::data(block.slice(..here as usize)))))
            }
            Self::Fed(feed) => feed.poll_recv(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pieces { pieces, .. } => pieces.is_empty(),
            Self::Pattern { left, .. } => *left == 0,
            Self::Fed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pieces {
                pieces,
                sized: true,
            } => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Pattern {
                left, sized: true, ..
            } => SizeHint::with_exact(*left),
            Self::Pieces { .. } | Self::Pattern { .. } | Self::Fed(_) => SizeHint::default(),
        }
    }
}

/// The test's end of a body that it feeds. Dropping it ends the body in good order.
pub struct Feed(mpsc::Sender<io::Result<Frame<Bytes>>>);

impl Feed {
    /// Sends a piece; whether it is still wanted.
    pub async fn data(&self, piece: &'static str) -> bool {
        self.0
            .send(Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .await
            .is_ok()
    }

    /// The next piece; false when nobody takes it any more.
    pub async fn bytes(&self, piece: Bytes) -> bool {
        self.0.send(Ok(Frame::data(piece))).await.is_ok()
    }

    pub async fn trailers(&self, trailers: HeaderMap) {
        let _ = self.0.send(Ok(Frame::trailers(trailers))).await;
    }

    /// Gives the body up: the stream is reset.
    pub async fn fail(self) {
        let _ = self
            .0
            .send(Err(io::Error::other("given up by the test")))
            .await;
    }
}

/// Why an exchange over HTTP/2 came to nothing: the error code of the stream or connection.
#[derive(Debug)]
pub struct StreamError(pub String);

impl From<hyper::Error> for StreamError {
    fn from(error: hyper::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self(text)
    }
}

impl Http2 {
    pub async fn connect(client: &Client) -> Self {
        let config = tls::client(
            &client.trusted,
            &["h2"],
            rustls::ALL_VERSIONS,
            tls::provider(),
        );
        let (socket, (sender, connection)) = within("an HTTP/2 connection", async {
            let socket = std::net::TcpStream::connect(client.address).expect("a connection");
            socket.set_nodelay(true).expect("a socket that can be set");
            socket
                .set_nonblocking(true)
                .expect("a socket that can be set");
            let tcp = socket
                .try_clone()
                .and_then(TcpStream::from_std)
                .expect("a second handle");
            let name = ServerName::try_from(client.name.clone()).expect("a server name");
            let stream = TlsConnector::from(config)
                .connect(name, tcp)
                .await
                .expect("TLS");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let http2 = http2::Builder::new(TokioExecutor::new())
                .handshake(TokioIo::new(stream))
                .await
                .expect("HTTP/2");
            (socket, http2)
        })
        .await;
        let driver = tokio::spawn(connection);
        Self {
            sender,
            driver,
            socket,
            host: client.name.clone(),
        }
    }

    fn request(&self, ask: &Ask, body: Upload) -> Request<Upload> {
        let host = ask.host.as_deref().unwrap_or(&self.host);
        let mut request = Request::builder()
            .method(ask.method.as_str())
            .uri(format!("https://{host}{}", ask.target));
        for (name, value) in &ask.fields {
            request = request.header(name.to_ascii_lowercase(), value);
        }
        request.body(body).expect("a request")
    }

    /// Begins a request and returns what will be its response, so that several can run at once.
    pub fn begin(
        &mut self,
        ask: &Ask,
    ) -> impl Future<Output = Result<Response<Incoming>, StreamError>> + use<> {
        let request = self.request(ask, Upload::of(&ask.payload));
        let response = self.sender.send_request(request);
        async move { Ok(within("an answer over HTTP/2", response).await?) }
    }

    /// Begins a request whose body the test feeds piece by piece.
    pub fn feed(
        &mut self,
        ask: &Ask,
    ) -> (
        Feed,
        impl Future<Output = Result<Response<Incoming>, StreamError>> + use<>,
    ) {
        let (sender, receiver) = mpsc::channel(1);
        let response = self
            .sender
            .send_request(self.request(ask, Upload::Fed(receiver)));
        (Feed(sender), async move {
            Ok(within("an answer over HTTP/2", response).await?)
        })
    }

    /// Sends a request and reads its answer.
    pub async fn exchange(&mut self, ask: &Ask) -> Answer {
        match self.try_exchange(ask).await {
            Ok(answer) => answer,
            Err(StreamError(error)) => panic!("no whole answer over HTTP/2: {error}"),
        }
    }

    /// Sends a request whose answer may break off.
    pub async fn try_exchange(&mut self, ask: &Ask) -> Result<Answer, StreamError> {
        let response = self.begin(ask).await?;
        read(response).await
    }

    /// Cuts the connection, whatever is under way on it.
    pub fn cut(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Waits until the connection has ended, at the gateway's wish.
    pub async fn ended(mut self) -> Result<(), StreamError> {
        // The sender has to live on, else the client itself would close.
        let driven = within("the end of the HTTP/2 connection", &mut self.driver).await;
        Ok(driven.expect("the driver of the connection")?)
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Reads a response to its end.
pub async fn read(response: Response<Incoming>) -> Result<Answer, StreamError> {
    let (parts, mut incoming) = response.into_parts();
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let (mut length, mut body) = (0, Vec::new());
    while let Some(frame) = within("a piece of a body", incoming.frame()).await {
        if let Ok(piece) = frame?.into_data() {
            digest.update(&piece);
            length += piece.len() as u64;
            let room = (1024 * 1024_usize).saturating_sub(body.len());
            body.extend_from_slice(&piece[..room.min(piece.len())]);
        }
    }
    Ok(Answer {
        status: parts.status.as_u16(),
        head: head(&parts.headers),
        framing: Framing::UntilClose,
        body,
        length,
        sha256: super::hex(digest.finish().as_ref()),
        interim: Vec::new(),
    })
}

fn head(headers: &HeaderMap) -> Head {
    let fields = headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    Head {
        start: String::new(),
        fields,
    }
}
