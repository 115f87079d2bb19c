//! Where tests put a server in memory in the place of a connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::AsyncPushSender;
use redis::{Cmd, RedisError, Value};

/// A server that is reached without a connection.
pub(crate) trait InMemory: Send {
    /// Connects; what the server says of its own accord goes to `pushes`.
    fn connect(
        &self,
        pushes: Arc<dyn AsyncPushSender>,
        response_timeout: Duration,
    ) -> io::Result<Box<dyn Connected>>;
}

/// What commands go over instead, until it is dropped.
pub(crate) trait Connected {
    fn query<'a>(&'a self, command: &'a Cmd) -> Reply<'a>;
}

pub(crate) type Reply<'a> = Pin<Box<dyn Future<Output = Result<Value, RedisError>> + 'a>>;
