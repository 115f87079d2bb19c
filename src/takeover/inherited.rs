//! What the process before has open and the new one may take: each by its address or path.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::message::{ListenerKind, Offered, SocketMark};

/// What was offered and not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    sockets: Vec<(Offered, Option<OwnedFd>)>,
    token_file: Option<(PathBuf, File)>,
}

impl Inherited {
    pub(super) fn new(
        sockets: Vec<(Offered, Option<OwnedFd>)>,
        token_file: Option<(PathBuf, File)>,
    ) -> Self {
        Self {
            sockets,
            token_file,
        }
    }

    /// The listener that was configured with this address, for the same purpose if there are several. Of those
    /// whose port the system chose, only one for the same purpose will do.
    pub(crate) fn tcp(&mut self, wanted: SocketAddr, purpose: ListenerKind) -> Option<TcpListener> {
        let of = |(offered, descriptor): &(Offered, Option<OwnedFd>), any_purpose: bool| {
            let Offered::Tcp { address, kind } = offered else {
                return false;
            };
            descriptor.is_some() && *address == wanted && (any_purpose || *kind == purpose)
        };
        let same = self.sockets.iter().position(|it| of(it, false));
        let any = || {
            self.sockets
                .iter()
                .position(|it| of(it, wanted.port() != 0))
        };
        let place = same.or_else(any)?;
        self.sockets[place].1.take().map(TcpListener::from)
    }

    /// The socket at this path, and what tells its file from others.
    pub(crate) fn unix(&mut self, wanted: &Path) -> Option<(UnixListener, SocketMark)> {
        self.sockets
            .iter_mut()
            .find_map(|(offered, descriptor)| match offered {
                Offered::Unix { path, mark } if path == wanted => {
                    descriptor.take().map(|it| (it.into(), *mark))
                }
                Offered::Unix { .. } | Offered::Tcp { .. } => None,
            })
    }

    /// The token file at this path.
    pub(crate) fn token_file(&mut self, wanted: &Path) -> Option<File> {
        let (_, file) = self.token_file.take_if(|(path, _)| path == wanted)?;
        Some(file)
    }

    /// Which of the sockets were taken.
    pub(crate) fn taken(&self) -> Vec<bool> {
        let sockets = self.sockets.iter();
        sockets
            .map(|(_, descriptor)| descriptor.is_none())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(address: &str, kind: ListenerKind) -> (Offered, Option<OwnedFd>) {
        let address = address.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (Offered::Tcp { address, kind }, Some(listener.into()))
    }

    #[test]
    fn a_listener_is_taken_once_and_by_what_it_was_configured_as() {
        let mut inherited = Inherited::new(
            vec![
                offered("127.0.0.1:0", ListenerKind::Http),
                offered("127.0.0.1:0", ListenerKind::Https),
                offered("127.0.0.1:8443", ListenerKind::Https),
            ],
            None,
        );
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let fixed: SocketAddr = "127.0.0.1:8443".parse().unwrap();
        assert!(inherited.tcp(any, ListenerKind::Admin).is_none());
        assert!(inherited.tcp(any, ListenerKind::Https).is_some());
        assert!(inherited.tcp(any, ListenerKind::Https).is_none());
        assert_eq!(inherited.taken(), [false, true, false]);
        // What it was for does not matter where nobody else can have the address.
        assert!(inherited.tcp(fixed, ListenerKind::Http).is_some());
        assert!(inherited.tcp(fixed, ListenerKind::Http).is_none());
    }
}
