//! What stands between a container and its host: namespaces, or a microVM around them.
//!
//! ```text
//! shim ─ launch ─► Launched: a Sandbox, and the streams of its program
//!          ├─ container.rs   overlay, spec, berth-runtime on the host's kernel
//!          └─ vm.rs          (docs/guest.md) a kernel of its own, the same spec inside
//! ```
//!
//! In the words of the container runtime interface: the sandbox is what isolates, the container what runs in it. Here each
//! sandbox has one container.

pub(crate) mod container;
mod host_probe;
pub(crate) mod vm;

use std::fmt::Debug;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::config::ContainerConfig;
use crate::error::Result;
use crate::exec::ExecRequest;
use crate::paths::Paths;

/// A running container behind its wall, as the shim handles it. One shim owns it; nothing here blocks for longer than a
/// system call takes, but where said.
pub(crate) trait Sandbox: Debug {
    /// The host's process that is, or holds, the container's init: its pid, and its start time, field 22 of
    /// `/proc/PID/stat`.
    fn process(&self) -> (i32, u64);

    /// Readable once the container's init has ended.
    fn ended(&self) -> BorrowedFd<'_>;

    /// The exit code of an init that has ended, 128 + n for signal n. To be called once.
    fn exit_code(&mut self) -> i32;

    /// Sends a signal to init.
    ///
    /// # Errors
    ///
    /// Why it could not be sent, for the user.
    fn signal(&self, signal: i32) -> Result<(), String>;

    /// Freezes every process of the container.
    ///
    /// # Errors
    ///
    /// Why not, for the user.
    fn pause(&self) -> Result<(), String>;

    /// Lets them go on.
    ///
    /// # Errors
    ///
    /// Why not, for the user.
    fn resume(&self) -> Result<(), String>;

    /// Puts new limits (`linux.resources` of the runtime specification) into force.
    ///
    /// # Errors
    ///
    /// Why not, for the user.
    fn update(&mut self, resources: serde_json::Value) -> Result<(), String>;

    /// Sets the size of the terminal whose stream is `terminal`.
    fn resize(&self, terminal: &OwnedFd, rows: u16, columns: u16);

    /// Starts one more process, with no input, that the caller watches: a health check. Blocks until its program runs, for `patience` at
    /// most a step.
    ///
    /// # Errors
    ///
    /// What of it failed, a missing program among it.
    fn probe(
        &self,
        paths: &Paths,
        config: &ContainerConfig,
        request: &ExecRequest,
        patience: Duration,
    ) -> Result<Probe>;

    /// Whether the streams come from further away than the program's end: what it wrote last may follow the word of that.
    fn streams_lag(&self) -> bool;

    /// Whether the kernel killed a process of it for memory.
    fn oom_killed(&self) -> bool;

    /// Kills and removes what is left of it.
    fn delete(self: Box<Self>);
}

/// A process that the shim started and watches.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The process.
    pub(crate) process: Box<dyn Watched>,
    /// What it writes, to be read without blocking.
    pub(crate) outputs: Vec<OwnedFd>,
}

/// How a process of a [`Probe`] is watched. Dropped, it is forgotten: who wants its end sees to it before.
pub(crate) trait Watched: Debug {
    /// Readable when there may be an end.
    fn ended(&self) -> BorrowedFd<'_>;

    /// Its exit code once it has ended.
    fn exit_code(&mut self) -> Option<i32>;

    /// Its pid, where it is a child of ours.
    fn pid(&self) -> Option<i32>;

    /// Whether what it wrote may follow the word of its end.
    fn outputs_lag(&self) -> bool;

    /// Kills it, and its process group.
    fn kill(&mut self);
}

/// A container that was launched.
#[derive(Debug)]
pub(crate) struct Launched {
    /// The container.
    pub(crate) sandbox: Box<dyn Sandbox>,
    /// What its program reads; none with a terminal, or without `-i`.
    pub(crate) stdin: Option<OwnedFd>,
    /// What its program writes; with a terminal, its master or a stream both ways to it.
    pub(crate) stdout: Option<OwnedFd>,
    /// What it writes besides; none with a terminal.
    pub(crate) stderr: Option<OwnedFd>,
}
