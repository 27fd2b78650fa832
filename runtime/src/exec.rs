//! One more process in a running container: options and result of `exec`.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::container::{Console, Stdio};

/// What `exec` needs to know beyond the process.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// Standard streams, unless there is a terminal.
    pub stdio: Stdio,
    /// The terminal's master.
    pub console: Console,
    /// Where to write the pid.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// Also in a paused container; the process then waits for the thaw.
    pub ignore_paused: bool,
    /// A cgroup below the container's own to put the process in.
    pub cgroup: Option<String>,
    /// Directory of compiled seccomp filters.
    pub seccomp_cache: Option<PathBuf>,
}

/// A process started by exec.
#[derive(Debug)]
pub struct ExecProcess {
    /// Its pid as the host counts it.
    pub pid: i32,
    /// Names it; it is the caller's child and the caller's to wait for.
    pub pidfd: OwnedFd,
    /// The terminal's master with [`Console::Receive`].
    pub console: Option<OwnedFd>,
}
