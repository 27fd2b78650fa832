//! The container's terminal: a pair from its own devpts, never looked up by the number of its slave, which a container
//! could have exchanged (CVE-2025-52565).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::open_beneath::open_in_root;
use rustix::fs::{FileType, Mode, OFlags, fstat, fstatfs, makedev};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::devices::is_device;
use super::mounts::attach_fd;
use super::procfs::DEVPTS_MAGIC;
use super::resolve::{Place, open_or_create};
use super::{Error, Result};

/// Both ends of the container's terminal, from the container's own devpts; close-on-exec.
#[derive(Debug)]
pub struct Console {
    /// For the console socket.
    pub master: OwnedFd,
    /// For the container's stdio; in a root that was built already bound on `/dev/console`.
    pub slave: OwnedFd,
}

/// Opens the pair and binds the slave on `/dev/console`.
pub(super) fn open(root: BorrowedFd<'_>) -> Result<Console> {
    let fail = |operation| {
        move |e: Errno| Error::Console {
            operation,
            source: e.into(),
        }
    };
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW;
    // Looked at by O_PATH first: opening a strange device has effects.
    let multiplexer = Path::new("/dev/pts/ptmx");
    let seen = open_in_root(root, multiplexer, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
        .map_err(fail("find /dev/pts/ptmx"))?;
    prove_ptmx(seen.as_fd())?;
    let master = open_in_root(root, multiplexer, flags, Mode::empty()).map_err(fail("open /dev/pts/ptmx"))?;
    prove_ptmx(master.as_fd())?;
    unlockpt(&master).map_err(fail("unlock the terminal"))?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, peer).map_err(fail("open the terminal's slave"))?;

    let place = open_or_create(root, Path::new("/dev/console"), Place::File)?;
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&slave, "", clone).map_err(fail("clone the terminal's slave"))?;
    attach_fd(tree.as_fd(), place.as_fd()).map_err(fail("bind /dev/console"))?;
    Ok(Console { master, slave })
}

/// A multiplexer of a devpts, not something an image put in its place.
fn prove_ptmx(fd: BorrowedFd<'_>) -> Result<()> {
    let fail = |e: Errno| Error::Console {
        operation: "look at /dev/pts/ptmx",
        source: e.into(),
    };
    let real = fstatfs(fd).map_err(fail)?.f_type == DEVPTS_MAGIC
        && is_device(
            &fstat(fd).map_err(fail)?,
            FileType::CharacterDevice,
            makedev(5, 2),
        );
    if real {
        return Ok(());
    }
    Err(Error::Untrusted {
        path: "/dev/pts/ptmx".into(),
        reason: "it is not the multiplexer of a devpts".into(),
    })
}
