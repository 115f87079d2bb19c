//! From `config.toml` to a [`Config`], or to everything that is wrong with it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Config, checks};
use crate::managed_file::Reader;
use crate::route::{DEFAULT_UPSTREAM, Routes};
use crate::settings::document::{Document, Step, TomlText};
use crate::settings::file::{FileSetting, FileUse};
use crate::settings::{Problem, Problems};
use crate::upstream::UpstreamSection;

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is probably not as intended.
    pub warnings: Problems,
}

/// Loads a configuration file, resolves its paths relative to its directory, and checks that the files it
/// names exist.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    load_with(path, |config, document| {
        checks::files(config, document, path)
    })
}

/// As [`load`], but does not check that the files it names exist.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_without_file_checks(path: &Path) -> Result<Loaded, Problems> {
    load_with(path, |_, _| {})
}

fn load_with(
    path: &Path,
    more: impl FnOnce(&mut Config, &mut Document<'_>),
) -> Result<Loaded, Problems> {
    load_from(path, std::fs::read_to_string(path), more)
}

fn load_from(
    path: &Path,
    text: std::io::Result<String>,
    more: impl FnOnce(&mut Config, &mut Document<'_>),
) -> Result<Loaded, Problems> {
    let file = path.display().to_string();
    let text = text.map_err(|error| unreadable(&file, &error))?;
    let source = TomlText::scan(&file, &text);
    let (mut config, mut document) = read(&source);
    config.resolve(path.parent().unwrap_or(Path::new("")));
    if source.is_toml() {
        more(&mut config, &mut document);
    }
    finish(config, document)
}

/// A configuration file, and what it was when it was read.
#[derive(Debug)]
pub struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) reader: Reader,
}

/// As [`load`], for a gateway that will notice when the file changes.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn open(path: &Path) -> Result<(Loaded, ConfigFile), Problems> {
    let mut reader = Reader::default();
    let text = text_of(&mut reader, path);
    let loaded = load_from(path, text, |config, document| {
        checks::files(config, document, path);
    })?;
    let path = path.to_owned();
    Ok((loaded, ConfigFile { path, reader }))
}

/// The text of a configuration file.
pub(crate) fn text_of(reader: &mut Reader, path: &Path) -> std::io::Result<String> {
    let file = reader.read(path)?;
    // Of one that is too long only the beginning was read.
    file.check_whole(path).map_err(std::io::Error::other)?;
    String::from_utf8(file.bytes().to_vec())
        .map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))
}

/// As [`load`], with the text that was read of `path`, for a gateway that runs with `before`: what cannot change
/// while it runs stays, with a warning.
pub(crate) fn load_in_place_of(
    before: &Config,
    path: &Path,
    text: std::io::Result<String>,
) -> Result<Loaded, Problems> {
    load_from(path, text, |config, document| {
        config.keep_fixed(before, document);
        checks::files(config, document, path);
    })
}

/// Parses the text of a file called `file`. Paths stay as written, and the files they name are not checked.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(file: &str, text: &str) -> Result<Loaded, Problems> {
    let source = TomlText::scan(file, text);
    let (config, document) = read(&source);
    finish(config, document)
}

fn read(source: &TomlText) -> (Config, Document<'_>) {
    let mut document = Document::new(source);
    let config = Config::read(&mut document);
    if source.is_toml() {
        checks::sections(&config, &mut document);
    }
    (config, document)
}

fn finish(config: Config, document: Document<'_>) -> Result<Loaded, Problems> {
    let warnings = document.into_problems();
    match warnings.only_warnings() {
        true => Ok(Loaded { config, warnings }),
        false => Err(warnings),
    }
}

fn unreadable(file: &str, error: &std::io::Error) -> Problems {
    let mut problems = Problems::none(file, "");
    let remedy = if error.kind() == ErrorKind::NotFound {
        "`syncgate init` writes one; `--config FILE` names another"
    } else if error.kind() == ErrorKind::InvalidData {
        "save the file as UTF-8 text"
    } else {
        "let the user that syncgate runs as read the file"
    };
    problems.push(Problem::error(format!("cannot read the configuration: {error}")).remedy(remedy));
    problems
}

impl Config {
    /// Loads a configuration file and ignores warnings.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        load(path).map(|loaded| loaded.config)
    }

    /// The routing table.
    pub(crate) fn routes(&self) -> Routes {
        let routes = Routes::new(&self.routes).with_cors(&self.cors);
        match self.tokens.renew {
            true => routes,
            false => routes.without_renewal(),
        }
    }

    /// The upstreams that requests may go to, by name.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = (&str, &UpstreamSection)> {
        let is_used = |name: &str| self.routes.iter().any(|route| route.upstream == name);
        let default = is_used(DEFAULT_UPSTREAM).then_some((DEFAULT_UPSTREAM, &self.upstream));
        let named = self
            .upstreams
            .iter()
            .map(|(name, section)| (name.as_str(), section));
        default.into_iter().chain(named)
    }

    /// The ports of all servers of all upstreams.
    pub(crate) fn upstream_ports(&self) -> impl Iterator<Item = u16> {
        let servers = self
            .upstreams()
            .flat_map(|(_, upstream)| upstream.servers());
        servers.filter_map(|server| server.url.host_and_port().map(|(_, port)| port))
    }

    /// All files that are read while the gateway runs.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut config = self.clone();
        let settings = config.file_settings().into_iter();
        let read = settings.filter(|file| matches!(file.usage, FileUse::Read { .. }));
        read.map(|file| file.path.clone()).collect()
    }

    /// All settings that name a file.
    pub(super) fn file_settings(&mut self) -> Vec<FileSetting<'_>> {
        let routes = self.routes.iter_mut().enumerate();
        let routes = routes.filter_map(|(index, route)| route.files(index));
        let mut files = self.accounts.files();
        files.extend(self.tls.files());
        files.extend(routes);
        files.extend(self.identity.files());
        files.extend(self.admin.files());
        files.extend(self.log.files());
        files.extend(self.audit.files());
        files.extend(self.tokens.files());
        files.extend(self.upstream.files(&[Step::Key("upstream")]));
        for (name, upstream) in &mut self.upstreams {
            files.extend(upstream.files(&[Step::Key("upstreams"), Step::Key(name)]));
        }
        files
    }

    fn resolve(&mut self, directory: &Path) {
        for file in self.file_settings() {
            *file.path = directory.join(&*file.path);
        }
    }
}
