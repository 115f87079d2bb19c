//! Listeners, TLS and workers.

mod settings;

pub use settings::{CertificateSection, ListenSection, TlsSection};
