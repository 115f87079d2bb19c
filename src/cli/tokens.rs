//! `syncgate tokens ...`: the live tokens of the running gateway, seen and taken back.

use std::convert::Infallible;
use std::str::FromStr;

use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::account_file::say;
use super::admin_client::{AdminAnswer, AdminClient};
use super::failure::Failure;
use super::token_list::{self, Listed};
use super::{ConfigFile, print};
use crate::token::TokenId;

/// See and revoke the live tokens of the running gateway
///
/// Asks it through the unix socket that the configuration names in `[admin] socket`, as the user that
/// syncgate runs as or as root. Tokens go by their public ids, which nobody can log in with; what a
/// client was given is never shown.
#[derive(Debug, Args)]
pub(super) struct TokensCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(List),
    Show(Show),
    Revoke(Revoke),
}

/// List the live tokens
///
/// When each was issued, when it ends, when and how often it was used since the gateway was started,
/// where its login came from, and whose it is.
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    config: ConfigFile,
    /// Only those of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Show what is known of one live token
///
/// Exit status 1 if there is none of that id.
#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    config: ConfigFile,
    /// Its public id, as `list` shows it
    #[arg(value_name = "ID")]
    id: GivenId,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What is given as an id. It is looked at after the command line has been read: an error of that one
/// would show it, and it may be a token.
#[derive(Debug, Clone, Copy)]
struct GivenId(Option<TokenId>);

impl FromStr for GivenId {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.parse().ok()))
    }
}

impl GivenId {
    fn get(self) -> Result<TokenId, Failure> {
        self.0.ok_or_else(|| {
            Failure::usage(
                "that is not the id of a token; `syncgate tokens list` shows them. If it is a token \
                 itself, others may have seen it on this command line: revoke it",
            )
        })
    }
}

/// Revoke tokens: one, those of a user, those of logins before a time, or all
///
/// A token ends with all of its lineage: with the one it was renewed to, and the one it came of. Holds
/// from the next request on; requests under way finish. Whoever has the password can log in
/// again: `syncgate user disable` and `passwd` see to that. Exit status 1 if there is no token of the
/// id; that a user has none, or that none is so old, is no failure.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["id", "user", "before", "all"])))]
struct Revoke {
    #[command(flatten)]
    config: ConfigFile,
    /// The public id of a token, as `list` shows it
    #[arg(value_name = "ID")]
    id: Option<GivenId>,
    /// All of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// All whose password was given before this time, such as 2026-01-31T18:00:00Z, however often they
    /// were renewed since
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<Timestamp>,
    /// All there are: every client has to log in again
    #[arg(long)]
    all: bool,
    /// Say on standard output, as JSON, how many there were
    #[arg(long)]
    json: bool,
}

impl TokensCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match &self.action {
            Action::List(command) => command.run(),
            Action::Show(command) => command.run(),
            Action::Revoke(command) => command.run(),
        }
    }
}

impl List {
    fn run(&self) -> Result<(), Failure> {
        let client = AdminClient::of(&self.config)?;
        let mut after = None;
        let mut listed = match self.json {
            true => Listed::json(),
            false => Listed::table(),
        };
        loop {
            let target = self.target(after.as_deref());
            let page = done(client.ask(&Method::GET, &target, None)?)?;
            let tokens = page["tokens"].as_array().map_or(&[][..], Vec::as_slice);
            print(listed.page(tokens).as_bytes())?;
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => break,
            }
        }
        if listed.is_empty() && !self.json {
            match &self.user {
                Some(user) => say(&format!("`{user}` has no live tokens.")),
                None => say("There are no live tokens."),
            }
        }
        print(listed.end().as_bytes())
    }

    fn target(&self, after: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", "1000");
        if let Some(user) = &self.user {
            query.append_pair("user", user);
        }
        if let Some(after) = after {
            query.append_pair("after", after);
        }
        format!("/tokens?{}", query.finish())
    }
}

impl Show {
    fn run(&self) -> Result<(), Failure> {
        let id = self.id.get()?;
        let client = AdminClient::of(&self.config)?;
        let target = format!("/tokens/{id}");
        let found = client.ask(&Method::GET, &target, None)?;
        let AdminAnswer::Done(token) = found else {
            return Err(no_such(id));
        };
        let shown = match self.json {
            true => format!("{token:#}\n"),
            false => token_list::one(&token),
        };
        print(shown.as_bytes())
    }
}

impl Revoke {
    fn run(&self) -> Result<(), Failure> {
        let id = self.id.map(GivenId::get).transpose()?;
        let client = AdminClient::of(&self.config)?;
        let answer = match (id, &self.user, self.before) {
            (Some(id), ..) => {
                let target = format!("/tokens/{id}");
                match client.ask(&Method::DELETE, &target, None)? {
                    AdminAnswer::Done(value) => value,
                    AdminAnswer::NotFound => return Err(no_such(id)),
                }
            }
            (None, Some(user), _) => revoke(&client, &json!({ "user": user }))?,
            (None, None, Some(moment)) => {
                revoke(&client, &json!({ "before": moment.to_string() }))?
            }
            (None, None, None) => revoke(&client, &json!({ "all": self.all }))?,
        };
        match answer["revoked"].as_u64() {
            Some(0) => say("There were none to revoke."),
            Some(1) => say("Revoked 1 token. It is refused from now on."),
            Some(count) => say(&format!(
                "Revoked {count} tokens. They are refused from now on."
            )),
            None => return Err(Failure::other(NO_SENSE)),
        }
        for key in answer["passed_over"].as_array().into_iter().flatten() {
            say(&format!(
                "The key {key} of the token store holds something that no gateway put there: what it should \
                 hold is not revoked. Delete it, and revoke again."
            ));
        }
        if let Some(moment) = answer["missing_until"].as_str() {
            say(&format!(
                "The token store is refused still: revocations up to {moment} are missing. Revoke --before a \
                 later time (or --all) to accept it."
            ));
        }
        match self.json {
            true => print(format!("{answer:#}\n").as_bytes()),
            false => Ok(()),
        }
    }
}

fn revoke(client: &AdminClient, which: &Value) -> Result<Value, Failure> {
    done(client.ask(&Method::POST, "/tokens/revoke", Some(which))?)
}

fn done(answer: AdminAnswer) -> Result<Value, Failure> {
    match answer {
        AdminAnswer::Done(value) => Ok(value),
        AdminAnswer::NotFound => Err(Failure::other(NO_SENSE)),
    }
}

fn no_such(id: TokenId) -> Failure {
    Failure::other(format!("there is no live token {id}"))
}

fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "write date, time and offset, for example 2026-01-31T18:00:00Z".to_owned())
}

const NO_SENSE: &str = "the gateway answers as none of this version does; is it of another?";
