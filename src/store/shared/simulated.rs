//! The server of a shared store as the simulation has it: in memory, one command at a time, in an order that
//! the simulation decides. What the scripts do is done here in Rust; a test holds the two equal on a real
//! server. Of a cluster there is nothing here.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::AsyncPushSender;
use redis::{Arg, Cmd, PushInfo, PushKind, RedisError, Value};
use tokio::sync::oneshot;

use super::scripts;
use crate::cluster::seam::{self, Connected, InMemory};

/// The server; its clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

/// The server as one of the gateways reaches it.
pub(crate) struct At {
    pub(crate) server: Server,
    pub(crate) gateway: usize,
}

/// A connection to it, which ends with this.
struct Connection {
    server: Server,
    number: u64,
    patience: Duration,
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Done,
    /// The server says no: it has no memory.
    Full,
    /// The server says no: the user has not the right.
    Forbidden,
}

#[derive(Default)]
struct State {
    data: BTreeMap<Vec<u8>, Entry>,
    /// What each write changed, the last one at the end.
    undo: VecDeque<Vec<(Vec<u8>, Option<Entry>)>>,
    /// Writes so far, those included that were cut off.
    writes: u64,
    connections: BTreeMap<u64, Open>,
    opened: u64,
    /// Milliseconds since 1970.
    now: u64,
    is_down: bool,
    /// What the test knows, noted when a gateway reads a counter.
    known: u64,
    /// Whether a count of revocations was not taken.
    uncounted: bool,
    tracked: Vec<u8>,
    /// The commands and their answers, where a test wants them.
    record: Option<Vec<Command>>,
    is_watched: bool,
}

/// A command and its answer.
pub(crate) type Command = (Vec<Vec<u8>>, Value);

struct Open {
    gateway: usize,
    pushes: Arc<dyn AsyncPushSender>,
    tracks: bool,
    asks: VecDeque<(Vec<Vec<u8>>, Reply)>,
    answers: VecDeque<Said>,
}

type Answer = Result<Value, RedisError>;
type Reply = oneshot::Sender<Answer>;

enum Said {
    /// With what is known to whoever hears it, where it is a counter.
    Answer(Reply, Answer, Option<u64>),
    Push(PushInfo),
}

#[derive(Clone, Debug)]
struct Entry {
    value: Kind,
    expires: Option<u64>,
}

#[derive(Clone, Debug)]
enum Kind {
    Text(Vec<u8>),
    Sorted(BTreeMap<Vec<u8>, i64>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
}

impl InMemory for At {
    fn connect(
        &self,
        pushes: Arc<dyn AsyncPushSender>,
        patience: Duration,
    ) -> io::Result<Box<dyn Connected>> {
        let mut state = self.server.state();
        if state.is_down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        state.opened += 1;
        let number = state.opened;
        let open = Open {
            gateway: self.gateway,
            pushes,
            tracks: false,
            asks: VecDeque::new(),
            answers: VecDeque::new(),
        };
        state.connections.insert(number, open);
        Ok(Box::new(Connection {
            server: self.server.clone(),
            number,
            patience,
        }))
    }
}

impl Server {
    pub(crate) fn set_clock(&self, millis: u64) {
        let mut state = self.state();
        state.now = millis;
        state.purge();
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// What the test knows from now on.
    pub(crate) fn set_known(&self, known: u64) {
        self.state().known = known;
    }

    pub(crate) fn writes(&self) -> u64 {
        self.state().writes
    }

    pub(crate) fn uncounted(&self) -> bool {
        self.state().uncounted
    }

    /// Connections on which something is under way to the server, and those on which it is to a gateway.
    pub(crate) fn under_way(&self) -> (Vec<u64>, Vec<u64>) {
        let state = self.state();
        let open = || state.connections.iter();
        let asks = open().filter(|(_, open)| !open.asks.is_empty());
        let answers = open().filter(|(_, open)| !open.answers.is_empty());
        let number = |(number, _): (&u64, &Open)| *number;
        (asks.map(number).collect(), answers.map(number).collect())
    }

    /// Whether a gateway is told of all changes and has heard all of them.
    pub(crate) fn is_current(&self, gateway: usize) -> bool {
        let state = self.state();
        let mut of_gateway = state.connections.values();
        of_gateway.any(|it| it.gateway == gateway && it.tracks && it.answers.is_empty())
    }

    /// Lets the server do the next command of a connection.
    pub(crate) fn execute(&self, connection: u64, call: Call) {
        let mut state = self.state();
        let Some(open) = state.connections.get_mut(&connection) else {
            return;
        };
        let Some((words, reply)) = open.asks.pop_front() else {
            return;
        };
        let is = |text: &str| words.get(1).is_some_and(|it| it == text.as_bytes());
        let is_counter = is(scripts::READ_COUNTER);
        if call != Call::Done && is(scripts::COUNT_REVOCATION) {
            state.uncounted = true;
        }
        let answer = match call {
            Call::Done => {
                let answer = state.run(connection, &words);
                if let Some(record) = &mut state.record {
                    record.push((words.clone(), answer.clone()));
                }
                Ok(answer)
            }
            Call::Full => Err(refusal(
                "-OOM command not allowed when used memory > 'maxmemory'.",
            )),
            Call::Forbidden => Err(refusal("-NOPERM this user has no permissions to run it")),
        };
        if state.is_watched {
            let gateway = state.connections.get(&connection).map(|open| open.gateway);
            println!("   {gateway:?} {call:?} {}: {answer:?}", shown(&words));
        }
        let known = (is_counter && answer.is_ok()).then_some(state.known);
        if let Some(open) = state.connections.get_mut(&connection) {
            open.answers.push_back(Said::Answer(reply, answer, known));
        }
    }

    /// Lets a gateway hear the next thing that was said to it. Answers what it knows then.
    pub(crate) fn deliver(&self, connection: u64) -> Option<(usize, u64)> {
        let (said, pushes, gateway) = {
            let mut state = self.state();
            let open = state.connections.get_mut(&connection)?;
            (
                open.answers.pop_front()?,
                Arc::clone(&open.pushes),
                open.gateway,
            )
        };
        match said {
            Said::Push(push) => {
                let _ = pushes.send(push);
                None
            }
            Said::Answer(reply, answer, known) => {
                let heard = reply.send(answer).is_ok();
                known.filter(|_| heard).map(|known| (gateway, known))
            }
        }
    }

    /// Breaks a connection: what is under way on it is lost, both ways.
    pub(crate) fn cut(&self, connection: u64) {
        let open = self.state().connections.remove(&connection);
        let Some(open) = open else { return };
        let broken = || Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        for said in open.answers {
            if let Said::Answer(reply, ..) = said {
                let _ = reply.send(broken());
            }
        }
        for (_, reply) in open.asks {
            let _ = reply.send(broken());
        }
        let _ = open.pushes.send(PushInfo {
            kind: PushKind::Disconnection,
            data: Vec::new(),
        });
    }

    /// Another server takes over, which has not heard of the last writes. Returns how many there are left.
    pub(crate) fn fail_over(&self, lost: usize) -> u64 {
        let open: Vec<u64> = self.state().connections.keys().copied().collect();
        for connection in open {
            self.cut(connection);
        }
        let mut state = self.state();
        let mut cut = 0;
        for _ in 0..lost {
            let Some(group) = state.undo.pop_back() else {
                break;
            };
            cut += 1;
            for (key, before) in group.into_iter().rev() {
                match before {
                    Some(entry) => drop(state.data.insert(key, entry)),
                    None => drop(state.data.remove(&key)),
                }
            }
        }
        state.undo.clear();
        state.purge();
        let left = state.writes - cut;
        // Later writes have numbers that no earlier one had.
        state.writes += 1;
        left
    }

    /// The members of a sorted set.
    pub(crate) fn members(&self, key: &str) -> usize {
        self.state().sorted(key.as_bytes()).len()
    }

    /// Whether a token is there that was not ended and is not over.
    pub(crate) fn has_live(&self, key: &str) -> bool {
        let state = self.state();
        let Some(value) = state.text(key.as_bytes()) else {
            return false;
        };
        value.get(1) == Some(&b'T') && u64::from(number(&value[2..6])) * 1000 > state.now
    }

    pub(crate) fn record(&self) {
        self.state().record = Some(Vec::new());
    }

    /// Whether everything that happens is printed.
    pub(crate) fn watch(&self, is_watched: bool) {
        self.state().is_watched = is_watched;
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.state().is_watched
    }

    pub(crate) fn recorded(&self) -> Vec<Command> {
        self.state().record.take().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected for Connection {
    fn query<'a>(&'a self, command: &'a Cmd) -> seam::Reply<'a> {
        Box::pin(self.ask(command))
    }
}

impl Connection {
    async fn ask(&self, command: &Cmd) -> Answer {
        let (reply, answer) = oneshot::channel();
        let words = command.args_iter().map(|arg| match arg {
            Arg::Simple(word) => word.to_vec(),
            _ => b"0".to_vec(),
        });
        let words = words.collect();
        match self.server.state().connections.get_mut(&self.number) {
            Some(open) => open.asks.push_back((words, reply)),
            None => return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        }
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.state().connections.remove(&self.number);
    }
}

/// A command for whoever looks at a history, a script by its name.
fn shown(words: &[Vec<u8>]) -> String {
    let names = [
        (scripts::END, "END"),
        (scripts::REPLACE, "REPLACE"),
        (scripts::JOIN, "JOIN"),
        (scripts::SEVER, "SEVER"),
        (scripts::ADD, "ADD"),
        (scripts::RESERVE, "RESERVE"),
        (scripts::READ_COUNTER, "READ_COUNTER"),
        (scripts::COUNT_REVOCATION, "COUNT_REVOCATION"),
        (scripts::ACCEPT, "ACCEPT"),
        (scripts::JOIN_AGAIN, "JOIN_AGAIN"),
        (scripts::MISS, "MISS"),
    ];
    let word = |word: &Vec<u8>| {
        let name = names.iter().find(|(text, _)| text.as_bytes() == &word[..]);
        name.map_or_else(
            || word.escape_ascii().to_string(),
            |(_, name)| name.to_string(),
        )
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn refusal(line: &str) -> RedisError {
    let value = redis::parse_redis_value(format!("{line}\r\n").as_bytes());
    let error = value.and_then(Value::extract_error);
    error.expect_err("an error of the server")
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn integer(text: &[u8]) -> i64 {
    let text = std::str::from_utf8(text).expect("a number");
    text.parse().expect("a number")
}

/// The number that a text begins with; 0 where there is none.
fn leading(text: &[u8]) -> i64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match digits {
        0 => 0,
        digits => integer(&text[..digits]),
    }
}

fn decimal(number: i64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn bulk(text: &[u8]) -> Value {
    Value::BulkString(text.to_vec())
}

fn list(texts: impl IntoIterator<Item = Vec<u8>>) -> Value {
    Value::Array(texts.into_iter().map(Value::BulkString).collect())
}

impl State {
    fn purge(&mut self) {
        let now = self.now;
        let over = |(_, entry): &(&Vec<u8>, &Entry)| entry.expires.is_some_and(|at| at <= now);
        let over: Vec<Vec<u8>> = self
            .data
            .iter()
            .filter(over)
            .map(|(key, _)| key.clone())
            .collect();
        if over.is_empty() {
            return;
        }
        self.undo.push_back(Vec::new());
        for key in over {
            self.remove(&key);
            self.tell(&key, 0);
        }
        self.writes += 1;
    }

    fn run(&mut self, connection: u64, words: &[Vec<u8>]) -> Value {
        self.undo.push_back(Vec::new());
        let answer = self.command(connection, words);
        let mut changed: Vec<Vec<u8>> = match self.undo.back() {
            Some(group) => group.iter().map(|(key, _)| key.clone()).collect(),
            None => Vec::new(),
        };
        if changed.is_empty() {
            self.undo.pop_back();
            return answer;
        }
        self.writes += 1;
        if self.undo.len() > REMEMBERED {
            self.undo.pop_front();
        }
        changed.sort();
        changed.dedup();
        for key in changed {
            self.tell(&key, connection);
        }
        answer
    }

    /// Tells the others of a token that was changed.
    fn tell(&mut self, key: &[u8], by: u64) {
        if self.tracked.is_empty() || !key.starts_with(&self.tracked) {
            return;
        }
        for (number, open) in &mut self.connections {
            if open.tracks && *number != by {
                open.answers.push_back(Said::Push(PushInfo {
                    kind: PushKind::Invalidate,
                    data: vec![Value::Array(vec![bulk(key)])],
                }));
            }
        }
    }

    fn command(&mut self, connection: u64, words: &[Vec<u8>]) -> Value {
        let name = std::str::from_utf8(&words[0]).expect("a command");
        match name {
            "HELLO" => {
                let fact =
                    |name: &str, value: &str| (bulk(name.as_bytes()), bulk(value.as_bytes()));
                Value::Map(vec![fact("mode", "standalone"), fact("role", "master")])
            }
            "CLIENT" => {
                self.tracked = words[5].clone();
                if let Some(open) = self.connections.get_mut(&connection) {
                    open.tracks = true;
                }
                Value::Okay
            }
            "GET" | "GETRANGE" => match (self.text(&words[1]), name) {
                (Some(text), _) => bulk(text),
                (None, "GET") => Value::Nil,
                (None, _) => bulk(b""),
            },
            "SET" => {
                let has = |option: &str| words[3..].iter().any(|word| word == option.as_bytes());
                if has("NX") && self.data.contains_key(&words[1]) {
                    return Value::Nil;
                }
                let left = has("PX").then(|| integer(&words[words.len() - 1]));
                self.put(&words[1], Kind::Text(words[2].clone()), left);
                Value::Okay
            }
            "DEL" => Value::Int(i64::from(self.remove(&words[1]))),
            "ZADD" => {
                let (option, score, member) = (&words[2][..], integer(&words[3]), &words[4]);
                let is_there = self.sorted(&words[1]).contains_key(member);
                match (option, is_there) {
                    (b"NX", true) | (b"XX", false) => return Value::Int(0),
                    _ => self.add(&words[1], member, score),
                }
                Value::Int(i64::from(!is_there))
            }
            "ZREM" => Value::Int(i64::from(self.take(&words[1], &words[2]))),
            "ZRANGE" => list(self.in_order(&words[1])),
            "ZRANGEBYLEX" => {
                let (after, most) = (&words[2][1..], integer(&words[6]) as usize);
                let names = self.sorted(&words[1]).into_keys();
                list(names.filter(|name| &name[..] > after).take(most))
            }
            "EVAL" => {
                let keys = integer(&words[2]) as usize;
                let (keys, arguments) = words[3..].split_at(keys);
                let text = std::str::from_utf8(&words[1]).expect("a script");
                self.script(text, keys, arguments)
            }
            other => panic!("{other} is not simulated"),
        }
    }

    fn script(&mut self, text: &str, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Value {
        match text {
            scripts::END => self.end(&keys[0], arguments),
            scripts::REPLACE => self.replace(&keys[0], arguments),
            scripts::JOIN => self.join(&keys[0], arguments),
            scripts::SEVER => {
                let ids = self.in_order(&keys[0]);
                self.add(&keys[0], b"ended", 0);
                if ids.is_empty() {
                    self.expire(&keys[0], integer(&arguments[0]));
                }
                list(ids)
            }
            scripts::JOIN_AGAIN => {
                let members = self.sorted(&keys[0]);
                if members.contains_key(&arguments[1]) {
                    return Value::Int(1);
                }
                if members.contains_key(&b"ended"[..]) {
                    return Value::Int(0);
                }
                self.add(&keys[0], &arguments[0], 0);
                self.add(&keys[0], &arguments[1], 0);
                self.expire(&keys[0], integer(&arguments[2]));
                Value::Int(1)
            }
            scripts::ADD => self.enter(keys, arguments),
            scripts::RESERVE => self.change_capacity(keys, arguments),
            scripts::READ_COUNTER => self.counter(&keys[0], arguments),
            scripts::COUNT_REVOCATION => {
                let value = self.field(&keys[0], &arguments[0]).unwrap_or_default();
                let count = value
                    .split(|byte| *byte == b' ')
                    .next()
                    .filter(|it| !it.is_empty());
                let count = count.map_or(0, integer);
                let count = match &arguments[1][..] {
                    b"" => count + 1,
                    least => count.max(integer(least)),
                };
                let value = format!("{count} {}", self.now / 1000);
                self.set_field(&keys[0], &arguments[0], value.into_bytes());
                Value::Int(1)
            }
            scripts::MISS => {
                let accepted = self.field(&keys[0], b"accepted");
                if accepted.unwrap_or_else(|| b"0".to_vec()) != arguments[0] {
                    return Value::Int(0);
                }
                for pair in arguments[1..].chunks_exact(2) {
                    let wanted = self.field(&keys[0], &pair[0]);
                    if leading(&pair[1]) > wanted.map_or(0, |value| leading(&value)) {
                        self.set_field(&keys[0], &pair[0], pair[1].clone());
                    }
                }
                Value::Int(1)
            }
            scripts::ACCEPT => {
                for (field, _) in self.hash(&keys[0]) {
                    if field.starts_with(b"wanted:") {
                        self.remove_field(&keys[0], &field);
                    }
                }
                let before = self
                    .field(&keys[0], b"accepted")
                    .map_or(0, |it| integer(&it));
                let value = decimal((before + 1).max(self.now as i64));
                self.set_field(&keys[0], b"accepted", value);
                Value::Int(1)
            }
            other => panic!("not simulated: {other}"),
        }
    }

    fn end(&mut self, key: &[u8], arguments: &[Vec<u8>]) -> Value {
        let Some(value) = self
            .text(key)
            .filter(|value| value[1] == b'T')
            .map(<[u8]>::to_vec)
        else {
            return Value::Nil;
        };
        if !arguments[2].is_empty() && value[10..14] >= arguments[2][..] {
            return Value::Nil;
        }
        let mut trace = arguments[0].clone();
        trace.extend(&value[18..28]);
        self.put(key, Kind::Text(trace), Some(integer(&arguments[1])));
        bulk(&value)
    }

    fn replace(&mut self, key: &[u8], arguments: &[Vec<u8>]) -> Value {
        let Some(value) = self
            .text(key)
            .filter(|value| value[1] == b'T')
            .map(<[u8]>::to_vec)
        else {
            return Value::Int(0);
        };
        let was = value[2..6].to_vec();
        if was[..] <= arguments[1][..] {
            return Value::Int(0);
        }
        let mut changed = value.clone();
        if value[14..18] == [0; 4] {
            changed[14..18].copy_from_slice(&arguments[0]);
        }
        let later = was[..] > arguments[0][..];
        if later {
            changed[2..6].copy_from_slice(&arguments[0]);
        }
        self.put(key, Kind::Text(changed), Some(integer(&arguments[2])));
        match later {
            true => bulk(&was),
            false => Value::Int(1),
        }
    }

    fn join(&mut self, key: &[u8], arguments: &[Vec<u8>]) -> Value {
        let members = self.sorted(key);
        if members.contains_key(&b"ended"[..]) || members.len() as i64 >= integer(&arguments[3]) {
            return Value::Int(0);
        }
        self.add(key, &arguments[0], 0);
        self.add(key, &arguments[1], 0);
        self.expire(key, integer(&arguments[2]));
        Value::Int(1)
    }

    /// Without `tokens.idle`.
    fn enter(&mut self, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Value {
        let reached = integer(&arguments[3]).min(self.now as i64 / 1000);
        let over = self.sorted(&keys[1]).into_iter();
        for (id, _) in over.filter(|(_, second)| *second <= reached) {
            self.take(&keys[0], &id);
            self.take(&keys[1], &id);
        }
        let ids = self.in_order(&keys[0]);
        let most = integer(&arguments[4]) as usize;
        let mut answer = Value::Array(Vec::new());
        if ids.len() >= most {
            if !arguments[6].is_empty() && ids.contains(&arguments[6]) {
                answer = list([scripts::OF_REPLACED.as_bytes().to_vec()]);
            } else if arguments[5] != b"1" {
                return list([Vec::new()]);
            } else {
                let excess = ids.len() - most;
                return list(ids.into_iter().take(excess + 1));
            }
        }
        let last = self.sorted(&keys[0]).into_values().max();
        let issued = integer(&arguments[1]).max(last.map_or(0, |last| last + 1));
        self.add(&keys[0], &arguments[0], issued);
        self.add(&keys[1], &arguments[0], integer(&arguments[2]));
        let latest = self.sorted(&keys[1]).into_values().max().expect("one");
        let left = (latest - integer(&arguments[3])) * 1000 + 3_600_000;
        self.expire(&keys[0], left);
        self.expire(&keys[1], left);
        answer
    }

    fn change_capacity(&mut self, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Value {
        let now = integer(&arguments[0]);
        let over = self.sorted(&keys[0]).into_iter();
        let reached = now.min(self.now as i64 / 1000);
        for (second, _) in over.filter(|(_, second)| *second <= reached) {
            let count = self.field(&keys[1], &second).map_or(0, |it| integer(&it));
            self.change(keys, &second, -count);
        }
        if !arguments[1].is_empty() && self.field(&keys[1], &arguments[1]).is_some() {
            self.change(keys, &arguments[1], -1);
        }
        if arguments[2].is_empty() {
            return Value::Int(1);
        }
        let all = self.field(&keys[1], b"all").map_or(0, |it| integer(&it));
        if !arguments[3].is_empty() && all >= integer(&arguments[3]) {
            return Value::Int(0);
        }
        self.change(keys, &arguments[2], 1);
        self.add(&keys[0], &arguments[2], integer(&arguments[2]));
        let latest = self.sorted(&keys[0]).into_values().max().expect("one");
        let left = (latest - now) * 1000 + 3_600_000;
        self.expire(&keys[0], left);
        self.expire(&keys[1], left);
        Value::Int(1)
    }

    fn change(&mut self, keys: &[Vec<u8>], second: &[u8], by: i64) {
        let all = self.field(&keys[1], b"all").map_or(0, |it| integer(&it));
        self.set_field(&keys[1], b"all", decimal(all + by));
        let count = self.field(&keys[1], second).map_or(0, |it| integer(&it)) + by;
        match count {
            0 => {
                self.remove_field(&keys[1], second);
                self.take(&keys[0], second);
            }
            _ => self.set_field(&keys[1], second, decimal(count)),
        }
    }

    fn counter(&mut self, key: &[u8], arguments: &[Vec<u8>]) -> Value {
        let mut answer = vec![Value::Int(self.now as i64)];
        if self.field(key, b"born").is_none() {
            let mut born = arguments[0].clone();
            born.push(b' ');
            born.extend(decimal(self.now as i64));
            self.set_field(key, b"born", born);
        }
        for (field, value) in self.hash(key) {
            answer.extend([Value::BulkString(field), Value::BulkString(value)]);
        }
        Value::Array(answer)
    }

    fn text(&self, key: &[u8]) -> Option<&[u8]> {
        match &self.data.get(key)?.value {
            Kind::Text(text) => Some(text),
            Kind::Sorted(_) | Kind::Hash(_) => None,
        }
    }

    fn sorted(&self, key: &[u8]) -> BTreeMap<Vec<u8>, i64> {
        match self.data.get(key).map(|entry| &entry.value) {
            Some(Kind::Sorted(members)) => members.clone(),
            _ => BTreeMap::new(),
        }
    }

    fn hash(&self, key: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        match self.data.get(key).map(|entry| &entry.value) {
            Some(Kind::Hash(fields)) => fields.clone(),
            _ => BTreeMap::new(),
        }
    }

    fn field(&self, key: &[u8], field: &[u8]) -> Option<Vec<u8>> {
        match &self.data.get(key)?.value {
            Kind::Hash(fields) => fields.get(field).cloned(),
            Kind::Text(_) | Kind::Sorted(_) => None,
        }
    }

    fn in_order(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let mut members: Vec<(i64, Vec<u8>)> = self
            .sorted(key)
            .into_iter()
            .map(|(member, score)| (score, member))
            .collect();
        members.sort();
        members.into_iter().map(|(_, member)| member).collect()
    }

    /// Notes what a key holds, before that is changed.
    fn note(&mut self, key: &[u8]) {
        let before = self.data.get(key).cloned();
        if let Some(group) = self.undo.back_mut()
            && !group.iter().any(|(noted, _)| noted == key)
        {
            group.push((key.to_vec(), before));
        }
    }

    fn put(&mut self, key: &[u8], value: Kind, left: Option<i64>) {
        self.note(key);
        let expires = left.map(|left| self.now + left as u64);
        self.data.insert(key.to_vec(), Entry { value, expires });
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        if self.data.contains_key(key) {
            self.note(key);
        }
        self.data.remove(key).is_some()
    }

    fn expire(&mut self, key: &[u8], left: i64) {
        self.note(key);
        let at = self.now + left as u64;
        if let Some(entry) = self.data.get_mut(key) {
            entry.expires = Some(at);
        }
    }

    fn add(&mut self, key: &[u8], member: &[u8], score: i64) {
        self.note(key);
        let empty = || Entry {
            value: Kind::Sorted(BTreeMap::new()),
            expires: None,
        };
        let entry = self.data.entry(key.to_vec()).or_insert_with(empty);
        if let Kind::Sorted(members) = &mut entry.value {
            members.insert(member.to_vec(), score);
        }
    }

    fn take(&mut self, key: &[u8], member: &[u8]) -> bool {
        if !self.sorted(key).contains_key(member) {
            return false;
        }
        self.note(key);
        if let Some(entry) = self.data.get_mut(key)
            && let Kind::Sorted(members) = &mut entry.value
        {
            members.remove(member);
            if members.is_empty() {
                self.data.remove(key);
            }
        }
        true
    }

    fn set_field(&mut self, key: &[u8], field: &[u8], value: Vec<u8>) {
        self.note(key);
        let empty = || Entry {
            value: Kind::Hash(BTreeMap::new()),
            expires: None,
        };
        let entry = self.data.entry(key.to_vec()).or_insert_with(empty);
        if let Kind::Hash(fields) = &mut entry.value {
            fields.insert(field.to_vec(), value);
        }
    }

    fn remove_field(&mut self, key: &[u8], field: &[u8]) {
        self.note(key);
        if let Some(entry) = self.data.get_mut(key)
            && let Kind::Hash(fields) = &mut entry.value
        {
            fields.remove(field);
        }
    }
}

/// Writes that a server which takes over may not have heard of.
const REMEMBERED: usize = 32;
