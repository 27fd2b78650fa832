//! The process that stays with a container, over restarts too, and owns everything that is the container's while it runs.
//!
//! ```text
//! begin: network ─► files ─► overlay ─► spec ─► runtime create, start ─► record "running" ─► Started
//! serve: one poll(2) over init, streams, clients, name server          (serve.rs)
//! end:   drain ─► runtime delete ─► network ─► record "exited" ─► Exit  (lifecycle.rs)
//! ```
//!
//! Single-threaded; blocks in poll(2) alone.

mod health;
pub(crate) mod lifecycle;
mod log;
pub(crate) mod protocol;
mod serve;

use std::os::fd::{FromRawFd, OwnedFd};

use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::paths::Paths;

/// What the shim is told by whoever spawns it.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) paths: Paths,
    pub(crate) id: ContainerId,
    /// Holds the lock; closing it says the shim is gone.
    pub(crate) _lock: OwnedFd,
    /// The socket of whoever started us.
    pub(crate) starter: OwnedFd,
    /// Streams the starter attaches to: 1 stdin, 2 stdout, 4 stderr.
    pub(crate) streams: u8,
}

/// The shim's main. `args` are those after the program's name: root, state, id, lock, socket, streams.
pub fn main(args: &[std::ffi::OsString]) -> Result<()> {
    let errand = errand(args)?;
    // A session of its own: a terminal that hangs up takes berth along, never the container.
    let _ = rustix::process::setsid();
    serve::run(errand)
}

fn errand(args: &[std::ffi::OsString]) -> Result<Errand> {
    let bad = |why: &str| Error::Invalid {
        what: "arguments of berth-shim".into(),
        why: why.into(),
    };
    let [root, state, id, lock, socket, streams] = args else {
        return Err(bad("it is started by berth alone"));
    };
    let text = |arg: &std::ffi::OsString| arg.to_str().map(str::to_owned).ok_or_else(|| bad("not UTF-8"));
    Ok(Errand {
        paths: Paths {
            root: root.into(),
            state: state.into(),
        },
        id: text(id)?.parse().map_err(|_| bad("no container id"))?,
        _lock: inherited(&text(lock)?).ok_or_else(|| bad("no lock"))?,
        starter: inherited(&text(socket)?).ok_or_else(|| bad("no socket"))?,
        streams: text(streams)?.parse().map_err(|_| bad("no streams"))?,
    })
}

#[allow(unsafe_code)] // a descriptor that came by number has no owner yet
fn inherited(number: &str) -> Option<OwnedFd> {
    let fd = number.parse::<i32>().ok().filter(|fd| *fd > 2)?;
    berth_sys::fds::set_cloexec(fd, true).ok()?;
    // SAFETY: the call above proved that it is open; berth passes each number once and nothing here has opened any yet.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The runtime's name of a container.
pub(crate) fn runtime_id(id: &ContainerId) -> Result<berth_runtime::ContainerId> {
    berth_runtime::ContainerId::new(id.as_str()).map_err(|e| runtime_error(id, e))
}

/// The runtime's state root.
pub(crate) fn runtime_root(paths: &Paths) -> berth_runtime::StateRoot {
    berth_runtime::StateRoot::new(paths.runtime_root())
}

/// A failure of the runtime; of the program itself it is told apart for the exit code.
pub(crate) fn runtime_error(id: &ContainerId, e: berth_runtime::Error) -> Error {
    match e {
        berth_runtime::Error::Exec { program, cause, .. } => match cause.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Error::CommandNotFound { program },
            _ => Error::CommandNotExecutable {
                program,
                why: cause.to_string(),
            },
        },
        other => Error::Runtime {
            id: id.short().to_owned(),
            source: Box::new(other),
        },
    }
}

/// Removes what the runtime still knows of a container, killing what is left of it.
pub(crate) fn forget(paths: &Paths, id: &ContainerId) -> Result<()> {
    match berth_runtime::Container::load(&runtime_root(paths), &runtime_id(id)?) {
        Ok(container) => container.delete(true).map_err(|e| runtime_error(id, e)),
        Err(berth_runtime::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(runtime_error(id, e)),
    }
}
