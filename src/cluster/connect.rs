//! Opens connections: address, TLS, credentials.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, RedisConnectionInfo, RedisError, Value};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

#[cfg(test)]
use super::seam::{Connected, InMemory};
use super::settings::{ServerAddress, SharedSection};
use crate::private_file::{self, PrivateFileError};

/// Why the settings of the server cannot be used.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The file with the password.
    #[error("the password of the token store cannot be read (tokens.shared.password_file){}", .0.remedy_in_parentheses())]
    Password(#[source] PrivateFileError),
    /// The certificates.
    #[error("{path} holds no certificates in PEM (tokens.shared.ca_file)", path = .0.display())]
    Certificates(PathBuf, #[source] Option<rustls::pki_types::pem::Error>),
    /// None are named.
    #[error("TLS to the token store needs the certificates to trust (tokens.shared.ca_file)")]
    NoCertificates,
    /// The certificates as trust anchors, or the protocol settings.
    #[error("the token store cannot be spoken to over TLS (tokens.shared.ca_file)")]
    Tls(#[from] rustls::Error),
}

/// Why there is no usable connection, or why a command failed.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    #[error("{0} cannot be connected to")]
    Connect(ServerAddress, #[source] io::Error),
    #[error("{0} did not answer in time")]
    Slow(ServerAddress),
    #[error(transparent)]
    Settings(#[from] ConnectError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("{0} is a replica, not the server that takes changes")]
    Replica(ServerAddress),
    #[error("no sentinel knows a server called `{0}` (tokens.shared.sentinel_name)")]
    NoServer(String),
    #[error("the server's parts have moved")]
    Moved,
    #[error("{0} is no node of a cluster (tokens.shared.mode)")]
    NoCluster(ServerAddress),
    #[error("{0} is a node of a cluster (tokens.shared.mode)")]
    Cluster(ServerAddress),
    #[error("the keys under tokens.shared.prefix were written by another version: {0}")]
    Version(String),
    #[error("the key {0} holds something that no gateway put there: delete it")]
    Foreign(String),
    #[error("the server's answer is not understood: {0}")]
    Answer(&'static str),
}

/// Opens connections as the settings say.
pub(crate) struct Connector {
    /// The certificates to trust, if TLS is used.
    ca_file: Option<PathBuf>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    connect_timeout: Duration,
    response_timeout: Duration,
    #[cfg(test)]
    in_memory: Option<Box<dyn InMemory>>,
}

/// A connection to one node; dropping it ends its driver.
pub(crate) struct Node {
    pub(crate) address: ServerAddress,
    connection: Connection,
}

/// The transport of commands.
enum Connection {
    Server(MultiplexedConnection, AbortHandle),
    #[cfg(test)]
    InMemory(Box<dyn Connected>),
}

impl Node {
    pub(crate) async fn query(&self, command: &Cmd) -> Result<Value, RedisError> {
        match &self.connection {
            Connection::Server(connection, _) => command.query_async(&mut connection.clone()).await,
            #[cfg(test)]
            Connection::InMemory(connection) => connection.query(command).await,
        }
    }

    /// Runs a command whose slot is being imported by this node.
    pub(crate) async fn query_asking(&self, command: &Cmd) -> Result<Value, RedisError> {
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore();
        both.add_command(command.clone());
        match &self.connection {
            Connection::Server(connection, _) => {
                let (value,): (Value,) = both.query_async(&mut connection.clone()).await?;
                Ok(value)
            }
            #[cfg(test)]
            Connection::InMemory(connection) => connection.query(command).await,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        match self {
            Self::Server(_, driver) => driver.abort(),
            #[cfg(test)]
            Self::InMemory(_) => {}
        }
    }
}

impl Connector {
    /// Checks the files that the section names.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn open(section: &SharedSection) -> Result<Self, ConnectError> {
        let connector = Self {
            ca_file: match (section.tls, &section.ca_file) {
                (true, Some(path)) => Some(path.clone()),
                (true, None) => return Err(ConnectError::NoCertificates),
                (false, _) => None,
            },
            username: section.username.clone(),
            password_file: section.password_file.clone(),
            connect_timeout: section.connect_timeout,
            response_timeout: section.response_timeout,
            #[cfg(test)]
            in_memory: None,
        };
        connector.tls()?;
        connector.password()?;
        Ok(connector)
    }

    /// To a server in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(section: &SharedSection, server: Box<dyn InMemory>) -> Self {
        let connector = Self::open(section).expect("settings that name no files");
        Self {
            in_memory: Some(server),
            ..connector
        }
    }

    pub(crate) fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// A TLS connector that trusts the certificates as the file has them now.
    fn tls(&self) -> Result<Option<TlsConnector>, ConnectError> {
        self.ca_file.as_deref().map(tls).transpose()
    }

    /// The password as the file has it now.
    pub(crate) fn password(&self) -> Result<Option<Zeroizing<String>>, ConnectError> {
        let Some(path) = &self.password_file else {
            return Ok(None);
        };
        let mut text = Zeroizing::new(private_file::read(path).map_err(ConnectError::Password)?);
        let length = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(length);
        Ok(Some(text))
    }

    /// Connects with the credentials; push messages go to `pushes`.
    pub(crate) async fn connect(
        &self,
        address: &ServerAddress,
        pushes: Arc<dyn AsyncPushSender>,
    ) -> Result<Node, LinkError> {
        #[cfg(test)]
        if let Some(server) = &self.in_memory {
            let connection = server.connect(pushes, self.response_timeout);
            let connection =
                connection.map_err(|error| LinkError::Connect(address.clone(), error))?;
            return Ok(Node {
                address: address.clone(),
                connection: Connection::InMemory(connection),
            });
        }
        let mut info = plain();
        if let Some(name) = &self.username {
            info = info.set_username(name);
        }
        if let Some(password) = self.password()? {
            info = info.set_password(password.as_str());
        }
        let config = AsyncConnectionConfig::new().set_push_sender(pushes);
        self.establish(address, info, config).await
    }

    /// Connects to a sentinel, without credentials.
    pub(crate) async fn connect_plainly(&self, address: &ServerAddress) -> Result<Node, LinkError> {
        let config = AsyncConnectionConfig::new();
        self.establish(address, plain(), config).await
    }

    async fn establish(
        &self,
        address: &ServerAddress,
        info: RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Node, LinkError> {
        let config = config
            .set_response_timeout(Some(self.response_timeout))
            .set_concurrency_limit(MOST_UNDER_WAY);
        let tls = self.tls()?;
        let established = async {
            let stream = stream(address, tls).await;
            let stream = stream.map_err(|error| LinkError::Connect(address.clone(), error))?;
            Ok::<_, LinkError>(MultiplexedConnection::new_with_config(&info, stream, config).await?)
        };
        let established = timeout(self.connect_timeout, established).await;
        let (connection, driver) = established.map_err(|_| LinkError::Slow(address.clone()))??;
        Ok(Node {
            address: address.clone(),
            connection: Connection::Server(connection, spawn_local(driver).abort_handle()),
        })
    }
}

async fn stream(address: &ServerAddress, tls: Option<TlsConnector>) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((&*address.host, address.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(address.host.clone());
    let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(Box::new(tls.connect(name, stream).await?))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

fn plain() -> RedisConnectionInfo {
    RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name()
}

fn tls(path: &Path) -> Result<TlsConnector, ConnectError> {
    let unusable = |error| ConnectError::Certificates(path.to_owned(), error);
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| unusable(Some(error)))?;
    for certificate in certificates {
        roots.add(certificate.map_err(|error| unusable(Some(error)))?)?;
    }
    if roots.is_empty() {
        return Err(unusable(None));
    }
    Ok(TlsConnector::from(Arc::new(trusting(roots)?)))
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let config = ClientConfig::builder_with_provider(crate::tls::provider());
    let config = config.with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Commands in flight on one connection.
const MOST_UNDER_WAY: usize = 16_384;
