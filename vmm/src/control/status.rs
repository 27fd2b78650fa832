//! Where a microVM is in its life, and what can be asked of it there.

use serde::Serialize;

use crate::api::{Command, Fault};
use crate::config::Id;
use crate::devices::keyboard::Unread;
use crate::error::Error;

/// Where a microVM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Status {
    /// It is being configured.
    #[serde(rename = "Not started")]
    NotStarted,
    /// Its processors run.
    Running,
    /// Its processors stand.
    Paused,
}

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is none.
    #[error(transparent)]
    Request(#[from] Fault),
    /// It needs a machine.
    #[error("The requested operation is not supported before starting the microVM.")]
    Early,
    /// It is about the machine's configuration, and there is a machine.
    #[error("The requested operation is not supported after starting the microVM.")]
    Late,
    /// Only a machine that stands can be saved.
    #[error("a microVM is saved while it is paused (PATCH /vm)")]
    Runs,
    /// It brings a configuration, and there is one. Firecracker's words.
    #[error("Loading a microVM snapshot not allowed after configuring boot-specific resources.")]
    Configured,
    /// There is no such device.
    #[error("No {0} device found.")]
    NoDevice(&'static str),
    /// There is no device of this kind and name.
    #[error("No {0} is called {1}.")]
    NoneCalled(&'static str, Id),
    /// The balloon was made without statistics, or with them.
    #[error("Cannot enable/disable the statistics after boot.")]
    StatisticsSettled,
    /// Nobody asks the guest.
    #[error("Statistics for the balloon device are not enabled")]
    NoStatistics,
    /// The keys are still in the keyboard's buffer.
    #[error("cannot send Ctrl+Alt+Del: {0}")]
    Keys(Unread),
    /// It was tried.
    #[error("{}", .0.told())]
    Failed(#[from] Error),
}

impl Status {
    /// Whether a command can be obeyed now.
    ///
    /// # Errors
    ///
    /// [`Refusal::Early`] and [`Refusal::Late`].
    pub fn allows(self, command: &Command) -> Result<(), Refusal> {
        match (command, self) {
            (Command::Tell(_), _)
            | (Command::Set(_) | Command::Start | Command::LoadSnapshot(_), Status::NotStarted)
            | (Command::Act(_), Status::Running | Status::Paused) => Ok(()),
            (Command::Set(_) | Command::Start | Command::LoadSnapshot(_), _) => Err(Refusal::Late),
            (Command::Act(_), Status::NotStarted) => Err(Refusal::Early),
        }
    }
}
