//! The seal: an [`Authorized`] exists only for a request with a live token whose user has the right, and
//! only this file can construct one.
//!
//! ```compile_fail,E0451
//! use syncgate::access::permit::Authorized;
//! use syncgate::message::request_head::RequestHead;
//! fn forge(head: RequestHead) -> Authorized {
//!     Authorized { head, authorization: Default::default(), reported: None }
//! }
//! ```

use std::sync::Arc;

use http::request::Parts;
use thiserror::Error;

use super::token_fault::TokenFault;
use crate::accounts::{Account, Accounts};
use crate::clock::UnixMillis;
use crate::message::headers::AuthorizationHeader;
use crate::message::request::is_plain_json;
use crate::message::request_head::RequestHead;
use crate::origin::ClientAddress;
use crate::policy::admission::NotAdmitted;
use crate::policy::form::FormViolation;
use crate::policy::rights::{Decision, MissingRight, Mode};
use crate::route::Route;
use crate::session::{Absent, End, Session};

/// A user with a live token. Only [`authenticate`] constructs it.
#[derive(Debug)]
pub struct Authenticated(Arc<Account>);

impl Authenticated {
    /// The account of the token.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

/// An authenticated user admitted from the request's address and at its time. Only [`admit`] constructs it.
#[derive(Debug)]
pub struct Admitted(Arc<Account>);

impl Admitted {
    /// The account of the token.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

/// A request that may be forwarded.
#[derive(Debug)]
pub struct Authorized {
    head: RequestHead,
    authorization: AuthorizationHeader,
    reported: Option<Denied>,
}

/// The decision on a request before its body is read.
#[derive(Debug)]
pub enum AccessDecision {
    /// The request may be forwarded.
    Permitted(Authorized),
    /// It depends on the form in the body.
    DependsOnForm(Undecided),
}

/// Why an admitted user's request is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Denied {
    /// The user lacks the right.
    #[error("{0}")]
    MissingRight(MissingRight),
    /// The right depends on the form, and the body is not valid.
    #[error("the body is refused: {0}")]
    Form(FormViolation),
    /// The right depends on the form, and the media type is not JSON.
    #[error("the media type is not application/json")]
    MediaType,
}

/// A request whose form must be read before it can be decided.
#[derive(Debug)]
pub struct Undecided {
    account: Arc<Account>,
    route: usize,
    permit: Authorized,
}

/// Authenticates the user of a live session.
///
/// # Errors
/// Why the token is refused: it is unknown or has ended; or its account no longer exists, is disabled, has
/// another password, or ended its earlier tokens (`tokens_before`).
pub fn authenticate(
    session: Result<Session, Absent>,
    accounts: &Accounts,
    now: UnixMillis,
) -> Result<Authenticated, TokenFault> {
    let session = session.map_err(TokenFault::of)?;
    if !session.is_live(now.seconds()) {
        return Err(TokenFault::Ended(End::Expired));
    }
    let account = accounts
        .by_id(session.account())
        .ok_or(TokenFault::UserGone)?;
    if account.is_disabled() {
        return Err(TokenFault::UserDisabled);
    }
    if account.password_mark() != session.password_mark() {
        return Err(TokenFault::PasswordChanged);
    }
    if session.authenticated() < account.tokens_before() {
        return Err(TokenFault::Ended(End::Revoked));
    }
    Ok(Authenticated(account))
}

/// Admits an authenticated user from the client's address at this time, whatever the request. Nothing may
/// count against the user before this: the token may be in the wrong hands.
///
/// # Errors
/// Why the user is not admitted.
pub fn admit(
    user: Authenticated,
    client: ClientAddress,
    now: UnixMillis,
) -> Result<Admitted, NotAdmitted> {
    let Authenticated(account) = user;
    account.admission().decide(now.timestamp(), client)?;
    Ok(Admitted(account))
}

/// Decides an admitted user's request, as far as possible without its body.
///
/// # Errors
/// [`Denied::MissingRight`]. In report mode, the permit records it instead.
pub fn authorize(user: &Admitted, route: &Route, parts: Parts) -> Result<AccessDecision, Denied> {
    let account = user.account();
    match account.rights().decide(route.index(), &parts.method) {
        Decision::Allowed => Ok(AccessDecision::Permitted(Authorized::seal(route, parts))),
        Decision::AllowedForForms(_) => Ok(AccessDecision::DependsOnForm(Undecided {
            account: Arc::clone(account),
            route: route.index(),
            permit: Authorized::seal(route, parts),
        })),
        Decision::Denied(missing) => {
            let denied = Denied::MissingRight(missing);
            match account.mode() {
                Mode::Enforce => Err(denied),
                Mode::Report => Ok(AccessDecision::Permitted(
                    Authorized::seal(route, parts).reporting(denied),
                )),
            }
        }
    }
}

impl AccessDecision {
    /// Denies a request that depends on its form if the media type is not JSON: it has no form then.
    ///
    /// # Errors
    /// [`Denied::MediaType`]. In report mode, the permit records it instead.
    pub fn check_media_type(self) -> Result<Self, Denied> {
        match self {
            Self::DependsOnForm(undecided) if !is_plain_json(&undecided.permit.head.headers) => {
                let permit = undecided.unless_reported(Denied::MediaType)?;
                Ok(Self::Permitted(permit))
            }
            Self::DependsOnForm(_) | Self::Permitted(_) => Ok(self),
        }
    }
}

impl Undecided {
    /// What happens if the rights do not cover the request.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.account.mode()
    }

    /// Decides with the form in the body, or with the reason why it cannot be read.
    ///
    /// # Errors
    /// [`Denied::MissingRight`] and [`Denied::Form`]. In report mode, the permit records it instead.
    pub fn decide(self, form: Result<&str, FormViolation>) -> Result<Authorized, Denied> {
        let (rights, method) = (self.account.rights(), &self.permit.head.method);
        let decided = match form {
            Ok(form) => rights
                .decide_with_form(self.route, method, form)
                .map_err(Denied::MissingRight),
            Err(violation) => Err(Denied::Form(violation)),
        };
        match decided {
            Ok(()) => Ok(self.permit),
            Err(denied) => self.unless_reported(denied),
        }
    }

    fn unless_reported(self, denied: Denied) -> Result<Authorized, Denied> {
        match self.account.mode() {
            Mode::Enforce => Err(denied),
            Mode::Report => Ok(self.permit.reporting(denied)),
        }
    }
}

impl Authorized {
    fn seal(route: &Route, parts: Parts) -> Self {
        let head = RequestHead {
            method: parts.method,
            target: route.target(&parts.uri),
            sent_length: parts.headers.contains_key(http::header::CONTENT_LENGTH),
            headers: parts.headers,
        };
        Self {
            head,
            authorization: route.authorization(),
            reported: None,
        }
    }

    fn reporting(self, denied: Denied) -> Self {
        Self {
            reported: Some(denied),
            ..self
        }
    }

    /// Why the request would have been denied if the user's rights were enforced.
    #[must_use]
    pub fn reported(&self) -> Option<Denied> {
        self.reported
    }

    /// The request to forward.
    #[must_use]
    pub fn into_request(self) -> (RequestHead, AuthorizationHeader) {
        (self.head, self.authorization)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::os::unix::fs::PermissionsExt as _;

    use http::{Method, Request};

    use super::*;
    use crate::clock::{Clock, UnixSeconds};
    use crate::origin::Source;
    use crate::route::{Destination, RouteSection, Routes};
    use crate::session::Login;
    use crate::session::{AccountId, PasswordMark};

    const USERS: &str = r#"
[users.till]
password = "HASH"
allow = [{ route = "/api/GetData" }, { route = "/api/SyncData", forms = ["setCustomer"] }]
networks = ["127.0.0.0/8"]
[users.new]
password = "HASH"
allow = [{ route = "/api/SyncData", forms = ["setCustomer"] }]
mode = "report"
[users.left]
password = "HASH"
disabled = true
allow = "*"
"#;

    fn accounts() -> Accounts {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("users.toml");
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ\
                    $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        std::fs::write(&path, USERS.replace("HASH", hash)).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        Accounts::open(&path, RouteSection::defaults()).expect("in order")
    }

    fn now() -> UnixMillis {
        Clock::manual("2026-01-31T18:00:00Z".parse().expect("a moment")).now()
    }

    fn session(accounts: &Accounts, name: &str) -> Session {
        let account = accounts.find(name).expect(name);
        begun(account.id(), account.password_mark())
    }

    /// Good for a second.
    fn begun(account: AccountId, mark: PasswordMark) -> Session {
        let login = Login {
            account,
            mark,
            source: Source::V4([192, 0, 2, 1]),
            at: now().seconds(),
        };
        Session::begin(login, std::time::Duration::from_secs(1))
    }

    #[test]
    fn a_token_is_good_only_with_a_live_session_of_a_present_account() {
        let accounts = accounts();
        let till = session(&accounts, "till");
        let user = authenticate(Ok(till), &accounts, now()).expect("a live token");
        assert_eq!(&**user.account().name(), "till");

        let nobody = begun(AccountId::new(99), till.password_mark());
        let other = PasswordMark::from_bytes([1; 8]);
        let cases = [
            (Err(Absent::Unknown), TokenFault::Unknown),
            (
                Err(Absent::Ended(End::Revoked)),
                TokenFault::Ended(End::Revoked),
            ),
            (
                Ok(till.ending(now().seconds())),
                TokenFault::Ended(End::Expired),
            ),
            (
                Ok(till.ending(UnixSeconds::new(0))),
                TokenFault::Ended(End::Expired),
            ),
            (Ok(nobody), TokenFault::UserGone),
            (Ok(session(&accounts, "left")), TokenFault::UserDisabled),
            (
                Ok(begun(till.account(), other)),
                TokenFault::PasswordChanged,
            ),
        ];
        for (session, fault) in cases {
            let decision = authenticate(session, &accounts, now());
            assert_eq!(decision.err(), Some(fault), "{session:?}");
        }
    }

    /// The decision without the body, for a request of this media type.
    fn authorized_as(
        media_type: &str,
        name: &str,
        path: &str,
        peer: [u8; 4],
    ) -> Result<AccessDecision, String> {
        let accounts = accounts();
        let user = authenticate(Ok(session(&accounts, name)), &accounts, now()).expect(name);
        let routes = Routes::new(&RouteSection::defaults());
        let Ok(Destination::Forward(route)) = routes.find(&Method::POST, path) else {
            panic!("no route {path}");
        };
        let request = Request::post(format!("{}?x=1", path.to_uppercase()))
            .header("content-length", "5")
            .header("content-type", media_type)
            .header("x-mark", "here")
            .body(())
            .expect("a request");
        let (parts, ()) = request.into_parts();
        let from = IpAddr::from(Ipv4Addr::from(peer)).into();
        let user = admit(user, from, now()).map_err(|reason| reason.to_string())?;
        authorize(&user, route, parts).map_err(|denied| denied.to_string())
    }

    fn authorized(name: &str, path: &str, peer: [u8; 4]) -> Result<AccessDecision, String> {
        authorized_as("application/json", name, path, peer)
    }

    fn undecided(name: &str) -> Undecided {
        match authorized(name, "/api/SyncData", [127, 0, 0, 1]) {
            Ok(AccessDecision::DependsOnForm(undecided)) => undecided,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Whether it is forwarded, and the reason to deny it.
    fn summary(decision: Result<Authorized, impl ToString>) -> (bool, Option<String>) {
        match decision {
            Ok(permit) => (true, permit.reported().map(|denied| denied.to_string())),
            Err(denied) => (false, Some(denied.to_string())),
        }
    }

    #[test]
    fn a_request_is_forwarded_with_the_right_or_in_report_mode() {
        let here = [127, 0, 0, 1];
        let away = [10, 0, 0, 1];
        let no_route = MissingRight::Route.to_string();
        let elsewhere = NotAdmitted::Network.to_string();
        let cases = [
            ("till", "/api/GetData", here, (true, None)),
            ("till", "/api/SyncVoucher", here, (false, Some(&no_route))),
            ("till", "/api/GetData", away, (false, Some(&elsewhere))),
            ("new", "/api/GetData", away, (true, Some(&no_route))),
        ];
        for (name, path, peer, (passes, why)) in cases {
            let decision = authorized(name, path, peer).map(|decision| match decision {
                AccessDecision::Permitted(permit) => permit,
                AccessDecision::DependsOnForm(undecided) => panic!("{undecided:?}"),
            });
            assert_eq!(summary(decision), (passes, why.cloned()), "{name} {path}");
        }
    }

    #[test]
    fn the_form_decides_where_the_right_depends_on_it() {
        assert_eq!(undecided("till").mode(), Mode::Enforce);
        assert_eq!(undecided("new").mode(), Mode::Report);
        let no_form = Some(Denied::MissingRight(MissingRight::Form));
        let unread = Some(Denied::Form(FormViolation::MissingForm));
        let cases = [
            ("till", Ok("SETcustomer"), (true, None)),
            ("till", Ok("setVoucher"), (false, no_form)),
            ("till", Err(FormViolation::MissingForm), (false, unread)),
            ("new", Ok("setCustomer"), (true, None)),
            ("new", Ok("setVoucher"), (true, no_form)),
            ("new", Err(FormViolation::MissingForm), (true, unread)),
        ];
        for (name, form, (passes, why)) in cases {
            let why = why.map(|denied| denied.to_string());
            assert_eq!(
                summary(undecided(name).decide(form)),
                (passes, why),
                "{name} {form:?}"
            );
        }
    }

    #[test]
    fn a_right_that_depends_on_the_form_needs_json() {
        for (name, passes) in [("till", false), ("new", true)] {
            let decision = authorized_as("text/plain", name, "/api/SyncData", [127, 0, 0, 1]);
            let checked = decision.unwrap().check_media_type();
            let permit = checked.map(|decision| match decision {
                AccessDecision::Permitted(permit) => permit,
                AccessDecision::DependsOnForm(undecided) => panic!("{undecided:?}"),
            });
            let why = Some(Denied::MediaType.to_string());
            assert_eq!(summary(permit), (passes, why), "{name}");
        }
    }

    #[test]
    fn a_permit_contains_the_request_to_forward() {
        let permit = undecided("till")
            .decide(Ok("setCustomer"))
            .expect("a right");
        let (head, authorization) = permit.into_request();
        assert_eq!(head.method, Method::POST);
        assert_eq!(head.target.as_str(), "/api/SyncData?x=1");
        assert_eq!(head.headers["x-mark"], "here");
        assert!(head.sent_length);
        assert_eq!(authorization, AuthorizationHeader::Strip);
    }
}
