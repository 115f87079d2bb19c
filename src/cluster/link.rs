//! The connections to the server, or to all nodes of a cluster, each of which notifies of every token that
//! another gateway changes. A link is used until anything is wrong with it, and then replaced as a whole:
//! notifications in between are lost, so the cache must be emptied.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::sync::Arc;

use redis::aio::AsyncPushSender;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd};

use super::connect::{Connector, LinkError, Node};
use super::settings::{ServerAddress, SharedMode, SharedSection};
use super::slot::{HashTag, slot, tag_in};

/// A set of connections to one server or cluster.
pub(crate) struct Link {
    nodes: Vec<Node>,
    parts: Topology,
    /// The hash tag of each node.
    tags: Vec<(ServerAddress, HashTag)>,
    response_timeout: std::time::Duration,
}

/// Which node serves a key.
enum Topology {
    One,
    /// The sentinel that named the server.
    Sentinel {
        sentinel: Node,
        name: String,
    },
    Cluster(Vec<SlotRange>),
}

/// A range of slots of a cluster, and the node that serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SlotRange {
    first: u16,
    last: u16,
    at: ServerAddress,
}

/// What a link has to know of the data on the server.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The prefix of the keys whose changes by others are published to this link.
    pub(crate) tracked: String,
    /// The key that holds the version.
    pub(crate) version_key: String,
    /// The version that this program reads and writes.
    pub(crate) version: String,
}

impl Link {
    /// Connects, and checks that the data there can be used.
    pub(crate) async fn open(
        section: &SharedSection,
        connector: &Connector,
        layout: &Layout,
        pushes: &Arc<dyn AsyncPushSender>,
    ) -> Result<Self, LinkError> {
        let mut last = LinkError::Answer("no server is named");
        for address in &section.servers {
            match Self::open_by(address, section, connector, layout, pushes).await {
                Ok(link) => return Ok(link),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn open_by(
        address: &ServerAddress,
        section: &SharedSection,
        connector: &Connector,
        layout: &Layout,
        pushes: &Arc<dyn AsyncPushSender>,
    ) -> Result<Self, LinkError> {
        let connect = async |address: &ServerAddress| {
            let node = connector.connect(address, Arc::clone(pushes)).await?;
            greet(&node, section.mode).await?;
            track(&node, &layout.tracked).await?;
            Ok::<_, LinkError>(node)
        };
        let mut nodes = Vec::new();
        let parts = match section.mode {
            SharedMode::Single => {
                nodes.push(connect(address).await?);
                Topology::One
            }
            SharedMode::Sentinel => {
                let sentinel = connector.connect_plainly(address).await?;
                let name = section.sentinel_name.clone();
                let server = named_by(&sentinel, &name).await?;
                nodes.push(connect(&server).await?);
                Topology::Sentinel { sentinel, name }
            }
            SharedMode::Cluster => {
                let first = connect(address).await?;
                let parts = topology_of(&first).await?;
                nodes.push(first);
                for part in &parts {
                    if !nodes.iter().any(|node| node.address == part.at) {
                        nodes.push(connect(&part.at).await?);
                    }
                }
                Topology::Cluster(parts)
            }
        };
        let response_timeout = connector.response_timeout();
        let link = Self {
            nodes,
            tags: parts.tags(),
            parts,
            response_timeout,
        };
        link.check_version(layout).await?;
        Ok(link)
    }

    /// Runs a command on the node of `key`.
    pub(crate) async fn run(&self, key: &str, command: &Cmd) -> Result<Value, LinkError> {
        let mut attempts = 1;
        loop {
            let node = self.node_of(key)?;
            let answer = match node.query(command).await {
                Ok(value) => Ok(value),
                Err(error) => self.redirected(error, command).await,
            };
            match answer {
                Err(error) if attempts < ATTEMPTS && is_between(&error) => {
                    tokio::time::sleep(PAUSE).await;
                    attempts += 1;
                }
                answer => return answer,
            }
        }
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = HashTag> + '_ {
        self.tags.iter().map(|(_, tag)| *tag)
    }

    /// The hash tag of the node of `key`.
    pub(crate) fn tag_of(&self, key: &str) -> Result<HashTag, LinkError> {
        let node = self.node_of(key)?;
        let tag = self.tags.iter().find(|(at, _)| *at == node.address);
        // Without a cluster there is one, wherever the server is.
        let tag = tag.or(self.tags.first().filter(|_| self.tags.len() == 1));
        tag.map(|(_, tag)| *tag).ok_or(LinkError::Moved)
    }

    /// Checks the connections, and whether the topology is unchanged.
    pub(crate) async fn check(&self, mode: SharedMode) -> Result<(), LinkError> {
        let checked = async {
            for node in &self.nodes {
                greet(node, mode).await?;
            }
            match &self.parts {
                Topology::One => {}
                Topology::Sentinel { sentinel, name } => {
                    // One that cannot be asked says nothing about the server.
                    if let Ok(server) = named_by(sentinel, name).await
                        && server != self.nodes[0].address
                    {
                        return Err(LinkError::Moved);
                    }
                }
                Topology::Cluster(parts) => {
                    if topology_of(&self.nodes[0]).await? != *parts {
                        return Err(LinkError::Moved);
                    }
                }
            }
            Ok(())
        };
        let checked = tokio::time::timeout(self.response_timeout, checked).await;
        checked.map_err(|_| LinkError::Timeout)?
    }

    fn node_of(&self, key: &str) -> Result<&Node, LinkError> {
        let Topology::Cluster(parts) = &self.parts else {
            return Ok(&self.nodes[0]);
        };
        let slot = slot(key);
        let part = parts
            .iter()
            .find(|part| part.first <= slot && slot <= part.last);
        let part = part.ok_or(LinkError::Moved)?;
        self.node_at(&part.at)
    }

    fn node_at(&self, address: &ServerAddress) -> Result<&Node, LinkError> {
        let node = self.nodes.iter().find(|node| node.address == *address);
        node.ok_or(LinkError::Moved)
    }

    /// Follows a redirection, which a node sends while a slot moves and afterwards, until the topology is
    /// read again.
    async fn redirected(&self, error: RedisError, command: &Cmd) -> Result<Value, LinkError> {
        let Some((address, _slot)) = error.redirect_node() else {
            return Err(error.into());
        };
        let address = address.parse();
        let node = self.node_at(&address.map_err(|_| LinkError::Moved)?)?;
        if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) {
            return Ok(node.query(command).await?);
        }
        Ok(node.query_asking(command).await?)
    }

    /// Checks that the data there has this layout's version; an empty server is given it.
    pub(crate) async fn check_version(&self, layout: &Layout) -> Result<(), LinkError> {
        let (key, ours) = (&*layout.version_key, &*layout.version);
        // `GET` is left to tokens, so that the server counts how often one was asked for.
        let mut ask = cmd("GETRANGE");
        ask.arg(key).arg(0).arg(15);
        let mut found = self.run(key, &ask).await?;
        // Only where it is new: a full server lets nothing be written, and is good to be asked.
        if found == Value::BulkString(Vec::new()) {
            let mut claim = cmd("SET");
            claim.arg(key).arg(ours).arg("NX");
            self.run(key, &claim).await?;
            found = self.run(key, &ask).await?;
        }
        match found {
            Value::BulkString(found) if found == ours.as_bytes() => Ok(()),
            Value::BulkString(found) => Err(LinkError::Version(
                String::from_utf8_lossy(&found).into_owned(),
            )),
            _ => Err(LinkError::Answer("a version that is no text")),
        }
    }
}

impl Topology {
    fn tags(&self) -> Vec<(ServerAddress, HashTag)> {
        let Self::Cluster(parts) = self else {
            let anywhere = ServerAddress {
                host: String::new(),
                port: 0,
            };
            return vec![(anywhere, HashTag(0))];
        };
        let mut tags: Vec<(ServerAddress, HashTag)> = Vec::new();
        for part in parts {
            if tags.iter().any(|(at, _)| *at == part.at) {
                continue;
            }
            let of_node = || parts.iter().filter(|it| it.at == part.at);
            let tag = tag_in(|slot| of_node().any(|it| it.first <= slot && slot <= it.last));
            tags.extend(tag.map(|tag| (part.at.clone(), tag)));
        }
        tags
    }
}

/// Whether an error means that the link has to be replaced.
pub(crate) fn breaks_link(error: &LinkError) -> bool {
    let LinkError::Redis(error) = error else {
        return matches!(error, LinkError::Moved);
    };
    let moved = matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::Moved
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
        )
    );
    moved
}

/// Whether the server is out of memory. For an error within a script, Redis 6 says so only in the text.
pub(crate) fn is_out_of_memory(error: &LinkError) -> bool {
    let LinkError::Redis(error) = error else {
        return false;
    };
    let says_so = |detail: &str| detail.contains("-OOM ");
    error.code() == Some("OOM") || error.detail().is_some_and(says_so)
}

/// Whether the server is reachable and refused this one command: out of memory, a missing permission, or a
/// key that holds something else.
pub(crate) fn is_command_error(error: &LinkError) -> bool {
    let refuses = |error: &RedisError| error.code().is_some() && !error.is_unrecoverable_error();
    matches!(error, LinkError::Redis(error) if refuses(error)) && !breaks_link(error)
}

/// Whether a key holds something that no gateway put there.
pub(crate) fn is_foreign(error: &LinkError) -> bool {
    match error {
        LinkError::Redis(error) => {
            let says_so = |detail: &str| detail.contains("WRONGTYPE ");
            error.code() == Some("WRONGTYPE") || error.detail().is_some_and(says_so)
        }
        LinkError::Foreign(_) => true,
        _ => false,
    }
}

/// Whether the keys of a command are on two nodes because their slot is moving.
fn is_between(error: &LinkError) -> bool {
    let between = ErrorKind::Server(ServerErrorKind::TryAgain);
    matches!(error, LinkError::Redis(error) if error.kind() == between)
}

/// Checks the role and mode of a node.
async fn greet(node: &Node, mode: SharedMode) -> Result<(), LinkError> {
    let mut hello = cmd("HELLO");
    hello.arg(3);
    let Value::Map(facts) = node.query(&hello).await? else {
        return Err(LinkError::Answer("HELLO"));
    };
    let fact = |name: &str| {
        let (_, value) = facts.iter().find(|(key, _)| text(key) == Some(name))?;
        text(value)
    };
    match (mode, fact("mode")) {
        (SharedMode::Cluster, Some("cluster")) => {}
        (SharedMode::Cluster, _) => return Err(LinkError::NoCluster(node.address.clone())),
        (SharedMode::Single | SharedMode::Sentinel, Some("cluster")) => {
            return Err(LinkError::Cluster(node.address.clone()));
        }
        (SharedMode::Single | SharedMode::Sentinel, _) => {}
    }
    // The first node of a cluster is only asked for the others.
    if mode != SharedMode::Cluster && !matches!(fact("role"), Some("master" | "primary")) {
        return Err(LinkError::Replica(node.address.clone()));
    }
    Ok(())
}

/// Subscribes to changes that others make to keys with this prefix.
async fn track(node: &Node, prefix: &str) -> Result<(), LinkError> {
    let mut track = cmd("CLIENT");
    track.arg("TRACKING").arg("ON").arg("BCAST");
    track.arg("PREFIX").arg(prefix).arg("NOLOOP");
    node.query(&track).await?;
    Ok(())
}

async fn named_by(sentinel: &Node, name: &str) -> Result<ServerAddress, LinkError> {
    let mut ask = cmd("SENTINEL");
    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let answer = sentinel.query(&ask).await?;
    let unknown = || LinkError::NoServer(name.to_owned());
    let Value::Array(parts) = answer else {
        return Err(unknown());
    };
    let [host, port] = &parts[..] else {
        return Err(unknown());
    };
    let port = text(port).and_then(|port| port.parse().ok());
    let (Some(host), Some(port)) = (text(host), port) else {
        return Err(LinkError::Answer("the address of a server"));
    };
    let host = host.to_owned();
    Ok(ServerAddress { host, port })
}

async fn topology_of(node: &Node) -> Result<Vec<SlotRange>, LinkError> {
    let mut ask = cmd("CLUSTER");
    ask.arg("SLOTS");
    let Value::Array(ranges) = node.query(&ask).await? else {
        return Err(LinkError::Answer("CLUSTER SLOTS"));
    };
    let parts: Option<Vec<SlotRange>> = ranges.iter().map(|range| part(range, node)).collect();
    let mut parts = parts.ok_or(LinkError::Answer("CLUSTER SLOTS"))?;
    parts.sort_by_key(|part| part.first);
    Ok(parts)
}

/// One element of the answer to `CLUSTER SLOTS`: the first slot, the last, and the nodes.
fn part(range: &Value, asked: &Node) -> Option<SlotRange> {
    let Value::Array(fields) = range else {
        return None;
    };
    let [
        Value::Int(first),
        Value::Int(last),
        Value::Array(server),
        ..,
    ] = &fields[..]
    else {
        return None;
    };
    let [host, Value::Int(port), ..] = &server[..] else {
        return None;
    };
    // A node that does not know its own address is where it was found.
    let host = match text(host) {
        Some("" | "?") | None => &asked.address.host,
        Some(host) => host,
    };
    Some(SlotRange {
        first: u16::try_from(*first).ok()?,
        last: u16::try_from(*last).ok()?,
        at: ServerAddress {
            host: host.to_owned(),
            port: u16::try_from(*port).ok()?,
        },
    })
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// How often a command is tried while its slot is moving, and the pause in between.
const ATTEMPTS: usize = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
