//! Terminals opened from a devpts instance that may not be the host's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// Opens a new pair from the devpts mounted at `pts` (a directory descriptor): master and its name under that mount.
///
/// The other end comes from the `TIOCGPTPEER` ioctl, not by name: in a container's own devpts a name can be made to
/// lead elsewhere (CVE-2025-52565).
///
/// # Errors
///
/// The errno of the step that failed.
pub fn open_pair<Fd: AsFd>(pts: Fd) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::openat(pts, "ptmx", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&master)?;
    // A regular file or FIFO planted as `ptmx` would answer none of the ioctls below, but say so plainly.
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device() {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    Ok((master, slave))
}

/// Sets the size of a terminal in characters.
///
/// # Errors
///
/// The errno of `TIOCSWINSZ`.
pub fn set_size<Fd: AsFd>(terminal: Fd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
