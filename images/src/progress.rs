//! How a pull or push tells its user what happens; the drawing is the caller's.

use std::time::Duration;

use crate::digest::Digest;

/// What happened to one blob.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Nothing to do: already here (pull) or already there (push).
    Exists,
    /// Another berth is fetching the same blob; waiting for it.
    Waiting,
    /// `done` of `total` bytes have moved.
    Transferred {
        /// Bytes so far.
        done: u64,
        /// All bytes.
        total: u64,
    },
    /// The connection failed; trying again after `wait`.
    Retrying {
        /// How long until then.
        wait: Duration,
        /// Why.
        cause: &'a str,
    },
    /// All bytes moved and verified; unpacking goes on.
    Verified,
    /// Taken from another repository of the same registry (push).
    Mounted,
    /// Finished.
    Done,
}

/// Receives what a pull or push does. Called from several threads; must not block for long.
pub trait Progress: Send + Sync {
    /// Something happened to a layer or config.
    fn layer(&self, digest: &Digest, event: Event<'_>);
    /// A line for people: where from, which fall-back.
    fn message(&self, _line: &str) {}
}

/// Says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn layer(&self, _: &Digest, _: Event<'_>) {}
}
