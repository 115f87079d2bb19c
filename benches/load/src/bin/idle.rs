//! Opens connections, sends one request over each, says so, and holds them until its
//! standard input ends, so that the driver can read the proxy's memory meanwhile.
//!
//! `idle --connect ADDRESS --token TOKEN [--connections 9000] [--path /api/SyncData]`

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use syncgate_load::arguments::Arguments;
use syncgate_load::connection::{Connection, request};
use syncgate_load::tls::{self, Offer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::from_env()?;
    let address: SocketAddr = arguments.required("connect")?;
    let token: String = arguments.required("token")?;
    let count: usize = arguments.value("connections", 9000)?;
    let path: String = arguments.value("path", String::from("/api/SyncData"))?;
    arguments.finish()?;

    let config = tls::client(Offer::default())?;
    let request = request(&path, &token, 1024);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Connection> = Vec::with_capacity(count);
    let (mut answered, mut refused) = (0, 0);
    let mut progress = Instant::now();
    while answered < count {
        // Never more than this many without their reply, so that no listen queue overflows.
        while connections.len() < count && connections.len() - answered < 32 {
            let token = Token(connections.len());
            let mut connection = Connection::open(poll.registry(), token, address, &config)?;
            connection.send(&request)?;
            connections.push(connection);
        }
        match poll.poll(&mut events, Some(Duration::from_millis(200))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in events.iter() {
            if let Some(status) = connections[event.token().0].advance()? {
                answered += 1;
                refused += usize::from(status != 200);
                progress = Instant::now();
            }
        }
        if progress.elapsed() > Duration::from_secs(10) {
            return Err(format!("stuck after {answered} connections").into());
        }
    }
    println!(r#"{{"connections":{count},"errors":{refused}}}"#);

    io::copy(&mut io::stdin(), &mut io::sink())?;
    // A connection that the proxy closed meanwhile was not idle but gone.
    poll.poll(&mut events, Some(Duration::ZERO))?;
    let mut closed = 0;
    for connection in &mut connections {
        closed += usize::from(connection.advance().is_err());
    }
    println!(r#"{{"closed":{closed}}}"#);
    Ok(())
}
