//! The handle on a container: one method per verb of the specification.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{LinuxResources, Process};

use crate::error::{Error, Result};
use crate::exec::{ExecOptions, ExecProcess};
use crate::id::ContainerId;
use crate::state::{Record, StateRoot, Status};

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
}

/// A container that exists on this host.
#[derive(Debug)]
pub struct Container {
    pub(crate) root: StateRoot,
    pub(crate) id: ContainerId,
    pub(crate) record: Record,
    /// With `start_at_once`: the socket init waits on.
    pub(crate) starter: Option<OwnedFd>,
}

impl Container {
    /// Creates a container from the bundle directory: everything up to the user's program, which waits for
    /// [`Container::start`]. Blocks until init is ready or has failed; failure leaves nothing behind.
    ///
    /// The caller must be single-threaded.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], [`Error::Config`], [`Error::Invalid`], or the step that failed in either process.
    pub fn create(
        root: &StateRoot,
        id: &ContainerId,
        bundle: &Path,
        options: CreateOptions,
    ) -> Result<Created> {
        let _ = (root, id, bundle, options);
        Err(Error::unsupported("create", "not built yet"))
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

    /// What it is doing now, asked of the kernel.
    ///
    /// # Errors
    ///
    /// Reading `/proc` or the freezer failed.
    pub fn status(&self) -> Result<Status> {
        Err(Error::unsupported("status", "not built yet"))
    }

    /// Lets init execute the user's program, then runs the poststart hooks.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless created; [`Error::Exec`] when the program cannot be executed.
    pub fn start(&mut self) -> Result<()> {
        Err(Error::unsupported("start", "not built yet"))
    }

    /// Sends a signal to init, or with `all` to every process of the container's cgroup.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] when it is stopped (but not with `all`).
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        let _ = (signal, all);
        Err(Error::unsupported("kill", "not built yet"))
    }

    /// Removes a stopped container (with `force`, kills it first): cgroup and state, then the poststop hooks.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] when it is not stopped.
    pub fn delete(self, force: bool) -> Result<()> {
        let _ = force;
        Err(Error::unsupported("delete", "not built yet"))
    }

    /// Runs one more process in the container. The caller must be single-threaded.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless running; otherwise as [`Container::create`].
    pub fn exec(&self, process: &Process, options: ExecOptions) -> Result<ExecProcess> {
        let _ = (process, options);
        Err(Error::unsupported("exec", "not built yet"))
    }

    /// Freezes every process of the container.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless running or created.
    pub fn pause(&self) -> Result<()> {
        Err(Error::unsupported("pause", "not built yet"))
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless paused.
    pub fn resume(&self) -> Result<()> {
        Err(Error::unsupported("resume", "not built yet"))
    }

    /// Pids of the container's processes as the host counts them.
    ///
    /// # Errors
    ///
    /// Reading the cgroup failed.
    pub fn processes(&self) -> Result<Vec<i32>> {
        Err(Error::unsupported("processes", "not built yet"))
    }

    /// Changes the limits of a container.
    ///
    /// # Errors
    ///
    /// A value the kernel refuses, naming the file.
    pub fn update(&mut self, resources: &LinuxResources) -> Result<()> {
        let _ = resources;
        Err(Error::unsupported("update", "not built yet"))
    }

    /// The state as the specification and `runc state` print it.
    ///
    /// # Errors
    ///
    /// As [`Container::status`].
    pub fn state(&self) -> Result<serde_json::Value> {
        Err(Error::unsupported("state", "not built yet"))
    }

    /// Waits until init has ended, at most `timeout`; whether it has.
    ///
    /// # Errors
    ///
    /// The pidfd could not be polled.
    pub fn wait_stopped(&self, timeout: Option<Duration>) -> Result<bool> {
        let _ = timeout;
        Err(Error::unsupported("wait", "not built yet"))
    }
}
