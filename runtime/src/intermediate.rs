//! An intermediate as its parent sees it, until the process it was cloned for is known.
//!
//! That process is a child of the same parent (`CLONE_PARENT`). An intermediate that dies between cloning it and saying
//! so (out of memory, killed along with the cgroup it has entered) leaves the parent with a child nobody told it of. Alive,
//! that child waits for a word; dead and not collected, it keeps its pid namespace, and with it the container's init, from
//! ever ending (`pid_namespaces(7)`). So both stand in a process group named by the intermediate
//! ([`clone_sibling`](crate::init::join::clone_sibling)), which the child leaves only when told to go on: by the group
//! it is found, killed and collected.

use std::os::fd::OwnedFd;

use berth_sys::pidfd::{self, Exit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::error::{Error, Result, Step, ending};
use crate::sync::{Channel, Message};

/// Dropping it kills and collects whatever of it there is.
#[derive(Debug)]
pub(crate) struct Intermediate {
    pid: Option<Pid>,
    pidfd: OwnedFd,
}

impl Intermediate {
    /// A child just cloned.
    pub(crate) fn new(pid: i32, pidfd: OwnedFd) -> Self {
        Self {
            pid: Pid::from_raw(pid),
            pidfd,
        }
    }

    /// Waits until it has said whom it cloned and has ended; the clone's pid, and its pidfd, now the caller's to wait for.
    /// Blocks, at most as long as the channel is patient. Failure leaves neither of the two behind.
    ///
    /// # Errors
    ///
    /// The step that failed, or how it ended without a word.
    pub(crate) fn hear(mut self, channel: &Channel) -> Result<(i32, OwnedFd)> {
        let heard = if self.may_speak(channel)? {
            channel.hear()?
        } else {
            None
        };
        match heard {
            Some(Message::Init { pid, pidfd }) => {
                pidfd::wait(&self.pidfd).step("wait for", "the intermediate process")?;
                // Nothing is left to take back, and its pid may be another's now.
                self.pid = None;
                Ok((pid, pidfd))
            }
            Some(Message::Failed(failure)) => Err(failure.into()),
            Some(_) => Err(Error::InitDied {
                how: "after speaking out of turn".into(),
            }),
            None => {
                // Before we kill it, so that what is said is how it really ended.
                let _ = pidfd::ended_within(&self.pidfd, channel.patience());
                Err(Error::InitDied {
                    how: ending(self.put_down()),
                })
            }
        }
    }

    /// Whether the channel has or will have something; not so when the intermediate has ended. The end of the stream alone
    /// does not tell: the clone holds the socket open too.
    fn may_speak(&self, channel: &Channel) -> Result<bool> {
        loop {
            let mut fds = [
                PollFd::new(channel, PollFlags::IN),
                PollFd::new(&self.pidfd, PollFlags::IN),
            ];
            let patience = channel.patience().and_then(|p| Timespec::try_from(p).ok());
            match poll(&mut fds, patience.as_ref()) {
                // The channel says how long it waited.
                Ok(0) => return Ok(true),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(true),
                // It may have spoken, then ended, between the two looks of one poll(2).
                Ok(_) => return channel.has_word(),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("wait for", "the intermediate process", e)),
            }
        }
    }

    /// Kills and collects it and what it cloned; how it ended. Once only: afterwards its pid may be another's.
    fn put_down(&mut self) -> std::io::Result<Exit> {
        let Some(pid) = self.pid.take() else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        // The group second, when its maker can clone no more; not yet collected, its number is nobody else's.
        let _ = pidfd::send_signal(&self.pidfd, libc::SIGKILL);
        let _ = pidfd::ended_within(&self.pidfd, None);
        let _ = kill_process_group(pid, Signal::KILL);
        let exit = pidfd::wait(&self.pidfd);
        loop {
            match waitid(WaitId::Pgid(Some(pid)), WaitIdOptions::EXITED) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // ECHILD: no child is left in the group.
                Err(_) => return exit,
            }
        }
    }
}

impl Drop for Intermediate {
    fn drop(&mut self) {
        // The caller has the error that led here.
        let _ = self.put_down();
    }
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code)] // clone3 in a process with threads: the children call what signal-safety(7) allows alone

    use super::*;
    use berth_sys::clone::{Clone3, Forked, clone3, exit_now};
    use std::time::Duration;

    /// An intermediate that does `step` with its end of the channel, which takes no lock and allocates nothing.
    fn intermediate(step: impl Fn(&Channel)) -> (Intermediate, Channel, Pid) {
        let (mut ours, theirs) = Channel::pair().expect("pair");
        // Far more than any step below needs: without a guard it is what ends the test.
        ours.set_patience(Some(Duration::from_secs(20)));
        // SAFETY: the child only sends, clones, waits and exits.
        match unsafe { clone3(Clone3::default()) }.expect("clone") {
            Forked::Child => {
                // Or a clone that is lost would wait for ever for a word from itself.
                drop(ours);
                step(&theirs);
                exit_now(7)
            }
            Forked::Parent { pid, pidfd } => {
                let named = Pid::from_raw(pid).expect("a pid");
                (Intermediate::new(pid, pidfd), ours, named)
            }
        }
    }

    /// As `clone_sibling`, but dies before it says whom it made. The sibling waits to be told to go on.
    fn clone_and_die(channel: &Channel) {
        let _ = rustix::process::setpgid(None, None);
        let flags = u64::from(libc::CLONE_PARENT.unsigned_abs());
        // SAFETY: the clone only waits and exits.
        if let Ok(Forked::Child) = unsafe { clone3(Clone3 { flags, cgroup: None }) } {
            let _ = channel.wait_go();
            exit_now(8)
        }
    }

    fn assert_none_left(group: Pid) {
        let flags = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let left = waitid(WaitId::Pgid(Some(group)), flags);
        assert_eq!(left.err(), Some(rustix::io::Errno::CHILD), "a child is left");
    }

    #[test]
    fn a_clone_nobody_told_of_is_found_and_collected() {
        let (intermediate, channel, group) = intermediate(clone_and_die);
        let error = intermediate.hear(&channel).expect_err("no word came");
        assert!(
            matches!(&error, Error::InitDied { how } if how == "with code 7"),
            "{error}"
        );
        assert_none_left(group);
    }

    #[test]
    fn a_word_that_cannot_be_read_leaves_nobody() {
        let (intermediate, channel, group) = intermediate(|channel| {
            let _ = berth_sys::fdpass::send(channel, b"X", &[]);
            clone_and_die(channel);
        });
        intermediate.hear(&channel).expect_err("not a message");
        assert_none_left(group);
    }

    #[test]
    fn one_that_is_silent_is_killed_when_patience_ends() {
        let (intermediate, mut channel, group) = intermediate(|channel| {
            clone_and_die(channel);
            let _ = channel.wait_go();
        });
        channel.set_patience(Some(Duration::from_millis(50)));
        let error = intermediate.hear(&channel).expect_err("no word came");
        assert!(matches!(&error, Error::Silent { .. }), "{error}");
        assert_none_left(group);
    }
}
