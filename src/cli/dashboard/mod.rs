//! `syncgate dashboard`: a web page for the operator, served on a loopback port by this command alone. It passes a
//! fixed set of requests on to the admin socket, so that the gateway itself serves nothing more than before.

mod assets;
mod events;
mod guard;
mod relay;
mod respond;
mod serve;
mod session;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ring::rand::SystemRandom;

use super::account_file::AccountFileOption;
use super::admin_client::AdminClient;
use super::failure::Failure;
use super::print;
use crate::settings::units;
use serve::Dashboard;
use session::Session;

/// Open a page that shows what the running gateway does
///
/// Serves the page on a loopback port and prints a link that opens it once. It shows traffic, users, tokens,
/// upstreams and refusals, and can revoke, drain and reload. Run it as root or as the user that syncgate runs as,
/// on the same machine; from elsewhere, forward the same port: ssh -L 8450:127.0.0.1:8450 HOST. Ends with Ctrl-C, or
/// when no page has been open for a while.
#[derive(Debug, Args)]
pub(super) struct DashboardCommand {
    #[command(flatten)]
    place: AccountFileOption,
    /// The port to serve the page on; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// How long to go on without a page that is open
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    idle: Duration,
}

impl DashboardCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = AdminClient::of(self.place.config())?;
        client.probe("/livez")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listener = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| Failure::other(format!("cannot listen on {address}: {error}")))?;
        let port = listener.local_addr().map_err(Failure::other)?.port();
        let (session, key) = Session::new(&SystemRandom::new()).map_err(Failure::other)?;
        let link = format!(
            "The dashboard is open once at\n\n    http://127.0.0.1:{port}/open?key={}\n\n\
             It ends with Ctrl-C, or {} after its page was closed.\n",
            &*key,
            units::show_duration(self.idle),
        );
        let dashboard = Dashboard::new(session, port, client, self.place, self.idle);
        serve::run(Arc::new(dashboard), listener, || print(link.as_bytes()))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let found = units::duration_of(text).filter(|it| !it.is_zero());
    found.ok_or_else(|| "write a duration, for example \"30m\"".to_owned())
}
