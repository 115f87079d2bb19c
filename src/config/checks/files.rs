//! Whether what the sections name is there.

use std::io::ErrorKind;
use std::path::Path;

use super::{report, tokens};
use crate::config::Config;
use crate::process::RunAs;
use crate::settings::Problem;
use crate::settings::document::{Document, Step};
use crate::upstream::UpstreamUrl;

/// Checks that the files are there, and the user of the process.
pub(in crate::config) fn files(config: &Config, document: &mut Document<'_>) {
    if let Err(error) = RunAs::find(&config.process) {
        let problem = Problem::error(error.to_string()).remedy(error.remedy());
        report(document, &["process", error.key()].map(Step::Key), problem);
    }
    let accounts = &config.accounts.file;
    let remedy = "`syncgate user add NAME` creates it with a first user";
    file(
        document,
        &["accounts", "file"].map(Step::Key),
        accounts,
        remedy,
    );
    let remedy = "`syncgate init` and `syncgate demo` write a certificate for trying things out; \
                  certs/README.md says how to get a real one";
    for (index, entry) in config.tls.certificates.iter().enumerate() {
        let path = |key| {
            [
                Step::Key("tls"),
                Step::Key("certificates"),
                Step::Element(index),
                Step::Key(key),
            ]
        };
        file(document, &path("certificate"), &entry.certificate, remedy);
        file(document, &path("key"), &entry.key, remedy);
    }
    for (index, route) in config.routes.iter().enumerate() {
        if let Some(path) = &route.authorization_file {
            let key = [
                Step::Key("routes"),
                Step::Element(index),
                Step::Key("authorization_file"),
            ];
            let remedy = "put the value of the Authorization header there, mode 0600";
            file(document, &key, path, remedy);
        }
    }
    if let Some(path) = &config.identity.key {
        let remedy = format!("`syncgate identity-key {}` makes one", path.display());
        file(document, &["identity", "key"].map(Step::Key), path, &remedy);
    }
    for (index, path) in config.identity.published.iter().enumerate() {
        let key = [
            Step::Key("identity"),
            Step::Key("published"),
            Step::Element(index),
        ];
        let remedy = "`syncgate identity-key --public FILE` prints the public half of a key";
        file(document, &key, path, remedy);
    }
    if let Some(path) = &config.admin.introspection_secret_file {
        let key = ["admin", "introspection_secret_file"].map(Step::Key);
        let remedy = format!(
            "run: (umask 077; openssl rand -hex 32 > '{}')",
            path.display()
        );
        file(document, &key, path, &remedy);
    }
    if let Some(folder) = config.admin.socket.as_deref().and_then(Path::parent)
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        let folder = folder.display();
        let problem = Problem::error(format!("there is no folder {folder}"))
            .remedy(format!("run: mkdir -m 700 '{folder}'"));
        report(document, &["admin", "socket"].map(Step::Key), problem);
    }
    tokens::files(config, document);
    if let UpstreamUrl::Unix(path) = &config.upstream.url
        && path.is_dir()
    {
        let problem = Problem::error(format!("{} is a directory", path.display()))
            .remedy("name the backend's socket inside it");
        report(document, &["upstream", "url"].map(Step::Key), problem);
    }
}

/// Reports `path` unless it can be opened as a file.
pub(super) fn file(document: &mut Document<'_>, key: &[Step<'_>], path: &Path, remedy: &str) {
    let shown = path.display();
    let problem = match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => {
            Problem::error(format!("{shown} is a directory")).remedy("name a file inside it")
        }
        Ok(_) => return,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Problem::error(format!("there is no file {shown}")).remedy(remedy)
        }
        Err(error) => Problem::error(format!("the file {shown} cannot be read: {error}"))
            .remedy("let the user that syncgate runs as read it, and nobody else"),
    };
    report(document, key, problem);
}
