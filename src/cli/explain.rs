//! `syncgate explain`: what the gateway would answer, and which entry of the account file decides.
//! The steps are those of the gateway, through the same functions; nothing is decided here.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use jiff::Timestamp;

use super::explain_report::{Explanation, Prediction};
use super::failure::{Failure, USAGE};
use super::{ConfigFile, print};
use crate::access::permit::{self, AccessDecision, Admitted};
use crate::accounts::Accounts;
use crate::clock::{Clock, UnixMillis};
use crate::config::{self, Config};
use crate::gateway;
use crate::gateway::refusal::Refusal;
use crate::login;
use crate::origin::Source;
use crate::policy::form::{FormLimits, FormReader, FormViolation};
use crate::policy::rights::Mode;
use crate::route::{Destination, OwnPath, Route, Routes};
use crate::session::{AccountId, PasswordMark};
use crate::session::{Login, Session};

/// Explain what a user's request would get, and which entry of the account file decides
///
/// Reads the configuration and the accounts as the gateway does, and makes the same decisions for a
/// request with a live token of the user, up to the point of forwarding. Sends nothing and needs no
/// running gateway. Exit status: 0 if the request would pass, 1 if it would be refused, 64 if the
/// configuration or the command line is wrong, 2 for any other error.
#[derive(Debug, Args)]
pub(super) struct ExplainCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// The user making the request
    #[arg(long, value_name = "NAME")]
    user: String,
    /// The method
    #[arg(long, default_value = "POST")]
    method: String,
    /// The path, with or without a query
    #[arg(long = "path", value_name = "PATH")]
    target: String,
    /// The file with the body; `-` is standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The form named in the body, instead of a body
    #[arg(long, value_name = "NAME", conflicts_with = "body")]
    form: Option<String>,
    /// A header field; may be repeated. Without one, Content-Type is application/json
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The client address; defaults to one the user may connect from
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// The time of the request, such as 2026-01-31T18:00:00Z; defaults to now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<UnixMillis>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ExplainCommand {
    /// Prints the explanation; whether the request would pass.
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let config = config::load(&self.config.path)?.config;
        let (file, routes) = (&config.accounts.file, config.routes.clone());
        let (accounts, provenance) = Accounts::open_with_provenance(file, routes, &self.user)?;
        let account = accounts.find(&self.user);
        let mut body = self.body(&config)?;
        let parts = self.parts(&body)?;
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let from = self.from.unwrap_or_else(|| {
            let account = account.as_ref();
            account.map_or([127, 0, 0, 1].into(), |account| {
                account.admission().example_peer()
            })
        });
        let at = self.at.unwrap_or_else(|| Clock::system().now());
        let gateway = Gateway {
            routes: config.routes(),
            config: &config,
            accounts: &accounts,
            user: &self.user,
            from,
            at,
        };
        let prediction = gateway.predict(parts, &mut body);
        let route = match gateway.routes.find(&method, uri.path()) {
            Ok(Destination::Forward(route)) => Some(route),
            Ok(Destination::Own(_)) | Err(_) => None,
        };
        let explanation = Explanation {
            user: &self.user,
            account: account.as_deref(),
            accounts: &accounts,
            provenance: &provenance,
            config: &config,
            method: &method,
            path: &self.target,
            route,
            form: body.form(),
            from,
            at,
            prediction: &prediction,
        };
        let text = match self.json {
            true => explanation.json(),
            false => explanation.text(),
        };
        print(text.as_bytes())?;
        Ok(prediction.passes())
    }

    fn body(&self, config: &Config) -> Result<Body, Failure> {
        let largest = config
            .routes
            .iter()
            .map(|route| route.max_body.as_u64())
            .max();
        let bytes = match (&self.body, &self.form) {
            (Some(path), _) => read(path, largest.unwrap_or_default()).map_err(|error| {
                Failure::usage(format!(
                    "cannot read the body from {}: {error}",
                    path.display()
                ))
            })?,
            (None, Some(form)) => serde_json::json!({ "form": form }).to_string().into_bytes(),
            (None, None) => Vec::new(),
        };
        let chunked = self
            .headers
            .iter()
            .any(|(name, _)| name == TRANSFER_ENCODING);
        Ok(Body::new(bytes, !chunked))
    }

    /// The head of the request as a client would send it.
    fn parts(&self, body: &Body) -> Result<Parts, Failure> {
        let method = Method::from_bytes(self.method.as_bytes());
        let method = method.map_err(|_| no_such("method", &self.method))?;
        let uri = self.target.parse();
        let uri: Uri = uri.map_err(|_| no_such("path", &self.target))?;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        let mut usual = |name: HeaderName, value: HeaderValue| {
            headers.entry(name).or_insert(value);
        };
        usual(HOST, HeaderValue::from_static("localhost"));
        usual(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if body.announced {
            usual(CONTENT_LENGTH, body.bytes.len().into());
        }
        Ok(request.into_parts().0)
    }
}

/// The exit status of an explanation that failed: 1 would be taken for a refusal.
pub(super) fn exit_code(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Usage(_) => USAGE.into(),
        Failure::CouldNotRun(_) | Failure::Other(_) => 2.into(),
    }
}

/// What the gateway has when a request comes.
struct Gateway<'a> {
    config: &'a Config,
    routes: Routes,
    accounts: &'a Accounts,
    user: &'a str,
    from: IpAddr,
    at: UnixMillis,
}

impl Gateway<'_> {
    fn predict(&self, parts: Parts, body: &mut Body) -> Prediction {
        let limits = &self.config.limits;
        let passed = match gateway::destination(&parts, None, &self.routes, limits) {
            Err(refusal) => Err(refusal),
            Ok(Destination::Own(OwnPath::IssueToken)) => return self.log_in(),
            Ok(Destination::Own(OwnPath::RenewToken)) => match self.renew() {
                Ok(()) => return Prediction::Renews,
                Err(refusal) => Err(refusal),
            },
            Ok(Destination::Own(OwnPath::RevokeToken)) => return Prediction::Revokes,
            Ok(Destination::Forward(route)) => self.forward(route, parts, body),
        };
        match passed {
            Ok(reported) => Prediction::Forwarded { reported },
            Err(refusal) => Prediction::Refused(refusal),
        }
    }

    fn log_in(&self) -> Prediction {
        let account = self.accounts.find(self.user);
        match login::admit(account.as_ref(), self.at, self.from.into()) {
            Ok(_) => Prediction::LogsIn,
            Err(fault) => Prediction::Refused(Refusal::LoginFailed(fault)),
        }
    }

    fn admitted(&self) -> Result<Admitted, Refusal> {
        let user = permit::authenticate(Ok(self.session()), self.accounts, self.at)?;
        Ok(permit::admit(user, self.from.into(), self.at)?)
    }

    fn renew(&self) -> Result<(), Refusal> {
        self.admitted().map(drop)
    }

    /// Token to permit; what would be refused were the user's rights enforced.
    fn forward(
        &self,
        route: &Route,
        parts: Parts,
        body: &mut Body,
    ) -> Result<Option<Refusal>, Refusal> {
        let user = self.admitted()?;
        let decision = permit::authorize(&user, route, parts)?;
        body.limit_to(route.max_body())?;
        let limits = self.config.limits.form();
        let permit = match decision.check_media_type()? {
            AccessDecision::Permitted(permit) => permit,
            AccessDecision::DependsOnForm(undecided) => {
                let form = body.read_form(limits);
                undecided.decide(form.as_deref().map_err(|violation| *violation))?
            }
        };
        let reported = permit.reported().map(Refusal::from);
        let rest = body.read_rest(route.max_body());
        match (rest, user.account().mode()) {
            (Err(Refusal::FormRefused(violation)), Mode::Report) => {
                Ok(reported.or(Some(Refusal::FormRefused(violation))))
            }
            (rest, Mode::Report | Mode::Enforce) => rest.map(|()| reported),
        }
    }

    /// That of a token just issued to the user; one who is not there has had it from before.
    fn session(&self) -> Session {
        let account = self.accounts.find(self.user);
        let (id, mark) = account.map_or(
            (AccountId::new(u32::MAX), PasswordMark::from_bytes([0; 8])),
            |account| (account.id(), account.password_mark()),
        );
        let login = Login {
            account: id,
            mark,
            source: Source::of(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            at: self.at.seconds(),
        };
        Session::begin(login, self.config.tokens.lifetime)
    }
}

/// A request body, read as far as the gateway would.
struct Body {
    bytes: Vec<u8>,
    /// Whether its length is known before it comes.
    announced: bool,
    read: usize,
    reader: Option<FormReader>,
}

impl Body {
    fn new(bytes: Vec<u8>, announced: bool) -> Self {
        Self {
            bytes,
            announced,
            read: 0,
            reader: None,
        }
    }

    fn form(&self) -> Option<&str> {
        self.reader.as_ref().and_then(FormReader::form)
    }

    fn limit_to(&self, limit: u64) -> Result<(), Refusal> {
        match self.announced && self.bytes.len() as u64 > limit {
            true => Err(Refusal::BodyTooLarge { limit }),
            false => Ok(()),
        }
    }

    fn read_form(&mut self, limits: FormLimits) -> Result<String, FormViolation> {
        let reader = self.reader.insert(FormReader::new(limits));
        loop {
            let rest = &self.bytes[self.read..];
            let piece = &rest[..rest.len().min(PIECE)];
            reader.feed(piece)?;
            self.read += piece.len();
            if self.read == self.bytes.len() {
                return reader.finish().map(str::to_owned);
            }
            if let Some(form) = reader.form() {
                return Ok(form.to_owned());
            }
        }
    }

    /// What is watched to its end while it is forwarded.
    fn read_rest(&mut self, limit: u64) -> Result<(), Refusal> {
        let within = self
            .bytes
            .len()
            .min(usize::try_from(limit).unwrap_or(usize::MAX));
        if let Some(reader) = self
            .reader
            .as_mut()
            .filter(|reader| reader.form().is_some())
        {
            let rest = self.bytes.get(self.read..within).unwrap_or_default();
            reader.feed(rest).map_err(Refusal::FormRefused)?;
            if within == self.bytes.len() {
                reader.finish().map_err(Refusal::FormRefused)?;
            }
        }
        match within < self.bytes.len() {
            true => Err(Refusal::BodyTooLarge { limit }),
            false => Ok(()),
        }
    }
}

/// The bytes of a file or of standard input, but not many more than a route takes.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bound = limit.saturating_add(1);
    if path == Path::new("-") {
        io::stdin().lock().take(bound).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(bound).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn no_such(what: &str, text: &str) -> Failure {
    Failure::usage(format!("`{text}` is not a {what} that a request can have"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let example = "write for example \"Content-Type: text/plain\"";
    let (name, value) = text.split_once(':').ok_or(example)?;
    let name: HeaderName = name.trim().parse().map_err(|_| example)?;
    if name == AUTHORIZATION {
        return Err("no token is needed: a live one of the user is taken for granted".to_owned());
    }
    let value = value.trim().parse().map_err(|_| example)?;
    Ok((name, value))
}

/// A moment that a token can live at: from 1970 until the year 2100.
fn moment(text: &str) -> Result<UnixMillis, String> {
    let moment: Timestamp = text
        .parse()
        .map_err(|_| "write date, time and offset, for example 2026-01-31T18:00:00Z".to_owned())?;
    match moment.as_second() {
        0..LAST_SECOND => Ok(Clock::manual(moment).now()),
        _ => Err("it is not between the years 1970 and 2100".to_owned()),
    }
}

/// 2100-01-01T00:00:00Z.
const LAST_SECOND: i64 = 4_102_444_800;

/// How much of a body comes at once, about as TLS brings it.
const PIECE: usize = 16 * 1024;
