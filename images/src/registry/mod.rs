//! The distribution protocol: what a user configures, and the client that speaks it.
//!
//! ```text
//! Config ─► endpoint (scheme, host, certificates) ─► Repository ─┬─ exchange  one request: 401, redirects, retries
//!                     credentials ─► auth ───────────────────────┤─ download  a blob, resumed with Range
//!                                                                ├─ upload    a blob, mounted or sent
//!                                                                └─ tags      the list of them, page by page
//! ```

mod auth;
mod cause;
pub mod credentials;
mod download;
mod endpoint;
mod error;
mod exchange;
mod retry;
mod tags;
mod upload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use cause::Cause;
pub use download::Notice;
pub use endpoint::candidates;
pub use error::Error;
pub use exchange::{Actions, Document, Repository};
pub use upload::Sent;

/// How to reach registries. The command line fills this; the defaults suit most users.
#[derive(Debug, Clone)]
pub struct Config {
    /// Registries (`host[:port]`) that may be spoken to over plain HTTP, or over HTTPS without checking who answers.
    /// Loopback addresses always may be spoken to over HTTP, after HTTPS failed.
    pub insecure: Vec<String>,
    /// For a registry (`docker.io`), the hosts to ask first, in order: `host[:port]` or a URL with a scheme.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Blobs transferred at a time.
    pub parallel: usize,
    /// When to give up waiting.
    pub timeouts: Timeouts,
    /// How often a failing request is sent anew.
    pub retries: u32,
    /// The wait before the first retry; doubles each time, with jitter.
    pub backoff: Duration,
    /// Directories like `/etc/docker/certs.d`, holding `<host>/{*.crt,*.cert,*.key}`.
    pub certs_dirs: Vec<PathBuf>,
    /// docker's `config.json` with credentials; `None` means `$DOCKER_CONFIG` or `~/.docker`.
    pub auth_file: Option<PathBuf>,
}

/// When to give up waiting.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the headers of an answer.
    pub response: Duration,
    /// For the next bytes of a body.
    pub stall: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: BTreeMap::new(),
            parallel: 3,
            timeouts: Timeouts {
                connect: Duration::from_secs(15),
                response: Duration::from_secs(60),
                stall: Duration::from_secs(30),
            },
            retries: 5,
            backoff: Duration::from_millis(500),
            certs_dirs: vec!["/etc/docker/certs.d".into(), "/etc/containers/certs.d".into()],
            auth_file: None,
        }
    }
}
