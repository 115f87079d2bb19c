//! The new process's side: who it is, what it is offered, and each thing that it says in its turn.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{
    Hello, Inherited, Kind, Link, LinkError, Loaded, Noted, Offer, PROTOCOL, Ready, Taking,
};

/// A takeover in which this process is the new one.
#[derive(Debug)]
pub(crate) struct Takeover {
    link: Link,
    step: Taking,
}

/// A part of the state.
#[derive(Debug)]
pub(crate) enum Part {
    Tokens(Vec<u8>),
    Logins(Vec<u8>),
    Usage(Vec<u8>),
    /// That was all, and it is as it was sent.
    End,
}

impl Takeover {
    /// Says hello, and receives what the old process offers.
    ///
    /// # Errors
    /// When this process was not started by one that serves, or by one that says other things.
    pub(crate) fn begin() -> Result<(Self, Inherited), LinkError> {
        let link = Link::inherited(Instant::now() + PATIENCE)?;
        Self::over(link)
    }

    pub(crate) fn over(mut link: Link) -> Result<(Self, Inherited), LinkError> {
        let hello = Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        link.send_message(Kind::Hello, &hello)?;
        let offer: Offer = link.expect_message(Kind::Offer)?;
        if offer.protocol != PROTOCOL {
            return Err(LinkError::Broken(
                "the running gateway is another syncgate, which this one cannot take over from; restart it",
            ));
        }
        let mut sockets = Vec::new();
        for socket in offer.sockets {
            let descriptor = link.receive_descriptor()?;
            sockets.push((socket, Some(descriptor)));
        }
        let token_file = match offer.token_file {
            Some(path) => Some((path, File::from(link.receive_descriptor()?))),
            None => None,
        };
        link.extend(Instant::now() + Duration::from_millis(offer.patience));
        let takeover = Self {
            link,
            step: Taking::Opening,
        };
        Ok((takeover, Inherited::new(sockets, token_file)))
    }

    /// Everything that can fail is open.
    pub(crate) fn ready(&mut self, ready: &Ready) -> Result<(), LinkError> {
        self.step = self.step.on(Noted::Opened);
        self.link.send_message(Kind::Ready, ready)
    }

    /// The next part of the state.
    pub(crate) fn part(&mut self) -> Result<Part, LinkError> {
        let (kind, payload) = self.link.receive()?;
        match kind {
            Kind::Tokens => Ok(Part::Tokens(payload)),
            Kind::Logins => Ok(Part::Logins(payload)),
            Kind::Usage => Ok(Part::Usage(payload)),
            Kind::End if payload == self.link.digest() => {
                self.step = self.step.on(Noted::State);
                Ok(Part::End)
            }
            Kind::Hello
            | Kind::Offer
            | Kind::Ready
            | Kind::End
            | Kind::Loaded
            | Kind::Yours
            | Kind::Serving
            | Kind::Main
            | Kind::Failed
            | Kind::Call
            | Kind::Answer => {
                self.step = self.step.on(Noted::Trouble);
                Err(LinkError::Broken("the state did not arrive as it was sent"))
            }
        }
    }

    /// The state is in memory, and everything runs but the listeners. On return this process serves, and the old
    /// one does not change anything any more.
    pub(crate) fn loaded(&mut self, tokens: usize) -> Result<(), LinkError> {
        self.link.send_message(Kind::Loaded, &Loaded { tokens })?;
        self.link.expect(Kind::Yours)?;
        self.link.send(Kind::Serving, &[])?;
        self.step = self.step.on(Noted::Yours);
        Ok(())
    }

    /// Waits until the service manager knows which process is the main one; not for long. Returns what is left of
    /// the link.
    ///
    /// # Errors
    /// When the old process is gone, which matters no more.
    pub(crate) fn main(&mut self) -> io::Result<UnixStream> {
        self.link.extend(Instant::now() + PATIENCE);
        let main = self.link.expect(Kind::Main);
        main.map_err(io::Error::other)?;
        self.link.stream()
    }

    /// Says why this process does not come up, unless it has.
    pub(crate) fn fail(&mut self, why: &str) {
        if self.step != Taking::Serving {
            self.link.fail(why);
        }
    }
}

/// How long the old process may take to say anything at all.
const PATIENCE: Duration = Duration::from_secs(10);
