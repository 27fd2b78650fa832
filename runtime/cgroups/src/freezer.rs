//! Holding every process of a cgroup still.

use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::hierarchy::Controller;

/// Longest wait for the freezer. A task in uninterruptible sleep can keep it waiting for ever.
const FREEZE_WAIT_MAX: Duration = Duration::from_secs(2);

impl Cgroup {
    /// Freezes the cgroup and waits until all of it stands still. On failure it is thawed again.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_within(FREEZE_WAIT_MAX)
    }

    /// Lets the cgroup run again. No error if it has no freezer: then it cannot be frozen either.
    pub fn thaw(&self) -> Result<()> {
        if let Some(dir) = self.v1_dir(Controller::Freezer) {
            return ignore_gone(dir.write("freezer.state", "THAWED"));
        }
        match &self.unified {
            Some(dir) if self.v1.is_empty() => ignore_gone(dir.write("cgroup.freeze", "0")),
            _ => Ok(()),
        }
    }

    /// Whether the cgroup is frozen, by itself or through a parent.
    pub fn is_frozen(&self) -> Result<bool> {
        if let Some(dir) = self.v1_dir(Controller::Freezer) {
            return Ok(dir.read("freezer.state")? == "FROZEN");
        }
        match &self.unified {
            Some(dir) if self.v1.is_empty() => {
                Ok(dir.read("cgroup.events")?.lines().any(|line| line == "frozen 1"))
            }
            _ => Ok(false),
        }
    }

    pub(crate) fn freeze_within(&self, wait_max: Duration) -> Result<()> {
        let result = self.freeze_and_wait(wait_max);
        if result.is_err() {
            // The error that counts is the first; a cgroup half frozen would hang whoever waits for it.
            let _ = self.thaw();
        }
        result
    }

    fn freeze_and_wait(&self, wait_max: Duration) -> Result<()> {
        let (dir, file, value) = match (self.v1_dir(Controller::Freezer), &self.unified) {
            (Some(dir), _) => (dir, "freezer.state", "FROZEN"),
            (None, Some(dir)) if self.v1.is_empty() => (dir, "cgroup.freeze", "1"),
            _ => {
                return Err(Error::NoController {
                    setting: "freezer",
                    controller: "freezer",
                    path: self.display_path(),
                });
            }
        };
        let deadline = Instant::now() + wait_max;
        let mut pause = Duration::from_micros(50);
        let mut tries: u32 = 0;
        dir.write(file, value)?;
        loop {
            if self.is_frozen()? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let waited_ms = u64::try_from(wait_max.as_millis()).unwrap_or(u64::MAX);
                return Err(Error::Freeze {
                    path: dir.path().to_owned(),
                    waited_ms,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
            tries += 1;
            if file == "freezer.state" {
                // v1 can stay FREEZING when a task forks as it is frozen: thawing for a moment lets the fork finish.
                if tries.is_multiple_of(16) {
                    dir.write(file, "THAWED")?;
                }
                dir.write(file, value)?;
            }
        }
    }
}

/// A cgroup that vanished needs no thawing.
fn ignore_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Write { source, .. })
            if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) =>
        {
            Ok(())
        }
        other => other,
    }
}
