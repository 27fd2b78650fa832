//! Path resolution by the kernel, confined to a directory (`openat2(2)`, Linux 5.6). Lexical cleaning of a path can be
//! raced by whoever may rename below the directory; these cannot.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, Result};

/// A resolution that keeps losing against renames gives up after this many tries. The kernel answers EAGAIN only
/// when a rename or mount happened during a walk over `..`.
const TRIES: u32 = 64;

/// Opens `path` with `root` as `/`: absolute links and `..` stay inside, magic links (`/proc/self/fd/N`) are refused
/// with ELOOP. O_CLOEXEC is added.
///
/// # Errors
/// The errno of openat2; EAGAIN only after many lost races.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    open_resolved(
        root,
        path,
        flags,
        mode,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` below `root` where leaving it (absolute links, `..` past the top) is an error, EXDEV, not clamped.
///
/// # Errors
/// As [`open_in_root`].
pub fn open_beneath(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    open_resolved(
        root,
        path,
        flags,
        mode,
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}

/// `openat2` with these resolve flags, O_CLOEXEC, and another try when a rename got in between.
///
/// # Errors
/// As [`open_in_root`].
pub fn open_resolved(
    root: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let root = root.as_fd();
    for _ in 0..TRIES {
        match openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
    Err(Errno::AGAIN)
}
