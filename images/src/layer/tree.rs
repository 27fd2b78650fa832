//! Removing a tree of foreign shape, beneath one directory descriptor.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Directories open at once. Deeper ones are first moved up, so a layer as deep as its symlinks allow (far beyond
/// `PATH_MAX` and the descriptor limit) goes away all the same.
const DEPTH_MAX: usize = 48;

/// Removes `name` in `parent`: a file or a whole directory. `name` is one component. Absence is not an error. No symlink is
/// followed.
///
/// # Errors
/// What the kernel says, of the first thing that does not go.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let mut moved = vec![name.as_os_str().to_owned()];
    while let Some(name) = moved.pop() {
        let Some(dir) = open_dir(parent, &name)? else {
            continue;
        };
        empty(parent, dir, 1, &mut moved)?;
        fs::unlinkat(parent, &*name, AtFlags::REMOVEDIR).or_else(absent_is_fine)?;
    }
    Ok(())
}

/// `prefix` and 16 random hexadecimal digits.
pub(crate) fn random_name(prefix: &str) -> io::Result<OsString> {
    let mut bytes = [0u8; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if got != bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(format!("{prefix}{:016x}", u64::from_ne_bytes(bytes)).into())
}

fn empty(top: BorrowedFd<'_>, dir: OwnedFd, depth: usize, moved: &mut Vec<OsString>) -> io::Result<()> {
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match fs::unlinkat(&dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // A filesystem that tells no types.
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(e) => return Err(e.into()),
            }
        }
        if depth == DEPTH_MAX {
            let aside = random_name(".deep-")?;
            fs::renameat(&dir, name, top, &aside)?;
            moved.push(aside);
            continue;
        }
        let Some(child) = open_dir(dir.as_fd(), std::ffi::OsStr::from_bytes(name.to_bytes()))? else {
            continue;
        };
        empty(top, child, depth + 1, moved)?;
        fs::unlinkat(&dir, name, AtFlags::REMOVEDIR).or_else(absent_is_fine)?;
    }
    Ok(())
}

fn open_dir(parent: BorrowedFd<'_>, name: &std::ffi::OsStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

// Two processes may remove the same leftovers at once.
fn absent_is_fine(e: Errno) -> Result<(), Errno> {
    if e == Errno::NOENT { Ok(()) } else { Err(e) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_path_max_goes_away_and_symlinks_are_not_followed() {
        let tmp = tempfile::tempdir().unwrap();
        let outside = tmp.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        std::fs::create_dir(tmp.path().join("doomed")).unwrap();
        let top = fs::open(tmp.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut at = open_dir(top.as_fd(), "doomed".as_ref()).unwrap().unwrap();
        for _ in 0..5000 {
            fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            fs::symlinkat(&outside, &at, "link").unwrap();
            at = open_dir(at.as_fd(), "d".as_ref()).unwrap().unwrap();
        }
        remove(top.as_fd(), Path::new("doomed")).unwrap();
        let left: Vec<_> = std::fs::read_dir(tmp.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["outside"]);
        assert!(outside.join("kept").exists());
    }
}
