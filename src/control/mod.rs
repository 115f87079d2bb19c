//! What changes a running gateway: nothing on the request path uses it, and after the start only it
//! reads files.

mod reload;
mod watch;

pub use reload::Reload;
pub(crate) use watch::Watcher;
