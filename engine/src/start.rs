//! `start`.
use crate::attach::{AttachOptions, Session};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ContainerId;

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Attach before the first byte is written; none detaches.
    pub attach: Option<AttachOptions>,
}

impl Engine {
    /// Starts a created or exited container and returns once its program runs. With `attach`, the session is connected
    /// from before the start: no output is missed.
    pub fn start(&self, id: &ContainerId, options: &StartOptions) -> Result<Option<Session>> {
        let _ = (id, options);
        Err(Error::Unsupported {
            what: "start".into(),
            why: "not built yet".into(),
        })
    }
}
