//! `exec`.
use crate::attach::DetachKeys;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::flags::UserSpec;
use crate::id::ContainerId;

/// One more process in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub interactive: bool,
    /// `-d`: return once it runs.
    pub detach: bool,
    /// `-e`.
    pub env: Vec<String>,
    /// `-w`.
    pub working_dir: Option<String>,
    /// `-u`.
    pub user: Option<UserSpec>,
    /// `--privileged`.
    pub privileged: bool,
    /// `--detach-keys`.
    pub detach_keys: DetachKeys,
}

impl Engine {
    /// Runs it and returns its exit code; 0 at once when detached.
    pub fn exec(&self, _id: &ContainerId, _request: &ExecRequest) -> Result<i32> {
        Err(Error::Unsupported {
            what: "exec".into(),
            why: "not built yet".into(),
        })
    }
}
