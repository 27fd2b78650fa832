//! The process that stays with a container, over restarts too, and owns everything that is the container's while it runs.
//!
//! ```text
//! begin: network ─► files ─► overlay ─► spec ─► runtime create, start ─► record "running" ─► Started
//! serve: one poll(2) over init, streams, clients, name server          (serve.rs, serve/)
//! end:   drain ─► runtime delete ─► network ─► record "exited" ─► Exit  (lifecycle.rs)
//! after: idle networks are closed, a second later                       (network::linger)
//! ```
//!
//! Single-threaded; blocks in poll(2) alone.

mod children;
mod health;
pub(crate) mod lifecycle;
mod log;
pub(crate) mod protocol;
mod serve;
pub(crate) mod shm;

use std::os::fd::OwnedFd;

use crate::error::{At, Error, Result};
use crate::id::ContainerId;
use crate::network;
use crate::paths::Paths;
use crate::reconcile::network_paths;

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

/// The shim's main. `args` are those after the program's name: root, state, id, streams. Standard input is the lock,
/// standard output the starter's socket; both are /dev/null from then on.
pub fn main(args: &[std::ffi::OsString]) -> Result<()> {
    let errand = errand(args)?;
    // A session of its own: a terminal that hangs up takes berth along, never the container.
    let _ = rustix::process::setsid();
    let networks = network_paths(&errand.paths);
    let outcome = serve::run(errand);
    // The container is history and its lock free; what is left are links that the kernel takes its time over. Nobody hears
    // a failure; the next command that settles anything meets it again.
    let _ = network::linger(&networks);
    outcome
}

fn errand(args: &[std::ffi::OsString]) -> Result<Errand> {
    let bad = |why: &str| Error::Invalid {
        what: "arguments of berth-shim".into(),
        why: why.into(),
    };
    let [root, state, id, streams] = args else {
        return Err(bad("it is started by berth alone"));
    };
    let text = |arg: &std::ffi::OsString| arg.to_str().map(str::to_owned).ok_or_else(|| bad("not UTF-8"));
    let (_lock, starter) = inherited().at("take over", "the lock and socket of berth-shim")?;
    Ok(Errand {
        paths: Paths {
            root: root.into(),
            state: state.into(),
        },
        id: text(id)?.parse().map_err(|_| bad("no container id"))?,
        _lock,
        starter,
        streams: text(streams)?.parse().map_err(|_| bad("no streams"))?,
    })
}

/// What came as standard input and output, moved out of the way of what expects streams there.
fn inherited() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::fs::{Mode, OFlags};
    let lock = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok((lock, socket))
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
        Ok(container) => container.delete(true).map(drop).map_err(|e| runtime_error(id, e)),
        Err(berth_runtime::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(runtime_error(id, e)),
    }
}
