//! Other proxies before a backend of a test, each as its documentation configures it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::client::{Client, Token};
use super::tls::Identity;
use super::{Upstream, within};

/// A proxy in a process of its own, which ends with it.
pub struct Peer {
    address: SocketAddr,
    identity: Identity,
    process: Child,
    _directory: TempDir,
}

impl Peer {
    /// Starts `nginx` or `haproxy`, with one worker and kept-alive connections to the backend.
    pub async fn before(name: &str, backend: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let identity = Identity::new(&["localhost"]);
        identity.write(directory.path(), "server");
        let both = identity.certificate_pem.clone() + &identity.key_pem;
        fs::write(directory.path().join("both.pem"), both).expect("a file that can be written");
        let address = Upstream::nobody();
        let text = match name {
            "nginx" => nginx(directory.path(), address, backend),
            "haproxy" => haproxy(directory.path(), address, backend),
            other => panic!("{other} is neither nginx nor haproxy"),
        };
        let config = directory.path().join("config");
        fs::write(&config, text).expect("a file that can be written");
        let arguments: &[&str] = match name {
            "nginx" => &["-c"],
            _ => &["-q", "-db", "-f"],
        };
        let process = Command::new(name)
            .args(arguments)
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let peer = Self {
            address,
            identity,
            process,
            _directory: directory,
        };
        within("the proxy to listen", async {
            while TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        peer
    }

    /// Whoever asks it.
    pub fn client(&self) -> Client {
        Client {
            address: self.address,
            trusted: vec![self.identity.certificate.clone()],
            name: "localhost".to_owned(),
            token: Some(Token::new("any")),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn nginx(directory: &Path, address: SocketAddr, backend: SocketAddr) -> String {
    let directory = directory.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {directory}/{name};\n"))
        .collect();
    // In one process, which is ended with certainty.
    format!(
        "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log {directory}/log;\n\
         events {{}}\nhttp {{\naccess_log off;\nkeepalive_requests 1000000000;\n{paths}\
         upstream backend {{ server {backend}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{\nlisten {address} ssl;\nssl_certificate {directory}/server.pem;\n\
         ssl_certificate_key {directory}/server.key;\nlocation / {{\nproxy_pass http://backend;\n\
         proxy_http_version 1.1;\nproxy_set_header Connection \"\";\n}}\n}}\n}}\n"
    )
}

fn haproxy(directory: &Path, address: SocketAddr, backend: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "global\n    nbthread 1\ndefaults\n    mode http\n    timeout connect 5s\n    \
         timeout client 1m\n    timeout server 1m\nfrontend front\n    \
         bind {address} ssl crt {directory}/both.pem\n    default_backend back\nbackend back\n    \
         http-reuse always\n    server one {backend}\n"
    )
}
