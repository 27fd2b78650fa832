//! `update` and `rename`.
use crate::config::Resources;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::flags::RestartPolicy;
use crate::id::{ContainerId, ContainerName};

/// What to change; none stays as it is.
#[derive(Debug, Clone, Default)]
pub struct UpdateRequest {
    /// Limits; those that are none stay.
    pub resources: Resources,
    /// `--restart`.
    pub restart: Option<RestartPolicy>,
}

impl Engine {
    /// Changes limits and policy, of a running container at once.
    pub fn update(&self, _id: &ContainerId, _request: &UpdateRequest) -> Result<()> {
        Err(Error::Unsupported {
            what: "update".into(),
            why: "not built yet".into(),
        })
    }
    /// Gives it another name.
    pub fn rename(&self, _id: &ContainerId, _name: &ContainerName) -> Result<()> {
        Err(Error::Unsupported {
            what: "rename".into(),
            why: "not built yet".into(),
        })
    }
}
