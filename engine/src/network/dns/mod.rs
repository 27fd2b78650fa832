//! The name server inside each container's network namespace, at 127.0.0.11.

use std::os::fd::RawFd;
use std::time::Instant;

use super::error::{Error, Result};
use super::model::{DnsOptions, Paths};

/// One container's name server: sockets inside its namespace, sockets to the resolvers in ours. Never blocks.
#[derive(Debug)]
pub struct Responder {}

impl Responder {
    /// Opens the sockets inside the namespace of an attached container and turns 127.0.0.11:53 there to them.
    pub fn bind(_paths: &Paths, _container_id: &str, _options: &DnsOptions) -> Result<Self> {
        Err(Error::Unsupported("name server".into()))
    }

    /// An epoll descriptor that is readable whenever [`Responder::ready`] has work; it stays the same for the
    /// responder's life, so it is registered once.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        -1
    }

    /// Does what can be done now without blocking. Call it when [`Responder::descriptor`] is readable and when
    /// [`Responder::deadline`] has passed.
    pub fn ready(&mut self, _now: Instant) {}

    /// When [`Responder::ready`] wants to be called even if nothing is readable; `None` while nothing is pending.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
}
