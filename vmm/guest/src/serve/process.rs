//! The processes the host knows by number, and the reaping of all others.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use berth_sys::pidfd;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::error::{At, Error, Result};
use crate::protocol::{Ended, Exit, ProcessId};

/// Processes known at once, ended ones whose end nobody has asked for among them. Six descriptors each, at most, of a thousand.
const PROCESSES_MAX: usize = 128;

const SIGKILL: i32 = 9;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Processes {
    known: BTreeMap<ProcessId, Process>,
    last: u32,
}

#[derive(Debug)]
struct Process {
    pid: i32,
    pidfd: OwnedFd,
    ended: Option<Ended>,
}

impl Processes {
    /// Makes room for one of exec: at the bound the oldest that has ended goes untold.
    pub(super) fn make_room(&mut self) -> Result<()> {
        if self.known.len() < PROCESSES_MAX {
            return Ok(());
        }
        let oldest = self
            .known
            .iter()
            .find(|(id, process)| **id != ProcessId::INIT && process.ended.is_some())
            .map(|(id, _)| *id);
        match oldest {
            Some(id) => {
                self.known.remove(&id);
                Ok(())
            }
            None => Err(Error::refused(
                "exec",
                format!("{PROCESSES_MAX} processes run already"),
            )),
        }
    }

    /// The container's own.
    pub(super) fn add_init(&mut self, pid: i32, pidfd: OwnedFd) {
        self.add(ProcessId::INIT, pid, pidfd);
    }

    /// One of exec; its number.
    pub(super) fn add_exec(&mut self, pid: i32, pidfd: OwnedFd) -> ProcessId {
        self.last += 1;
        let id = ProcessId(self.last);
        self.add(id, pid, pidfd);
        id
    }

    fn add(&mut self, id: ProcessId, pid: i32, pidfd: OwnedFd) {
        let process = Process {
            pid,
            pidfd,
            ended: None,
        };
        self.known.insert(id, process);
    }

    pub(super) fn is_known(&self, id: ProcessId) -> bool {
        self.known.contains_key(&id)
    }

    pub(super) fn ids(&self) -> Vec<ProcessId> {
        self.known.keys().copied().collect()
    }

    /// How it ended; none while it lives.
    ///
    /// # Errors
    ///
    /// There is no such process.
    pub(super) fn end_of(&self, id: ProcessId) -> Result<Option<Ended>> {
        Ok(self.find(id)?.ended)
    }

    /// Sends a signal to one. SIGKILL takes its process group along, if it is one of exec: the children of a shell, which it leads.
    pub(super) fn kill(&self, id: ProcessId, signal: i32) -> Result<()> {
        let process = self.find(id)?;
        // Nobody but us collects it, and we have not yet: its pid is its own.
        if signal == SIGKILL
            && id != ProcessId::INIT
            && process.ended.is_none()
            && let Some(leader) = Pid::from_raw(process.pid)
        {
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
        pidfd::send_signal(&process.pidfd, signal).at("signal", format!("process {}", id.0))
    }

    pub(super) fn forget(&mut self, id: ProcessId) {
        self.known.remove(&id);
    }

    /// Collects every child that has ended: the known, which it returns, and the orphans that came to us. `oom_killed` is asked
    /// once for each of the known.
    pub(super) fn reap(&mut self, oom_killed: impl Fn() -> bool) -> Vec<ProcessId> {
        let mut ended = Vec::new();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                // Stopped or continued, which was not asked for.
                (None, None) => continue,
            };
            // Pids are used again; a process that has ended has lost its own.
            let known = self
                .known
                .iter_mut()
                .find(|(_, p)| p.pid == pid && p.ended.is_none());
            if let Some((id, process)) = known {
                let oom_killed = oom_killed();
                process.ended = Some(Ended { exit, oom_killed });
                ended.push(*id);
            }
        }
        ended
    }

    fn find(&self, id: ProcessId) -> Result<&Process> {
        self.known
            .get(&id)
            .ok_or_else(|| Error::refused(format!("process {}", id.0), "there is none of this number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(processes: &mut Processes) -> ProcessId {
        // Never signalled or waited for here.
        let pidfd = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        processes.add_exec(1 << 30, pidfd)
    }

    fn end(processes: &mut Processes, id: ProcessId) {
        let ended = Ended {
            exit: Exit::Code(0),
            oom_killed: false,
        };
        processes.known.get_mut(&id).unwrap().ended = Some(ended);
    }

    #[test]
    fn at_the_bound_the_oldest_untold_end_makes_room_and_the_living_do_not() {
        let mut processes = Processes::default();
        processes.add_init(1 << 30, OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        end(&mut processes, ProcessId::INIT);
        let ids: Vec<_> = (1..PROCESSES_MAX).map(|_| add(&mut processes)).collect();
        let refused = processes.make_room().unwrap_err().to_string();
        assert_eq!(refused, "exec: 128 processes run already");
        end(&mut processes, ids[70]);
        end(&mut processes, ids[30]);
        processes.make_room().unwrap();
        assert!(!processes.is_known(ids[30]) && processes.is_known(ids[70]));
        assert!(processes.is_known(ProcessId::INIT), "the container's end is kept");
        let new = add(&mut processes);
        assert!(!ids.contains(&new), "no number is used twice");
    }
}
