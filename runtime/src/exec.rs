//! One more process in a running container: options and result of `exec`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use berth_cgroups::{Cgroup, CgroupPath};
use berth_sys::clone::Forked;
use oci_spec::runtime::{LinuxNamespaceType, Process};

use crate::bundle::Bundle;
use crate::container::{Console, Container, Stdio};
use crate::create;
use crate::error::{Error, Result, Step, ending};
use crate::init::exec::Exec;
use crate::intermediate::Intermediate;
use crate::process::ProcessSpec;
use crate::seccomp::Filter;
use crate::state::{Status, Verb};
use crate::sync::{Channel, Message};

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
    /// Longest wait for each step of the process before its program runs: it can be seen, and stopped, from inside the
    /// container by then. None waits for ever.
    pub patience: Option<Duration>,
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
    /// What of the process was left out, and why.
    pub warnings: Vec<String>,
}

pub(crate) fn exec(container: &Container, process: &Process, options: ExecOptions) -> Result<ExecProcess> {
    let status = container.status()?;
    let paused_is_fine = status == Status::Paused && options.ignore_paused;
    if !status.allows(Verb::Exec) && status != Status::Created && !paused_is_fine {
        return Err(container.wrong(Verb::Exec, status));
    }
    let mut spec = ProcessSpec::check(process, "process")?;
    // A process of exec has no file with inheritable bits in mind; left in, they come back through one (CVE-2022-29162).
    spec.capabilities.inheritable &= spec.capabilities.ambient;
    let joins_user = container.record.namespaces & crate::validate::bit(LinuxNamespaceType::User) != 0;
    let lacking = if joins_user {
        None
    } else {
        crate::capabilities::lacking(process)
    };
    let warnings: Vec<String> = lacking.into_iter().collect();
    create::check_console(spec.terminal, &options.console)?;
    let console_socket = create::connect_console(&options.console)?;
    // The container's filter and personality hold for all its processes; config.json is where they are written.
    let config = Bundle::open(&container.record.bundle)?;
    let linux = config.spec.linux().as_ref();
    let seccomp = linux.and_then(|l| l.seccomp().as_ref());
    let personality = linux.map(crate::validate::personality).transpose()?.flatten();
    let filter = seccomp
        .map(|s| Filter::compile(s, options.seccomp_cache.as_deref()))
        .transpose()?;
    let listener = create::connect_listener(seccomp, filter.as_ref())?;
    let init = container
        .init()?
        .ok_or_else(|| container.wrong(Verb::Exec, Status::Stopped))?;
    let hierarchy = container.hierarchy()?;
    let entry = match &options.cgroup {
        Some(below) => {
            let path = format!(
                "{}/{}",
                container.record.cgroup.relative(),
                below.trim_matches('/')
            );
            Cgroup::open(hierarchy, &CgroupPath::parse(path)?)?.entry()?
        }
        None => Cgroup::open(hierarchy, &container.record.cgroup)?.entry_beside(container.record.pid)?,
    };
    let streams = match options.stdio {
        Stdio::Inherit => None,
        Stdio::Fds(fds) => Some(crate::init::stdio::lift(fds)?),
    };
    let (mut parent, child) = Channel::pair()?;
    let steps = Exec {
        id: &container.id,
        record: &container.record,
        process: &spec,
        personality,
        filter: filter.as_ref(),
        seccomp,
        listener: listener.as_ref().map(AsFd::as_fd),
        entry: &entry,
        init: init.as_fd(),
        streams: streams.as_ref(),
        preserve_fds: options.preserve_fds,
    };
    let intermediate = match create::clone_first(0, None)? {
        Forked::Parent { pid, pidfd } => Intermediate::new(pid, pidfd),
        Forked::Child => {
            drop(parent);
            crate::init::exec::run(&steps, &child)
        }
    };
    drop(child);
    parent.set_patience(options.patience);
    let (pid, pidfd) = intermediate.hear(&parent)?;
    let result = parent.go(pid).and_then(|()| {
        finish(
            &parent,
            pid,
            &pidfd,
            console_socket.as_ref(),
            options.pid_file.as_deref(),
        )
    });
    match result {
        Ok(console) => Ok(ExecProcess {
            pid,
            pidfd,
            console,
            warnings,
        }),
        Err(error) => {
            let _ = berth_sys::pidfd::send_signal(&pidfd, libc::SIGKILL);
            let _ = berth_sys::pidfd::wait(&pidfd);
            Err(error)
        }
    }
}

/// From the first word of the process to its execve.
fn finish(
    channel: &Channel,
    pid: i32,
    process: &OwnedFd,
    socket: Option<&OwnedFd>,
    pid_file: Option<&std::path::Path>,
) -> Result<Option<OwnedFd>> {
    let mut console = None;
    loop {
        match channel.hear()? {
            Some(Message::Console(master)) => console = Some(master),
            Some(Message::Pid) => channel.go(pid)?,
            Some(Message::Ready) => break,
            Some(Message::Failed(failure)) => return Err(failure.into()),
            Some(_) => return Err(out_of_turn()),
            None => {
                return Err(Error::InitDied {
                    how: ending(berth_sys::pidfd::wait(process)),
                });
            }
        }
    }
    // Everything the caller waits for is there before the program's first instruction.
    if let (Some(socket), Some(master)) = (socket, console.take_if(|_| socket.is_some())) {
        berth_sys::fdpass::send(socket, b"/dev/ptmx", &[master.as_fd()])
            .step("send", "the terminal to the console socket")?;
    }
    if let Some(path) = pid_file {
        create::write_pid_file(path, pid)?;
    }
    let executed = channel.go(pid).and_then(|()| match channel.hear()? {
        // execve closed its end.
        None => Ok(()),
        Some(Message::Failed(failure)) => Err(failure.into()),
        Some(_) => Err(out_of_turn()),
    });
    if let (Err(_), Some(path)) = (&executed, pid_file) {
        // It names a process that is about to be none.
        let _ = std::fs::remove_file(path);
    }
    executed.map(|()| console)
}

fn out_of_turn() -> Error {
    Error::InitDied {
        how: "after speaking out of turn".into(),
    }
}
