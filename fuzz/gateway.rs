//! A whole gateway in the process of a fuzz target, with one user who is logged in.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use syncgate::app::{Server, Startup};
use syncgate::clock::Clock;
use syncgate::config::Config;
use syncgate::password::Password;
use syncgate::password::hash_password;
use syncgate::tls::development;

/// Ends the connection if what came before ended where a request can begin.
const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

const PASSWORD: &str = "hunter2-fuzz";

/// How the gateway speaks to its backend.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Plain,
    Tls,
}

pub struct Gateway {
    address: SocketAddr,
    pub tls: Arc<ClientConfig>,
    /// What a backend that is reached over TLS shows.
    pub backend_tls: Arc<ServerConfig>,
    pub token: Vec<u8>,
    _server: Server,
}

impl Gateway {
    /// Starts one in front of a backend. `meanwhile` is called while its files are there.
    pub fn start<T>(
        backend: SocketAddr,
        link: Link,
        meanwhile: impl FnOnce(&Server, &Config) -> T,
    ) -> (Self, T) {
        let directory = std::env::temp_dir().join(format!("syncgate-fuzz-{}", std::process::id()));
        let now = Clock::system().now().timestamp();
        let written = development::write_certificate(&directory, &[], now).expect("a certificate");
        let hash = hash_password(&Password::new(PASSWORD.to_owned())).expect("a hash");
        let users = format!("[users.fuzz]\nallow = \"*\"\npassword = \"{hash}\"\n");
        write_private(&directory.join("users.toml"), &users);
        let config = directory.join("config.toml");
        let upstream = match link {
            Link::Plain => format!("url = \"http://{backend}\""),
            Link::Tls => format!(
                "url = \"https://{backend}\"\ntls = {{ ca_file = \"server.pem\", server_name = \"localhost\" }}"
            ),
        };
        let text = format!(
            "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 1\n\
             [tls]\ncertificates = [{{ certificate = \"server.pem\", key = \"server.key\" }}]\n\
             [upstream]\n{upstream}\n\
             [login]\ndelay = \"0s\"\n\
             [limits]\nlinger = \"100ms\"\nheader_size = \"16KiB\"\n"
        );
        write_private(&config, &text);
        let config = Config::load(&config).unwrap_or_else(|problems| panic!("{problems}"));
        let server = Server::start(Startup::of(config.clone())).expect("a gateway");
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(&written.certificate);
        let certificate = certificate.expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&written.key).expect("a key");
        roots.add(certificate.clone()).expect("one to trust");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let backend_tls = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a key that fits");
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let also = meanwhile(&server, &config);
        let mut gateway = Self {
            address: server.https()[0],
            tls: Arc::new(tls),
            backend_tls: Arc::new(backend_tls),
            token: Vec::new(),
            _server: server,
        };
        // Everything that is needed of the files has been read.
        let _ = std::fs::remove_dir_all(&directory);
        gateway.token = gateway.log_in();
        (gateway, also)
    }

    fn log_in(&self) -> Vec<u8> {
        let body = format!(r#"{{"username":"fuzz","password":"{PASSWORD}"}}"#);
        let request = format!(
            "POST /api/getToken HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = String::from_utf8(self.talk(request.as_bytes(), 9000)).expect("text");
        let start = answer
            .find("SGT1")
            .unwrap_or_else(|| panic!("no token: {answer}"));
        answer.as_bytes()[start..start + 52].to_vec()
    }

    /// Sends bytes and a last request, and returns all that comes back until the gateway ends the
    /// connection. Where it waits for more instead, for so many milliseconds, the client ends it.
    pub fn talk(&self, bytes: &[u8], wait: u64) -> Vec<u8> {
        let socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_nodelay(true).expect("a socket that can be set");
        let patience = |patience| {
            let patience = Some(Duration::from_millis(patience));
            socket
                .set_read_timeout(patience)
                .expect("a socket that can be set");
        };
        patience(wait);
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::clone(&self.tls), name).expect("a session");
        let socket_too = socket.try_clone().expect("a second handle");
        let mut stream = StreamOwned::new(session, socket_too);
        // The gateway may have given its answer and left before it has taken everything.
        let _ = stream
            .write_all(bytes)
            .and_then(|()| stream.write_all(LAST));
        let mut answer = Vec::new();
        if is_late(stream.read_to_end(&mut answer)) {
            stream.conn.send_close_notify();
            let _ = stream.flush();
            let _ = socket.shutdown(Shutdown::Write);
            patience(9000);
            let late = is_late(stream.read_to_end(&mut answer));
            assert!(!late, "the gateway did not end the connection");
        }
        answer
    }
}

fn is_late(read: std::io::Result<usize>) -> bool {
    read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

fn write_private(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("a file that can be written");
}
