//! Names of a layer resolved by the kernel beneath the layer's root, and nowhere else.
//!
//! `openat2(2)` with `RESOLVE_IN_ROOT` treats the root as `/` for absolute symlinks and stops `..` at it, as chroot would;
//! `RESOLVE_NO_MAGICLINKS` and `RESOLVE_NO_XDEV` keep resolution out of `/proc` and other mounts. The last component is never
//! resolved here: callers use it with the `*at` calls and `NOFOLLOW`.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories kept open. Archives list a directory's files together, so few are enough.
const CACHED_MAX: usize = 16;

/// Opens directories beneath a root, remembering the last few.
pub(crate) struct Dirs<'r> {
    root: BorrowedFd<'r>,
    cached: VecDeque<(Vec<u8>, Rc<OwnedFd>)>,
}

impl<'r> Dirs<'r> {
    pub(crate) fn new(root: BorrowedFd<'r>) -> Self {
        Self {
            root,
            cached: VecDeque::with_capacity(CACHED_MAX),
        }
    }

    /// The directory `path` (normalised, relative; empty for the root), symlinks resolved in the root.
    pub(crate) fn open(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        if let Some(at) = self.cached.iter().position(|(cached, _)| cached == path) {
            if at > 0 {
                let hit = self.cached.remove(at).ok_or(Errno::NOENT)?;
                self.cached.push_front(hit);
            }
            return Ok(self.cached[0].1.clone());
        }
        let fd = Rc::new(open_dir(self.root, path, OFlags::empty())?);
        self.remember(path, &fd);
        Ok(fd)
    }

    /// Remembers an open directory under its name.
    pub(crate) fn remember(&mut self, path: &[u8], fd: &Rc<OwnedFd>) {
        if self.cached.len() == CACHED_MAX {
            self.cached.pop_back();
        }
        self.cached.push_front((path.to_vec(), fd.clone()));
    }

    /// Forgets all: a directory was removed or replaced, so names may mean something else now.
    pub(crate) fn forget(&mut self) {
        self.cached.clear();
    }
}

/// Opens the directory `path` in `root`; `extra` may add `NOFOLLOW` for the last component.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8], extra: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | extra;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let path = if path.is_empty() { b"." } else { path };
    loop {
        match fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename elsewhere on the system raced with resolving "..".
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A name from an archive as a relative path without `.`, doubled or closing slashes. Absolute names are relative to the
/// root. `Err` says what is wrong with it.
pub(crate) fn normalise(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut path = Vec::with_capacity(name.len());
    for component in name.split(|&b| b == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err("name holds a .. component"),
            _ if component.contains(&0) => return Err("name holds a zero byte"),
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok(path)
}

/// Parent and last component of a normalised path that is not empty.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_become_relative() {
        for (name, path) in [
            (&b"a/b"[..], Ok(&b"a/b"[..])),
            (b"/a//b/", Ok(b"a/b")),
            (b"./", Ok(b"")),
            (b"././a/.", Ok(b"a")),
            (b"a/../b", Err("name holds a .. component")),
            (b"..", Err("name holds a .. component")),
            (b"...", Ok(b"...")),
            (b"a\0b", Err("name holds a zero byte")),
        ] {
            assert_eq!(normalise(name).as_deref(), path.as_ref().map(|p| *p), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_relative_and_clean(name in proptest::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), any::<u8>()], 0..40)) {
            if let Ok(path) = normalise(&name) {
                prop_assert!(!path.starts_with(b"/") && !path.ends_with(b"/"));
                prop_assert!(path.is_empty() || path.split(|&b| b == b'/').all(|c| !matches!(c, b"" | b"." | b"..")));
            }
        }
    }
}
