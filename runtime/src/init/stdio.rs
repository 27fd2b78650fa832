//! Descriptors 0, 1 and 2 of the new process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use berth_sys::fds;
use rustix::fs::{Mode, OFlags};

use super::rootfs::{Console, procfs::DEVPTS_MAGIC};
use crate::error::{Error, Result, Step};

/// Puts three descriptors in place. They lie above 2, or one could be overwritten before it is copied.
pub(crate) fn place(streams: &[OwnedFd; 3]) -> Result<()> {
    for (to, from) in (0..).zip(streams) {
        fds::place(from.as_raw_fd(), to).step("set up", "standard streams")?;
    }
    Ok(())
}

/// Copies of three descriptors above 2.
pub(crate) fn lift(streams: [OwnedFd; 3]) -> Result<[OwnedFd; 3]> {
    let [a, b, c] = streams;
    let one = |fd: OwnedFd| {
        if fd.as_raw_fd() > 2 {
            Ok(fd)
        } else {
            fds::duplicate(fd.as_raw_fd(), 3).step("copy", "standard streams")
        }
    };
    Ok([one(a)?, one(b)?, one(c)?])
}

/// A terminal of the devpts that is in the root already, proved to be one: the processes inside choose what `/dev/pts` is.
pub(crate) fn open_terminal() -> Result<Console> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pts = rustix::fs::open("/dev/pts", flags, Mode::empty()).step("open", "/dev/pts in the container")?;
    let found = rustix::fs::fstatfs(&pts).step("inspect", "/dev/pts in the container")?;
    if found.f_type != DEVPTS_MAGIC {
        return Err(Error::invalid(
            "process.terminal",
            "/dev/pts in the container is not a devpts",
        ));
    }
    let (master, slave) = berth_sys::pty::open_pair(&pts).step("open", "a terminal in the container")?;
    Ok(Console { master, slave })
}

/// Makes the terminal the controlling one and all three streams. The caller leads a session.
pub(crate) fn attach_terminal(slave: BorrowedFd<'_>, size: Option<(u16, u16)>) -> Result<()> {
    if let Some((rows, columns)) = size {
        berth_sys::pty::set_size(slave, rows, columns).step("set", "process.consoleSize")?;
    }
    rustix::process::ioctl_tiocsctty(slave).step("take", "the controlling terminal")?;
    for to in 0..3 {
        fds::place(slave.as_raw_fd(), to).step("set up", "standard streams")?;
    }
    Ok(())
}

/// Gives the streams to the user, so that it can open `/dev/stderr` again; not `/dev/null`, which is everyone's.
pub(crate) fn chown_to(uid: u32) {
    for stream in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let Ok(stat) = rustix::fs::fstat(stream.as_fd()) else {
            continue;
        };
        let null = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device()
            && rustix::fs::major(stat.st_rdev) == 1
            && rustix::fs::minor(stat.st_rdev) == 3;
        if null || stat.st_uid == uid {
            continue;
        }
        // Refused on read-only and foreign file systems, and in user namespaces that do not map the owner: then the
        // process has what it inherited, as everywhere else.
        let _ = rustix::fs::fchown(stream.as_fd(), Some(rustix::fs::Uid::from_raw(uid)), None);
    }
}
