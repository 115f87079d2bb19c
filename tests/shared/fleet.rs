//! Gateways that share a server.

use std::time::Duration;

use syncgate::clock::Clock;
use syncgate::session::End;
use syncgate::store::{Selection, StoreError};
use syncgate::token::{PresentedToken, TokenId};
use tokio::time::{Instant, sleep};
use toml::{Table, Value};

use crate::support::harness::{Files, START, password};
use crate::support::{Answer, Ask, Client, DEADLINE, Harness, Upstream};

/// Three gateways, each with an upstream of its own and all with one clock.
pub struct Fleet {
    pub gateways: Vec<Harness>,
    pub clock: Clock,
}

impl Fleet {
    pub fn start(shared: &[(&str, Value)]) -> Self {
        Self::with(shared, &[])
    }

    /// With settings of `[tokens.shared]`, and of other sections.
    pub fn with(shared: &[(&str, Value)], others: &[(&str, Value)]) -> Self {
        Self::adjusted(shared, |files| {
            for (key, value) in others {
                files.set(key, value.clone());
            }
        })
    }

    /// With settings of `[tokens.shared]`, and routes, each given as the lines of its table.
    pub fn with_routes(shared: &[(&str, Value)], routes: &[&str]) -> Self {
        Self::adjusted(shared, |files| files.routes(routes))
    }

    /// With settings of `[tokens.shared]`, and files that the test adjusts.
    pub fn adjusted(shared: &[(&str, Value)], adjust: impl Fn(&mut Files)) -> Self {
        let clock = Clock::manual(START.parse().unwrap());
        let gateway = |_| gateway_at(clock.clone(), shared, &adjust);
        let gateways = (0..3).map(gateway).collect();
        Self { gateways, clock }
    }

    /// A gateway for each of these clocks.
    pub fn at(clocks: &[Clock], shared: &[(&str, Value)]) -> Self {
        let gateway = |clock: &Clock| gateway_at(clock.clone(), shared, &|_| {});
        let gateways = clocks.iter().map(gateway).collect();
        let clock = clocks[0].clone();
        Self { gateways, clock }
    }

    /// What `/health` says of the store of a gateway.
    pub async fn store_of(&self, gateway: usize) -> serde_json::Value {
        let health = self.gateways[gateway].ask_admin(&Ask::get("/health")).await;
        assert_eq!(health.status, 200, "{health:?}");
        health.json()["store"].clone()
    }

    /// Waits until the store of a gateway is in this state.
    pub async fn until_store_is(&self, gateway: usize, state: &str) {
        until(state, async || {
            self.store_of(gateway).await["state"] == state
        })
        .await;
    }

    /// A client of one gateway with the token that another client has.
    pub fn bearer(&self, gateway: usize, of: &Client) -> Client {
        Client {
            token: of.token.clone(),
            ..self.gateways[gateway].anonymous()
        }
    }

    /// Someone who has logged in on one gateway, as soon as that is possible.
    pub async fn signed_in(&self, gateway: usize, name: &str) -> Client {
        self.logs_in(gateway, name).await;
        self.gateways[gateway].signed_in_as(name).await
    }

    /// Waits until a login succeeds.
    pub async fn logs_in(&self, gateway: usize, name: &str) {
        let client = self.gateways[gateway].anonymous();
        until("a login", async || {
            let login = Ask::login(name, &password(name));
            client.send(login).await.status == 200
        })
        .await;
    }

    /// Ends tokens by one gateway, as soon as that is possible; returns how many. One that could not be
    /// kept at first may have been by the time it is asked for again.
    pub async fn end(&self, gateway: usize, selection: Selection) -> usize {
        let (begun, mut refused) = (Instant::now(), false);
        loop {
            match self.try_end(gateway, selection).await {
                Ok(0) if refused && matches!(selection, Selection::One(_)) => return 1,
                Ok(ended) => return ended,
                Err(error) if begun.elapsed() > DEADLINE => panic!("nothing is ended: {error}"),
                Err(_) => {
                    refused = true;
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    pub async fn try_end(&self, gateway: usize, selection: Selection) -> Result<usize, StoreError> {
        let gateway = &self.gateways[gateway];
        let tokens = gateway.server().tokens();
        tokens
            .end(&selection, End::Revoked, gateway.clock.now())
            .await
    }
}

fn gateway_at(clock: Clock, shared: &[(&str, Value)], adjust: &dyn Fn(&mut Files)) -> Harness {
    Harness::at(clock, Upstream::tcp(), |files| {
        let shared = shared
            .iter()
            .map(|(key, value)| (key.to_string(), value.clone()));
        files.set("tokens.store", "shared");
        files.set("admin.socket", "admin.sock");
        files.set("tokens.shared", Value::Table(Table::from_iter(shared)));
        adjust(files);
    })
}

/// The setting that names one server.
pub fn server(address: &str) -> (&'static str, Value) {
    ("servers", Value::from(vec![address.to_owned()]))
}

pub fn id(client: &Client) -> TokenId {
    let token = client.token.as_ref().unwrap();
    let token = PresentedToken::parse(token.secret().as_bytes()).unwrap();
    token.digest().id()
}

pub async fn call(client: &Client) -> Answer {
    client.post("/api/SyncData", "{}").await
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    until_within(DEADLINE, what, holds).await;
}

pub async fn until_within(deadline: Duration, what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < deadline, "waited in vain for: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a call gets this status; until then it may get the others.
pub async fn until_status(client: &Client, status: u16, before: &[u16]) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = call(client).await;
        if answer.status == status {
            return answer;
        }
        assert!(
            before.contains(&answer.status),
            "{status} or {before:?}: {answer:?}"
        );
        assert!(
            begun.elapsed() < DEADLINE,
            "waited in vain for {status}: {answer:?}"
        );
        sleep(Duration::from_millis(2)).await;
    }
}
