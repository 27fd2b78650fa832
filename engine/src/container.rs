//! What a container is doing: the record `state.json` and the one table that says what may follow what.
//!
//! ```text
//! created ─ start ─► running ◄─ pause/unpause ─► paused
//!    ▲                 │ └── exit, policy says again ──► restarting ─► running
//!    │                 └─── exit ──► exited ── start ─► running
//!    └ any not running ── remove ─► removing (─► dead when it cannot be finished)
//! ```
//!
//! While a shim lives (its lock on `STATE/containers/<id>/shim.lock` is held) it alone writes the record; otherwise
//! whoever holds the flock on the directory `ROOT/containers/<id>` does.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::network::{EndpointStatus, PortMapping};

/// docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // drawn above
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Dead,
    Removing,
}

/// What someone wants of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each is the verb of that name
pub enum Verb {
    Start,
    Stop,
    Kill,
    Pause,
    Unpause,
    Exec,
    Attach,
    Remove,
}

impl Status {
    /// Whether `verb` fits. The only judge.
    pub fn allows(self, verb: Verb) -> bool {
        use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        match verb {
            Verb::Start => matches!(self, Created | Exited),
            Verb::Stop => !matches!(self, Removing | Dead),
            Verb::Kill => matches!(self, Running | Paused | Restarting),
            Verb::Attach | Verb::Pause | Verb::Exec => self == Running,
            Verb::Unpause => self == Paused,
            Verb::Remove => matches!(self, Created | Exited | Dead | Removing),
        }
    }

    /// Whether a shim must be alive for this to be true.
    pub fn needs_shim(self) -> bool {
        matches!(self, Status::Running | Status::Paused | Status::Restarting)
    }

    /// docker's lower-case word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Dead => "dead",
            Status::Removing => "removing",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Status {
    type Err = crate::flags::InvalidFlag;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        [Created, Running, Paused, Restarting, Exited, Dead, Removing]
            .into_iter()
            .find(|status| status.name() == s)
            .ok_or_else(|| crate::flags::InvalidFlag::new("status", s, "no such status"))
    }
}

/// One health check's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 is healthy; -1 means it ran out of time.
    pub exit_code: i32,
    /// The first 4096 bytes it wrote.
    pub output: String,
}

/// How well a container with a health check is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last five outcomes, oldest first.
    pub log: Vec<HealthResult>,
}

/// The record `ROOT/containers/<id>/state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What it is doing.
    pub status: Status,
    /// Init's pid as the host counts it; 0 when not running.
    pub pid: i32,
    /// Init's start time, field 22 of `/proc/PID/stat`, so that a reused pid is never signalled.
    pub pid_start: u64,
    /// The shim's pid; 0 when there is none.
    pub shim_pid: i32,
    /// Its start time, as init's.
    pub shim_start: u64,
    /// Exit code of the last run.
    pub exit_code: i32,
    /// The kernel killed a process of it for memory.
    pub oom_killed: bool,
    /// Why the last start failed; empty when it did not.
    pub error: String,
    /// When it last started.
    pub started: Option<Timestamp>,
    /// When it last ended.
    pub finished: Option<Timestamp>,
    /// Restarts by the policy since the user's last start.
    pub restart_count: u32,
    /// The user stopped it; `unless-stopped` stays down.
    pub stopped_by_user: bool,
    /// Its health, when it has a check.
    pub health: Option<Health>,
    /// Its place on its networks while it runs.
    pub endpoints: Vec<EndpointStatus>,
    /// Its published ports while it runs.
    pub ports: Vec<PortMapping>,
}

impl State {
    /// Reads the record; none when there is none yet or a power cut left it empty.
    pub fn load(path: &Path) -> std::io::Result<Option<State>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_run_is_started_or_removed() {
        for status in [Status::Running, Status::Paused, Status::Restarting] {
            assert!(!status.allows(Verb::Start) && !status.allows(Verb::Remove) && status.needs_shim());
        }
        assert!(Status::Exited.allows(Verb::Start) && Status::Created.allows(Verb::Start));
        assert!(!Status::Paused.allows(Verb::Exec));
        assert!(!Status::Removing.allows(Verb::Start));
    }

    #[test]
    fn a_record_cut_short_reads_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(State::load(&path).unwrap(), None);
        std::fs::write(&path, "{\"status\":\"run").unwrap();
        assert_eq!(State::load(&path).unwrap(), None);
    }
}
