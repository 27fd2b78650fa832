//! `logs`.
use jiff::Timestamp;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ContainerId;

/// Which of a process's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When it was written.
    pub time: Timestamp,
    /// Where.
    pub stream: Stream,
    /// The bytes, with the newline if there was one.
    pub text: String,
}

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Nothing newer.
    pub until: Option<Timestamp>,
    /// Only the last so many lines.
    pub tail: Option<u64>,
}

impl Engine {
    /// Feeds the log to `sink`, oldest first, until its end (or with `follow` the container's) or an error of the sink.
    pub fn logs(
        &self,
        _id: &ContainerId,
        _options: &LogOptions,
        _sink: &mut dyn FnMut(&LogEntry) -> std::io::Result<()>,
    ) -> Result<()> {
        Err(Error::Unsupported {
            what: "logs".into(),
            why: "not built yet".into(),
        })
    }
}
