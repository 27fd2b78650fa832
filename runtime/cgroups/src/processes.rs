//! Who is in a cgroup, and killing them all.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::hierarchy::Controller;

/// Longest wait for killed processes to be gone.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);

impl Dir {
    /// Processes directly in this cgroup that this pid namespace can see.
    pub(crate) fn process_ids(&self) -> Result<Vec<i32>> {
        match self.read("cgroup.procs") {
            Ok(text) => Ok(parse_pids(&text)),
            // Removed under our hands (ENODEV, ENOENT), or a threaded v2 cgroup, whose processes its domain lists.
            Err(Error::Read { source, .. })
                if matches!(
                    source.raw_os_error(),
                    Some(libc::ENODEV | libc::ENOENT | libc::EOPNOTSUPP)
                ) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Processes in this cgroup and every one below it.
    fn process_ids_below(&self, into: &mut BTreeSet<i32>) -> Result<()> {
        into.extend(self.process_ids()?);
        for child in self.children()? {
            match self.open_below(&child) {
                Ok(child) => child.process_ids_below(into)?,
                Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Cgroup {
    /// Process ids in the cgroup, in this process's pid namespace, ascending. `recursive` adds the cgroups below.
    pub fn processes(&self, recursive: bool) -> Result<Vec<i32>> {
        let Some(dir) = self.process_dir() else {
            return Ok(Vec::new());
        };
        let mut pids = BTreeSet::new();
        if recursive {
            dir.process_ids_below(&mut pids)?;
        } else {
            pids.extend(dir.process_ids()?);
        }
        Ok(pids.into_iter().collect())
    }

    /// Kills everything in and below the cgroup with SIGKILL and waits (up to 5 s) until it is gone. Works on a frozen
    /// cgroup and leaves it thawed, also after an error.
    pub fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_WAIT_MAX;
        let mut pause = Duration::from_micros(200);
        // `cgroup.kill` (kernel 5.14) is atomic against forks, and wakes the frozen.
        let atomic = self.v1.is_empty()
            && self
                .unified
                .as_ref()
                .is_some_and(|dir| dir.try_write("cgroup.kill", "1").is_ok());
        loop {
            let pids = self.processes(true)?;
            if pids.is_empty() {
                // Also a cgroup frozen while empty is left thawed.
                return self.thaw();
            }
            if Instant::now() >= deadline {
                self.thaw()?;
                return Err(Error::Busy {
                    path: self.display_path(),
                    pids,
                });
            }
            if !atomic {
                self.kill_once()?;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// One pass: freeze, signal all, thaw. Frozen, nobody forks away and no pid is given to somebody else meanwhile.
    fn kill_once(&self) -> Result<()> {
        // One who cannot be frozen (uninterruptible sleep) is signalled all the same; the next pass catches forks.
        let _ = self.freeze_within(Duration::from_millis(100));
        let outcome = self.processes(true).and_then(|pids| {
            let mut failure = Ok(());
            for pid in pids {
                match signal_kill(pid) {
                    Err(source) if source.raw_os_error() != Some(libc::ESRCH) => {
                        failure = Err(Error::Kill {
                            pid,
                            path: self.display_path(),
                            source,
                        });
                    }
                    _ => {}
                }
            }
            failure
        });
        // SIGKILL reaches a task frozen by v1 only once it is thawed: before any error is returned.
        let thawed = self.thaw();
        outcome.and(thawed)
    }

    /// The hierarchy that is asked for processes. Any would do; the freezer's is the one that can hold them still.
    fn process_dir(&self) -> Option<&Dir> {
        self.v1_dir(Controller::Freezer)
            .or(self.v1_dir(Controller::Pids))
            .or(if self.v1.is_empty() {
                self.unified.as_ref()
            } else {
                self.v1.first().map(|entry| &entry.dir)
            })
    }
}

fn signal_kill(pid: i32) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
}

/// The kernel shows a process outside our pid namespace as 0, and `kill(0)` would be our own process group.
fn parse_pids(text: &str) -> Vec<i32> {
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_other_pid_namespaces_are_never_signalled() {
        assert_eq!(parse_pids("0\n12\n0\n-1\nx\n7\n"), [12, 7]);
        assert!(signal_kill(0).is_err());
    }
}
