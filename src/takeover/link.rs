//! The link between the two processes: an unnamed pair of sockets, of which nobody else has an end.
//! Every exchange of a takeover has one deadline in common.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::frame::{self, HEAD, Kind};
use crate::process::descriptors;

/// One end of the link.
pub(crate) struct Link {
    stream: UnixStream,
    deadline: Instant,
    digest: Context,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// Why a takeover cannot go on.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// The other process is gone, or does not answer.
    #[error("{0}")]
    Broken(&'static str),
    /// Something else.
    #[error("the link between the processes failed")]
    Io(#[source] io::Error),
    /// The other process says why it does not come up.
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        let is_gone = matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        );
        let is_late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        match (is_gone, is_late) {
            (true, _) => Self::Broken("the other process is gone"),
            (_, true) => {
                Self::Broken("the other process did not answer in time (process.upgrade_timeout)")
            }
            (false, false) => Self::Io(error),
        }
    }
}

impl Link {
    /// Both ends of a new link.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub(crate) fn pair(deadline: Instant) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::over(ours, deadline), theirs))
    }

    /// An end of a link that must be over by `deadline`.
    pub(crate) fn over(stream: UnixStream, deadline: Instant) -> Self {
        Self {
            stream,
            deadline,
            digest: Context::new(&SHA256),
        }
    }

    /// The end that this process was started with as its standard input, which reads nothing from now on.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn inherited(deadline: Instant) -> io::Result<Self> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Not only a descriptor, but a socket.
        stream.local_addr()?;
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        Ok(Self::over(stream, deadline))
    }

    /// Sends a frame. State is part of the digest.
    pub(crate) fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), LinkError> {
        let head = frame::head(kind, payload.len());
        let head = head.ok_or(LinkError::Broken("a part of the state is too long"))?;
        if kind.is_state() {
            self.digest.update(payload);
        }
        self.write(&head)?;
        self.write(payload)
    }

    /// Sends a frame of JSON.
    pub(crate) fn send_message(
        &mut self,
        kind: Kind,
        message: &impl Serialize,
    ) -> Result<(), LinkError> {
        let payload = serde_json::to_vec(message).map_err(|error| LinkError::Io(error.into()))?;
        self.send(kind, &payload)
    }

    /// Receives a frame.
    pub(crate) fn receive(&mut self) -> Result<(Kind, Vec<u8>), LinkError> {
        let mut head = [0; HEAD];
        self.read(&mut head)?;
        let (kind, length) = frame::parse(head).ok_or(MALFORMED)?;
        let mut payload = Vec::new();
        // Grows with what arrives.
        while payload.len() < length {
            let begun = payload.len();
            payload.resize(length.min(begun + CHUNK), 0);
            self.read(&mut payload[begun..])?;
        }
        if kind.is_state() {
            self.digest.update(&payload);
        }
        if kind == Kind::Failed {
            let why = String::from_utf8_lossy(&payload).into_owned();
            return Err(LinkError::Failed(why));
        }
        Ok((kind, payload))
    }

    /// Receives a frame of this kind alone.
    pub(crate) fn expect(&mut self, wanted: Kind) -> Result<Vec<u8>, LinkError> {
        match self.receive()? {
            (kind, payload) if kind == wanted => Ok(payload),
            _ => Err(LinkError::Broken("the other process says something else")),
        }
    }

    /// Receives a frame of JSON.
    pub(crate) fn expect_message<T: DeserializeOwned>(
        &mut self,
        wanted: Kind,
    ) -> Result<T, LinkError> {
        let payload = self.expect(wanted)?;
        serde_json::from_slice(&payload).map_err(|_| MALFORMED)
    }

    /// Sends a descriptor, after the frame that announces it.
    pub(crate) fn send_descriptor(&mut self, descriptor: impl AsFd) -> Result<(), LinkError> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        Ok(descriptors::send(
            &self.stream,
            &[0],
            Some(descriptor.as_fd()),
        )?)
    }

    /// Receives one.
    pub(crate) fn receive_descriptor(&mut self) -> Result<OwnedFd, LinkError> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let (_, descriptor) = descriptors::receive(&self.stream, &mut [0])?;
        descriptor.ok_or(LinkError::Broken("a descriptor is missing"))
    }

    /// The digest of all state that was sent, or received.
    pub(crate) fn digest(&self) -> Vec<u8> {
        self.digest.clone().finish().as_ref().to_vec()
    }

    /// Says why this process does not come up, to whoever is there to hear it.
    pub(crate) fn fail(&mut self, why: &str) {
        let _ = self.send(Kind::Failed, why.as_bytes());
    }

    /// Why the other process did not come up, if it has said so.
    pub(crate) fn last_words(&mut self) -> Option<String> {
        loop {
            match self.receive() {
                Ok(_) => {}
                Err(LinkError::Failed(why)) => return Some(why),
                Err(LinkError::Broken(_) | LinkError::Io(_)) => return None,
            }
        }
    }

    /// Lets it be over later.
    pub(crate) fn extend(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Lets nothing more be said over it.
    pub(crate) fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The socket, for what is said once the takeover is over.
    ///
    /// # Errors
    /// When the system does not let it be used without waiting.
    pub(crate) fn stream(&self) -> io::Result<UnixStream> {
        self.stream.set_nonblocking(true)?;
        self.stream.try_clone()
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::Error::from(ErrorKind::BrokenPipe).into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read(&mut self, mut buffer: &mut [u8]) -> Result<(), LinkError> {
        while !buffer.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(read) => buffer = &mut buffer[read..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

const MALFORMED: LinkError = LinkError::Broken("the other process says what cannot be read");
/// How much room is made for a payload at once, in bytes.
const CHUNK: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, Link) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let (one, other) = Link::pair(deadline).unwrap();
        (one, Link::over(other, deadline))
    }

    #[test]
    fn frames_descriptors_and_the_digest_arrive() {
        let (mut one, mut other) = pair();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        one.send(Kind::Tokens, b"state").unwrap();
        one.send_descriptor(&listener).unwrap();
        one.send(Kind::Yours, b"").unwrap();
        assert_eq!(other.receive().unwrap(), (Kind::Tokens, b"state".to_vec()));
        let received = std::net::TcpListener::from(other.receive_descriptor().unwrap());
        assert_eq!(
            received.local_addr().unwrap(),
            listener.local_addr().unwrap()
        );
        assert_eq!(other.expect(Kind::Yours).unwrap(), b"");
        assert_eq!(one.digest(), other.digest());
        one.send(Kind::Usage, b"x").unwrap();
        assert_ne!(one.digest(), other.digest());
    }

    #[test]
    fn the_end_of_the_other_process_and_its_reason_are_told_apart() {
        let (mut one, mut other) = pair();
        other.fail("no such file");
        drop(other);
        let failed = one.receive().unwrap_err();
        assert!(matches!(failed, LinkError::Failed(why) if why == "no such file"));
        let gone = one.receive().unwrap_err().to_string();
        assert_eq!(gone, "the other process is gone");
        let (mut one, _other) = pair();
        one.extend(Instant::now());
        let late = one.receive().unwrap_err().to_string();
        assert!(late.contains("process.upgrade_timeout"), "{late}");
    }
}
