//! The handle on a container: one method per verb of the specification.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use berth_cgroups::{Cgroup, Hierarchy};
use berth_sys::pidfd;
use oci_spec::runtime::{LinuxResources, Process};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, Step};
use crate::exec::{ExecOptions, ExecProcess};
use crate::hooks;
use crate::id::ContainerId;
use crate::resources;
use crate::state::{Record, StateRoot, Status, Verb};
use crate::sync::{Channel, Message};

/// Where the process's standard streams come from when it has no terminal.
#[derive(Debug, Default)]
pub enum Stdio {
    /// The caller's own.
    #[default]
    Inherit,
    /// These three, in order.
    Fds([OwnedFd; 3]),
}

/// Where the master of the process's terminal goes. Needed if and only if `process.terminal` is set.
#[derive(Debug, Default)]
pub enum Console {
    /// No terminal is asked for.
    #[default]
    None,
    /// Connect to this Unix socket and send it there, as runc's `--console-socket`.
    Socket(PathBuf),
    /// Hand it to the caller.
    Receive,
}

/// What `create` needs to know beyond the bundle.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// Standard streams, unless there is a terminal.
    pub stdio: Stdio,
    /// The terminal's master.
    pub console: Console,
    /// Where to write init's pid, in decimal, before create returns.
    pub pid_file: Option<PathBuf>,
    /// Use `MS_MOVE` and chroot instead of pivot_root, for a rootfs on a ramdisk. Weaker.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// Directory of compiled seccomp filters; without it each create compiles.
    pub seccomp_cache: Option<PathBuf>,
    /// The caller starts the container at once and nobody else will: saves the start FIFO.
    pub start_at_once: bool,
    /// Longest wait for each step of init, in create and in a [`Container::start`] at once: where it joins others' pid
    /// namespace they can see and stop it. None waits for ever.
    pub patience: Option<Duration>,
}

/// A created container, as create returns it.
#[derive(Debug)]
pub struct Created {
    /// The handle.
    pub container: Container,
    /// The terminal's master with [`Console::Receive`].
    pub console: Option<OwnedFd>,
    /// Names init; it is the caller's child and the caller's to wait for.
    pub init: OwnedFd,
    /// What of the configuration was left out, and why.
    pub warnings: Vec<String>,
}

/// A container that exists on this host.
#[derive(Debug)]
pub struct Container {
    pub(crate) root: StateRoot,
    pub(crate) id: ContainerId,
    pub(crate) record: Record,
    /// With `start_at_once`: the socket init waits on.
    pub(crate) starter: Option<Channel>,
    /// The host's hierarchies, looked for once.
    pub(crate) hierarchy: OnceLock<Hierarchy>,
}

impl Container {
    /// Creates a container from the bundle directory: everything up to the user's program, which waits for
    /// [`Container::start`]. Blocks until init is ready or has failed; failure leaves nothing behind.
    ///
    /// The caller must be single-threaded and sealed (CVE-2019-5736: `berth_sys::reexec::seal`).
    ///
    /// # Errors
    ///
    /// [`Error::NotSealed`], [`Error::Exists`], [`Error::Config`], [`Error::Invalid`], [`Error::Silent`], or the step that
    /// failed in either process.
    pub fn create(
        root: &StateRoot,
        id: &ContainerId,
        bundle: &Path,
        options: CreateOptions,
    ) -> Result<Created> {
        crate::create::create(root, id, bundle, options)
    }

    /// Opens an existing container.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Io`] when its state cannot be read.
    pub fn load(root: &StateRoot, id: &ContainerId) -> Result<Self> {
        let record = root.load(id)?;
        Ok(Self {
            root: root.clone(),
            id: id.clone(),
            record,
            starter: None,
            hierarchy: OnceLock::new(),
        })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Init's pid as the host counts it; 0 while creating.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.record.pid
    }

    /// What is kept of it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What it is doing now, asked of the kernel.
    ///
    /// # Errors
    ///
    /// Reading `/proc` or the freezer failed.
    pub fn status(&self) -> Result<Status> {
        if self.record.pid == 0 {
            return Ok(Status::Creating);
        }
        if self.init()?.is_none() {
            return Ok(Status::Stopped);
        }
        if self.record.fifo && self.root.hidden_fifo(&self.id).exists() {
            return Ok(Status::Creating);
        }
        if self
            .cgroup()?
            .is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false))
        {
            return Ok(Status::Paused);
        }
        if self.record.fifo && self.root.fifo(&self.id).exists() {
            return Ok(Status::Created);
        }
        Ok(Status::Running)
    }

    /// Init, if it lives and is still the process create made.
    pub(crate) fn init(&self) -> Result<Option<OwnedFd>> {
        pidfd::open_same(self.record.pid, self.record.start_time)
            .step("open", format!("process {}", self.record.pid))
    }

    /// The container's cgroup; `None` when it is gone from every hierarchy.
    ///
    /// # Errors
    ///
    /// The host has no cgroups at all.
    pub fn cgroup(&self) -> Result<Option<Cgroup>> {
        Ok(Cgroup::open(self.hierarchy()?, &self.record.cgroup).ok())
    }

    pub(crate) fn hierarchy(&self) -> Result<&Hierarchy> {
        if let Some(known) = self.hierarchy.get() {
            return Ok(known);
        }
        let found = Hierarchy::detect()?;
        Ok(self.hierarchy.get_or_init(|| found))
    }

    pub(crate) fn wrong(&self, verb: Verb, status: Status) -> Error {
        Error::Wrong {
            verb,
            id: self.id.to_string(),
            status,
        }
    }

    fn require(&self, verb: Verb) -> Result<Status> {
        let status = self.status()?;
        if status.allows(verb) {
            Ok(status)
        } else {
            Err(self.wrong(verb, status))
        }
    }

    fn require_cgroup(&self) -> Result<Cgroup> {
        self.cgroup()?.ok_or_else(|| {
            let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
            Error::io("open", format!("cgroup {}", self.record.cgroup.relative()), gone)
        })
    }

    /// Lets init execute the user's program, then runs the poststart hooks.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless created; [`Error::Silent`] or [`Error::Exec`] when the program cannot be executed and this process
    /// created the container with `start_at_once`.
    pub fn start(&mut self) -> Result<()> {
        match self.starter.take() {
            Some(channel) => start_by_word(&channel, self.record.pid)?,
            None => {
                self.require(Verb::Start)?;
                start_by_fifo(&self.root.fifo(&self.id)).map_err(|e| match e {
                    // Between the check and here init died or another start was quicker.
                    Error::Io { ref source, .. } if source.raw_os_error() == Some(libc::ENXIO) => {
                        self.wrong(Verb::Start, Status::Stopped)
                    }
                    other => other,
                })?;
            }
        }
        if !self.record.poststart.is_empty() {
            let state = self.record.for_hooks(Status::Running, self.record.pid);
            hooks::run(
                "poststart",
                &self.record.poststart,
                &state,
                Some(&self.record.bundle),
            )?;
        }
        Ok(())
    }

    /// Sends a signal to init, or with `all` to every process of the container's cgroup.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] when it is stopped (but not with `all`).
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        if all {
            return self.kill_all(signal);
        }
        let Some(init) = self.init()? else {
            return Err(self.wrong(Verb::Kill, Status::Stopped));
        };
        pidfd::send_signal(&init, signal).step("signal", format!("process {}", self.record.pid))?;
        // On v1 a frozen process does not even die (the v2 freezer lets SIGKILL through).
        if signal == libc::SIGKILL
            && let Some(cgroup) = self.cgroup()?
        {
            cgroup.thaw()?;
        }
        Ok(())
    }

    fn kill_all(&self, signal: i32) -> Result<()> {
        let Some(cgroup) = self.cgroup()? else {
            return Ok(());
        };
        if signal == libc::SIGKILL {
            return Ok(cgroup.kill()?);
        }
        for pid in cgroup.processes(true)? {
            let Some(named) = rustix::process::Pid::from_raw(pid) else {
                continue;
            };
            let Ok(fd) = rustix::process::pidfd_open(named, rustix::process::PidfdFlags::empty()) else {
                continue;
            };
            // Opened first, listed again second: a reused pid is not in the cgroup any more.
            if cgroup.processes(true)?.contains(&pid) {
                let _ = pidfd::send_signal(&fd, signal);
            }
        }
        Ok(())
    }

    /// Removes a stopped container (with `force`, kills it first): cgroup and state, then the poststop hooks. Returns a sentence
    /// for each of those that failed.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] when it is not stopped.
    pub fn delete(self, force: bool) -> Result<Vec<String>> {
        let status = self.status()?;
        let verb = if force { Verb::ForceDelete } else { Verb::Delete };
        // As runc: what was created and never started goes without force.
        if !status.allows(verb) && status != Status::Created {
            return Err(self.wrong(verb, status));
        }
        if let Some(init) = self.init()? {
            pidfd::send_signal(&init, libc::SIGKILL).step("kill", format!("process {}", self.record.pid))?;
            if let Some(cgroup) = self.cgroup()? {
                cgroup.thaw()?;
            }
            pidfd::ended_within(&init, Some(KILL_WAIT_MAX))
                .step("wait for", format!("process {}", self.record.pid))?;
        }
        if let Some(cgroup) = self.cgroup()? {
            // Without a pid namespace of its own, or with one joined, others may outlive init.
            if cgroup.processes(true).is_ok_and(|left| !left.is_empty()) {
                cgroup.kill()?;
            }
            cgroup.remove()?;
        }
        self.hierarchy()?.remove_made_parents(&self.record.cgroup);
        self.root.release(&self.id)?;
        if self.record.poststop.is_empty() {
            return Ok(Vec::new());
        }
        Ok(hooks::run_all(
            "poststop",
            &self.record.poststop,
            &self.record.for_hooks(Status::Stopped, 0),
            Some(&self.record.bundle),
        ))
    }

    /// Runs one more process in the container. The caller must be single-threaded and sealed, as for [`Container::create`].
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless running; otherwise as [`Container::create`].
    pub fn exec(&self, process: &Process, options: ExecOptions) -> Result<ExecProcess> {
        crate::exec::exec(self, process, options)
    }

    /// Freezes every process of the container.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless running or created.
    pub fn pause(&self) -> Result<()> {
        self.require(Verb::Pause)?;
        Ok(self.require_cgroup()?.freeze()?)
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless paused.
    pub fn resume(&self) -> Result<()> {
        self.require(Verb::Resume)?;
        Ok(self.require_cgroup()?.thaw()?)
    }

    /// Pids of the container's processes as the host counts them.
    ///
    /// # Errors
    ///
    /// Reading the cgroup failed.
    pub fn processes(&self) -> Result<Vec<i32>> {
        match self.cgroup()? {
            Some(cgroup) => Ok(cgroup.processes(true)?),
            None => Ok(Vec::new()),
        }
    }

    /// Changes the limits of a container.
    ///
    /// # Errors
    ///
    /// A value the kernel refuses, naming the file.
    pub fn update(&mut self, resources: &LinuxResources) -> Result<()> {
        self.require(Verb::Update)?;
        Ok(self
            .require_cgroup()?
            .apply(&resources::with_default_devices(resources))?)
    }

    /// The state as the specification and `runc state` print it.
    ///
    /// # Errors
    ///
    /// As [`Container::status`].
    pub fn state(&self) -> Result<serde_json::Value> {
        let status = self.status()?;
        let pid = if status == Status::Stopped {
            0
        } else {
            self.record.pid
        };
        Ok(serde_json::json!({
            "ociVersion": self.record.oci_version,
            "id": self.record.id,
            "pid": pid,
            "status": status,
            "bundle": self.record.bundle,
            "rootfs": self.record.rootfs,
            "created": self.record.created,
            "annotations": self.record.annotations,
            "owner": if self.record.owner == 0 { String::new() } else { self.record.owner.to_string() },
        }))
    }

    /// Waits until init has ended, at most `timeout`; whether it has.
    ///
    /// # Errors
    ///
    /// The pidfd could not be polled.
    pub fn wait_stopped(&self, timeout: Option<Duration>) -> Result<bool> {
        match self.init()? {
            Some(init) => {
                pidfd::ended_within(&init, timeout).step("wait for", format!("process {}", self.record.pid))
            }
            None => Ok(true),
        }
    }
}

/// Longest wait for a killed init. It can stay in uninterruptible sleep on a dead file server for ever.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

fn start_by_word(channel: &Channel, pid: i32) -> Result<()> {
    channel.go(pid)?;
    match channel.hear()? {
        None => Ok(()),
        Some(Message::Failed(failure)) => Err(failure.into()),
        Some(_) => Err(Error::InitDied {
            how: "after speaking out of turn".into(),
        }),
    }
}

/// Removes the name first: of two starts only one finds it.
fn start_by_fifo(path: &Path) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Not blocking: without a reader init is dead, and the open says ENXIO.
    let fifo = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::path("open", path, e))?;
    std::fs::remove_file(path).map_err(|e| Error::path("remove", path, e))?;
    rustix::io::write(&fifo, b"0")
        .map(drop)
        .map_err(|e| Error::path("write", path, e))
}
