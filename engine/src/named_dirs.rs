//! Directories with names, each whole or not there.
//!
//! One is made aside and renamed into place, and renamed away before it is deleted. Its `flock` orders those who use it and those
//! who remove it. What a crash leaves of either has a name that begins with a dot, and an unlocked one of these is
//! nobody's.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::id::fill_random;

const MAKING: &str = ".new-";
const REMOVING: &str = ".gone-";

/// The directories below one. Nothing is opened or made before it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct NamedDirs {
    dir: PathBuf,
}

/// A directory, locked and proved to be the one its name leads to.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    _lock: File,
}

impl Held {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl NamedDirs {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where the one called `name` is or would be. Callers check names: no dot first, no slash.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the directory `name`, mode 0700, with what `fill` puts into it; `fill` syncs its files. Blocking: waits for
    /// the disk.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when the name is taken; whatever `fill` says. Nothing is left then.
    pub(crate) fn create<E: From<io::Error>>(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let (new, held) = self.aside()?;
        let made = fill(&new).and_then(|()| {
            held.sync_all()?;
            renameat_with(CWD, &new, CWD, self.path(name), RenameFlags::NOREPLACE)
                .map_err(io::Error::from)?;
            Ok(File::open(&self.dir)?.sync_all()?)
        });
        if made.is_err() {
            // The error in hand says more than a failed clean-up would; a later sweep finishes it.
            let _ = fs::remove_dir_all(&new);
        }
        made
    }

    /// A new directory under a name nobody looks for, and its lock.
    fn aside(&self) -> io::Result<(PathBuf, File)> {
        loop {
            let new = self.dir.join(random_name(MAKING)?);
            DirBuilder::new().mode(0o700).create(&new)?;
            let held = match File::open(&new) {
                // Swept: it had no lock yet.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() && is_named(&held, &new) {
                return Ok((new, held));
            }
        }
    }

    /// Opens and locks the directory `name`.
    ///
    /// # Errors
    ///
    /// `NotFound`, and `WouldBlock` for an operation that does not wait.
    pub(crate) fn lock(&self, name: &str, operation: FlockOperation) -> io::Result<Held> {
        let path = self.path(name);
        loop {
            let lock = File::open(&path)?;
            flock(&lock, operation)?;
            if is_named(&lock, &path) {
                return Ok(Held { path, _lock: lock });
            }
        }
    }

    /// Deletes a directory that is held exclusively.
    pub(crate) fn remove(&self, held: Held) -> io::Result<()> {
        let gone = self.dir.join(random_name(REMOVING)?);
        fs::rename(&held.path, &gone)?;
        fs::remove_dir_all(&gone)
    }

    /// The names there are, in no order.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect())
    }

    /// Deletes what a crash left half made or half removed. What does not go now is left for the next sweep.
    pub(crate) fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let stale = name
                .to_str()
                .is_some_and(|name| name.starts_with(MAKING) || name.starts_with(REMOVING));
            if stale
                && let Ok(held) = File::open(entry.path())
                && flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn is_named(held: &File, path: &Path) -> bool {
    match (held.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
        _ => false,
    }
}

fn random_name(prefix: &str) -> io::Result<String> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(format!("{prefix}{:016x}", u64::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs() -> (tempfile::TempDir, NamedDirs) {
        let tmp = tempfile::tempdir().unwrap();
        let dirs = NamedDirs::new(tmp.path().join("things"));
        (tmp, dirs)
    }

    fn count(dirs: &NamedDirs) -> usize {
        fs::read_dir(&dirs.dir).unwrap().count()
    }

    #[test]
    fn one_name_is_made_once_and_a_failure_leaves_nothing() {
        let (_tmp, dirs) = dirs();
        let fill = |path: &Path| fs::write(path.join("file"), "first");
        dirs.create("a", fill).unwrap();
        let taken = dirs.create("a", |path| fs::write(path.join("file"), "second"));
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(dirs.path("a").join("file")).unwrap(), "first");
        let failed = dirs.create("b", |path| {
            fs::write(path.join("file"), "half")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!((dirs.names().unwrap(), count(&dirs)), (vec!["a".to_owned()], 1));
    }

    #[test]
    fn a_sweep_takes_what_nobody_holds() {
        let (_tmp, dirs) = dirs();
        dirs.create("a", |_| Ok::<_, io::Error>(())).unwrap();
        fs::create_dir(dirs.path(".new-dead")).unwrap();
        fs::create_dir_all(dirs.path(".gone-dead").join("below")).unwrap();
        let (alive, _lock) = dirs.aside().unwrap();
        dirs.sweep();
        assert!(alive.exists());
        assert_eq!(count(&dirs), 2);
    }

    #[test]
    fn who_waited_for_one_that_was_removed_finds_it_gone() {
        let (_tmp, dirs) = dirs();
        dirs.create("a", |_| Ok::<_, io::Error>(())).unwrap();
        let held = dirs.lock("a", FlockOperation::LockExclusive).unwrap();
        let busy = dirs.lock("a", FlockOperation::NonBlockingLockExclusive);
        assert_eq!(busy.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| dirs.lock("a", FlockOperation::LockShared));
            std::thread::sleep(std::time::Duration::from_millis(20));
            dirs.remove(held).unwrap();
            assert_eq!(
                waiting.join().unwrap().unwrap_err().kind(),
                io::ErrorKind::NotFound
            );
        });
        assert_eq!(count(&dirs), 0);
    }
}
