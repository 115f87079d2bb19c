//! A certificate as a client would judge it: its names and dates, the order of its chain, and who vouches for it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::backend::BackendTls;
use super::settings::BackendTlsSection;
use super::x509::{Facts, is_issued_by};
use super::{TlsError, provider, read_chain};
use crate::clock::Clock;
use crate::managed_file::Reader;

/// What a client finds of a certificate.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// The names and addresses that it is for.
    pub(crate) names: Vec<String>,
    /// The first and last second of its validity, since 1970.
    pub(crate) valid: (i64, i64),
    /// When the first of the certificates after it ends, if that is before it does.
    pub(crate) chain_ends: Option<i64>,
    /// The place in the file, from 1, of the first certificate that is not issued by the next.
    pub(crate) out_of_order: Option<usize>,
    /// Who vouches for it.
    pub(crate) trust: Trust,
    leaf: CertificateDer<'static>,
}

/// Who vouches for a certificate.
#[derive(Debug)]
pub(crate) enum Trust {
    /// An authority that this system trusts.
    System,
    /// Itself.
    Itself,
    /// Nobody that this system knows.
    Unknown,
    /// It cannot be said: this system has no list of authorities.
    NoList,
    /// It would be refused for another reason.
    Refused(Error),
}

/// Inspects the certificate in a file; `roots` is the file of the system's authorities.
///
/// # Errors
/// If one of the files cannot be read.
pub(crate) fn inspect(
    path: &Path,
    roots: Option<&RootCertStore>,
    clock: &Clock,
) -> Result<Inspected, TlsError> {
    let chain = read_chain(&mut Reader::default(), path)?;
    let malformed = || TlsError::Malformed {
        path: path.to_owned(),
    };
    let leaf = chain.first().ok_or_else(|| TlsError::NoCertificate {
        path: path.to_owned(),
    })?;
    let facts = Facts::read(leaf).ok_or_else(malformed)?;
    let addresses = facts.addresses.iter().map(ToString::to_string);
    let names: Vec<_> = facts.names.iter().cloned().chain(addresses).collect();
    let rest = chain[1..].iter().filter_map(|it| Facts::read(it));
    let chain_ends = rest.map(|it| it.not_after).min();
    let pairs = chain.iter().zip(&chain[1..]);
    let mut broken = pairs
        .enumerate()
        .filter(|(_, (one, next))| !is_issued_by(one, next));
    let out_of_order = broken.next().map(|(place, _)| place + 1);
    Ok(Inspected {
        valid: (facts.not_before, facts.not_after),
        chain_ends: chain_ends.filter(|&ends| ends < facts.not_after),
        out_of_order,
        trust: trust(&chain, &names, roots, clock),
        leaf: leaf.clone(),
        names,
    })
}

fn trust(
    chain: &[CertificateDer<'_>],
    names: &[String],
    roots: Option<&RootCertStore>,
    clock: &Clock,
) -> Trust {
    let Some((leaf, rest)) = chain.split_first() else {
        return Trust::Unknown;
    };
    if is_issued_by(leaf, leaf) {
        return Trust::Itself;
    }
    let verifier = roots.and_then(|roots| {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), provider())
            .build()
            .ok()
    });
    let Some(verifier) = verifier else {
        return Trust::NoList;
    };
    // Any of its names will do.
    let name = names.first().map(|name| name.replace('*', "any"));
    let name = name.and_then(|name| ServerName::try_from(name).ok());
    let Some(name) = name else {
        return Trust::Refused(CertificateError::NotValidForName.into());
    };
    let now = UnixTime::since_unix_epoch(Duration::from_millis(clock.now().as_u64()));
    match verifier.verify_server_cert(leaf, rest, &name, &[], now) {
        Ok(_) => Trust::System,
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Trust::Unknown,
        Err(error) => Trust::Refused(error),
    }
}

/// The system's authorities, as far as they can be read.
#[must_use]
pub(crate) fn system_authorities() -> Option<RootCertStore> {
    let path = super::backend::system_roots()?;
    let mut roots = RootCertStore::empty();
    let read = read_chain(&mut Reader::default(), &path).ok()?;
    let (_, _) = roots.add_parsable_certificates(read);
    (!roots.is_empty()).then_some(roots)
}

impl Inspected {
    /// Whether who listens at the address serves this very certificate to clients that ask for its first name.
    /// To be called within a runtime, and with a deadline.
    ///
    /// # Errors
    /// If nobody listens, or no TLS is spoken.
    pub(crate) async fn is_served_at(
        &self,
        address: SocketAddr,
        clock: &Clock,
    ) -> io::Result<bool> {
        // Whatever it shows is compared, and nothing is sent.
        let anything = BackendTlsSection {
            verify: false,
            ..BackendTlsSection::default()
        };
        let tls = BackendTls::open(&anything, clock).map_err(io::Error::other)?;
        let name = self.names.first().map(|name| name.replace('*', "any"));
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let name = name.unwrap_or_else(|| address.ip().into());
        let tcp = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(tls.config()).connect(name, tcp).await?;
        let shown = stream.get_ref().1.peer_certificates();
        Ok(shown
            .and_then(<[_]>::first)
            .is_some_and(|shown| *shown == self.leaf))
    }
}
