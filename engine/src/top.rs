//! `top`.
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ContainerId;

/// A container's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// Column heads.
    pub titles: Vec<String>,
    /// A row a process.
    pub processes: Vec<Vec<String>>,
}

impl Engine {
    /// The processes of a running container as the host sees them; columns of `ps -ef`, or those named in `-o a,b,c`.
    pub fn top(&self, _id: &ContainerId, _ps_args: &[String]) -> Result<Top> {
        Err(Error::Unsupported {
            what: "top".into(),
            why: "not built yet".into(),
        })
    }
}
