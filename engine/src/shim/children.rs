//! Children of the shim that nobody waits for.
//!
//! What daemonizes in a container without a pid namespace of its own, or in a hook, becomes the shim's child rather than the
//! host's PID 1's: it belongs to the container and is collected when it ends, whatever PID 1 does about orphans. A
//! zombie left in a container's pid namespace would keep its init from ending (`pid_namespaces(7)`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, WaitOptions, waitpid};

/// The shim as the reaper of orphans below it.
#[derive(Debug)]
pub(super) struct Orphans {
    /// Reads SIGCHLD.
    signals: OwnedFd,
    /// The last sweep could not see everything.
    unfinished: bool,
}

impl Orphans {
    /// From now on orphans below this process become its children; `PR_SET_CHILD_SUBREAPER` of prctl(2). Blocks SIGCHLD and no
    /// other signal.
    pub(super) fn adopt() -> std::io::Result<Orphans> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let signals = berth_sys::signals::block_only(libc::SIGCHLD)?;
        // Whoever ended before now has signalled in vain.
        Ok(Orphans {
            signals,
            unfinished: true,
        })
    }

    /// Readable when some child has ended since the last sweep.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// Whether a sweep is wanted although the descriptor is silent.
    pub(super) fn unfinished(&self) -> bool {
        self.unfinished
    }

    /// Collects every child that has ended, but for those in `known`, whose owners wait for them. Does not block.
    pub(super) fn sweep(&mut self, known: &[i32]) {
        self.unfinished = false;
        while let Ok(Some(_)) = berth_sys::signals::next(&self.signals) {}
        while let Ok(Some(pid)) = berth_sys::pidfd::ended_child() {
            if known.contains(&pid) {
                // It hides those behind it. Its owner is about to collect it: its pidfd wakes the loop as well.
                self.unfinished = true;
                return;
            }
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
    }
}
