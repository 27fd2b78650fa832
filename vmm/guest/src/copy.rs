//! Files out of and into the container: a copy of this process that reads or writes a tar. It is none of the container's
//! processes, runs none of its programs, and resolves its paths beneath its root.

use std::io::{BufReader, BufWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_copy::{Options, Rootfs, There};
use berth_runtime::Stdio;
use rustix::fs::{Mode, OFlags};

use crate::container::{Container, Made};
use crate::error::{At, Error, Result};
use crate::layout;
use crate::protocol::{Copy, Found, Streams, Way};
use crate::stdio::Ends;

/// Bytes of an archive on their way between two files.
const BUFFER: usize = 64 << 10;

/// Begins to copy.
///
/// # Errors
///
/// The container does not run, or there is no room for another process.
pub fn start(container: &Container, wanted: &Copy) -> Result<Made> {
    let root = match wanted.way {
        Way::OutOfRoot => open(layout::ROOTFS)?,
        Way::Out { .. } | Way::Into { .. } => root_of(container)?,
    };
    let into = matches!(wanted.way, Way::Into { .. });
    let ends = Ends::new(Streams::Pipes {
        stdin: into,
        stdout: !into,
        stderr: true,
    })?;
    let Stdio::Fds(streams) = &ends.stdio else {
        return Err(Error::refused("copy", "there are no pipes for it"));
    };
    let (pid, pidfd) = berth_sys::clone::run_beside(streams, root.as_fd(), |root| match copy(root, wanted) {
        Ok(()) => 0,
        Err(e) => {
            eprint!("{}", chain(&e));
            1
        }
    })
    .at("start", "a copy")?;
    Ok(Made {
        pid,
        pidfd,
        streams: ends.ours,
        warnings: Vec::new(),
    })
}

fn copy(root: OwnedFd, wanted: &Copy) -> Result<(), berth_copy::Error> {
    let (root, path) = (Rootfs::of_fd(root), Path::new(&wanted.path));
    let options = |archive, follow| Options { archive, follow };
    let out = || BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
    match wanted.way {
        Way::Out { follow } => berth_copy::write_archive(&root, path, out(), options(true, follow)),
        Way::OutOfRoot => berth_copy::write_archive(&root, path, out(), options(true, false)),
        Way::Into { owners } => {
            let input = BufReader::with_capacity(BUFFER, std::io::stdin().lock());
            berth_copy::read_archive(&root, path, input, options(owners, false))
        }
    }
}

/// What is at a path of the running container.
///
/// # Errors
///
/// It does not run, or the path cannot be walked.
pub fn look(container: &Container, path: &str) -> Result<Found> {
    let root = Rootfs::of_fd(root_of(container)?);
    match root.look(Path::new(path)) {
        Ok(There::Directory) => Ok(Found::Directory),
        Ok(There::Other) => Ok(Found::Other),
        Ok(There::Nothing) => Ok(Found::Nothing),
        Err(e) => Err(Error::refused("look", chain(&e))),
    }
}

fn root_of(container: &Container) -> Result<OwnedFd> {
    open(&format!("/proc/{}/root", container.pid()))
}

fn open(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at("open", path)
}

fn chain(e: &dyn std::error::Error) -> String {
    match e.source() {
        Some(source) => format!("{e}: {}", chain(source)),
        None => e.to_string(),
    }
}
