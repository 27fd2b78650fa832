//! Looking a name up in the layers below, as overlayfs would show it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// As many symlinks as the kernel follows in one path.
const SYMLINKS_MAX: usize = 40;

/// A name found: the directory that holds it in the layer that shows it, its last component, its attributes.
pub(super) struct Found {
    pub(super) parent: OwnedFd,
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
}

/// Looks `path` up in `layers`, uppermost first; each is the root of a tree in upper-dir form. Symlinks on the way are resolved
/// within the merged tree, the last component is not followed. The root itself is never found.
///
/// # Errors
/// What the kernel says, other than absence.
pub(super) fn find(layers: &[BorrowedFd<'_>], path: &[u8]) -> Result<Option<Found>, Errno> {
    let mut rest: VecDeque<Vec<u8>> = components(path);
    let mut symlinks = 0;
    let mut walked: Vec<Vec<u8>> = Vec::new();
    'restart: loop {
        let mut merged: Vec<OwnedFd> = layers
            .iter()
            .map(|fd| fd.try_clone_to_owned().map_err(io_errno))
            .collect::<Result<_, _>>()?;
        // After a symlink the directories already walked are opened again; `walked` holds no symlinks.
        for name in &walked {
            match look(&merged, name)? {
                Some(Seen::Directory(dirs)) => merged = dirs,
                _ => return Ok(None),
            }
        }
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                walked.pop();
                continue 'restart;
            }
            match look(&merged, &name)? {
                None => return Ok(None),
                Some(Seen::Directory(dirs)) => {
                    if rest.is_empty() {
                        let Some(top) = merged.iter().find(|dir| stat(dir.as_fd(), &name).is_ok()) else {
                            return Ok(None);
                        };
                        let stat = stat(top.as_fd(), &name)?;
                        return Ok(Some(Found {
                            parent: top.try_clone().map_err(io_errno)?,
                            name,
                            stat,
                        }));
                    }
                    merged = dirs;
                    walked.push(name);
                }
                Some(Seen::Other(dir, stat)) => {
                    if rest.is_empty() {
                        return Ok(Some(Found {
                            parent: dir,
                            name,
                            stat,
                        }));
                    }
                    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                        return Ok(None);
                    }
                    symlinks += 1;
                    if symlinks > SYMLINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let target = fs::readlinkat(&dir, &*name, Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        walked.clear();
                    }
                    for component in components(&target).into_iter().rev() {
                        rest.push_front(component);
                    }
                    continue 'restart;
                }
            }
        }
        return Ok(None);
    }
}

enum Seen {
    /// The directories merged under the name, uppermost first.
    Directory(Vec<OwnedFd>),
    /// Anything else, and the directory of the layer it is in.
    Other(OwnedFd, Stat),
}

fn look(merged: &[OwnedFd], name: &[u8]) -> Result<Option<Seen>, Errno> {
    let mut dirs: Vec<OwnedFd> = Vec::new();
    for dir in merged {
        let stat = match stat(dir.as_fd(), name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = fs::openat(dir, name, flags, Mode::empty())?;
                let mut value = [0u8; 1];
                let opaque = matches!(fs::fgetxattr(&fd, "trusted.overlay.opaque", &mut value[..]), Ok(1) if value == *b"y");
                dirs.push(fd);
                if opaque {
                    break;
                }
            }
            // A whiteout or a file ends the merging of directories above it.
            _ if !dirs.is_empty() => break,
            FileType::CharacterDevice if stat.st_rdev == 0 => return Ok(None),
            _ => return Ok(Some(Seen::Other(dir.try_clone().map_err(io_errno)?, stat))),
        }
    }
    Ok((!dirs.is_empty()).then_some(Seen::Directory(dirs)))
}

fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    fs::statat(dir, std::ffi::OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|&b| b == b'/')
        .filter(|c| !matches!(*c, b"" | b"."))
        .map(<[u8]>::to_vec)
        .collect()
}

fn io_errno(e: std::io::Error) -> Errno {
    Errno::from_io_error(&e).unwrap_or(Errno::IO)
}
