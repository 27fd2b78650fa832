//! A process the shim watches, in a container on the host's kernel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use berth_runtime::{Console, Container, ExecOptions, Stdio};
use berth_sys::pidfd;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Probe, Watched};
use crate::config::ContainerConfig;
use crate::error::{At, Error, Result};
use crate::exec::{self, ExecRequest};
use crate::paths::Paths;
use crate::shim;

/// Starts it; both its outputs are one pipe.
pub(super) fn start(
    container: &Container,
    paths: &Paths,
    config: &ContainerConfig,
    request: &ExecRequest,
    patience: Duration,
) -> Result<Probe> {
    let root = exec::root_of(container.pid())?;
    let process = exec::process(config, request, root.as_fd())?;
    let process = serde_json::from_value(process).map_err(|source| Error::Damaged {
        path: "process of the health check".into(),
        source,
    })?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe for", "the health check")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at("open", "/dev/null")?;
    let both = write.try_clone().at("prepare", "the health check")?;
    rustix::io::ioctl_fionbio(&read, true).at("prepare", "the health check")?;
    let options = ExecOptions {
        stdio: Stdio::Fds([null, write, both]),
        console: Console::None,
        seccomp_cache: Some(paths.seccomp()),
        // Until the program runs the loop stands still, and stop and kill go unheard.
        patience: Some(patience),
        ..ExecOptions::default()
    };
    let started = container
        .exec(&process, options)
        .map_err(|e| shim::runtime_error(&config.id, e))?;
    let process = Child {
        pidfd: started.pidfd,
        pid: started.pid,
    };
    Ok(Probe {
        process: Box::new(process),
        outputs: vec![read],
    })
}

#[derive(Debug)]
struct Child {
    pidfd: OwnedFd,
    pid: i32,
}

impl Watched for Child {
    fn ended(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn exit_code(&mut self) -> Option<i32> {
        if !pidfd::ended_within(&self.pidfd, Some(Duration::ZERO)).unwrap_or(true) {
            return None;
        }
        Some(pidfd::wait(&self.pidfd).map_or(-1, pidfd::Exit::code))
    }

    fn pid(&self) -> Option<i32> {
        Some(self.pid)
    }

    fn outputs_lag(&self) -> bool {
        false
    }

    /// A shell's children go too. Its pid cannot have a new owner: nobody but us collects it, and we have not yet.
    fn kill(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let _ = pidfd::send_signal(&self.pidfd, libc::SIGKILL);
    }
}
