//! `stop`, `kill`, `restart`, `pause`, `unpause`, `wait`.
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::flags::Signal;
use crate::id::ContainerId;

/// How to stop; none takes the container's own settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopOptions {
    /// Instead of the container's stop signal.
    pub signal: Option<Signal>,
    /// Seconds to wait before SIGKILL; negative waits for ever.
    pub timeout: Option<i64>,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// Not running; at once if it is not.
    #[default]
    NotRunning,
    /// The next end.
    NextExit,
    /// Gone.
    Removed,
}

fn later<T>(what: &str) -> Result<T> {
    Err(Error::Unsupported {
        what: what.into(),
        why: "not built yet".into(),
    })
}

impl Engine {
    /// Asks it to end, then makes it. A container that does not run is fine.
    pub fn stop(&self, _id: &ContainerId, _options: &StopOptions) -> Result<()> {
        later("stop")
    }
    /// Sends a signal to its init.
    pub fn kill(&self, _id: &ContainerId, _signal: Signal) -> Result<()> {
        later("kill")
    }
    /// Stop, then start.
    pub fn restart(&self, _id: &ContainerId, _options: &StopOptions) -> Result<()> {
        later("restart")
    }
    /// Freezes all its processes.
    pub fn pause(&self, _id: &ContainerId) -> Result<()> {
        later("pause")
    }
    /// Lets them go on.
    pub fn unpause(&self, _id: &ContainerId) -> Result<()> {
        later("unpause")
    }
    /// Blocks until the condition holds; its exit code.
    pub fn wait(&self, _id: &ContainerId, _condition: WaitCondition) -> Result<i32> {
        later("wait")
    }
}
