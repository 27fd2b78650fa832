//! `attach`.
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::flags::InvalidFlag;
use crate::id::ContainerId;

/// The key sequence that leaves a container running; `ctrl-p,ctrl-q` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        DetachKeys(vec![0x10, 0x11])
    }
}

impl std::str::FromStr for DetachKeys {
    type Err = InvalidFlag;
    /// `ctrl-p,ctrl-q` or single characters, separated by commas.
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = || InvalidFlag::new("detach keys", s, "expected keys such as ctrl-p,ctrl-q or a,b");
        let mut keys = Vec::new();
        for key in s.split(',') {
            keys.push(match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(c), _) => match c.as_bytes() {
                    [c] if c.is_ascii_alphabetic() => c.to_ascii_lowercase() - b'a' + 1,
                    [c] if b"@[\\]^_".contains(c) => c - b'@',
                    _ => return Err(bad()),
                },
                (None, [c]) if c.is_ascii() => *c,
                _ => return Err(bad()),
            });
        }
        Ok(DetachKeys(keys))
    }
}

/// Which streams to join, and how.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// Forward our standard input.
    pub stdin: bool,
    /// Print its standard output.
    pub stdout: bool,
    /// Print its standard error.
    pub stderr: bool,
    /// Keys that detach; only with a terminal.
    pub detach_keys: DetachKeys,
    /// Pass signals we get on to its init.
    pub sig_proxy: bool,
}

impl Default for AttachOptions {
    fn default() -> Self {
        AttachOptions {
            stdin: false,
            stdout: true,
            stderr: true,
            detach_keys: DetachKeys::default(),
            sig_proxy: true,
        }
    }
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The container ended with this code.
    Exited(i32),
    /// The user detached; it goes on.
    Detached,
}

/// A connection to a container's streams.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// Relays until the container ends or the user detaches. Puts the terminal into raw mode when the container has
    /// one, and back.
    pub fn run(self) -> Result<Ended> {
        Err(Error::Unsupported {
            what: "attach".into(),
            why: "not built yet".into(),
        })
    }
}

impl Engine {
    /// Joins a running container's streams.
    pub fn attach(&self, _id: &ContainerId, _options: &AttachOptions) -> Result<Session> {
        Err(Error::Unsupported {
            what: "attach".into(),
            why: "not built yet".into(),
        })
    }
}
