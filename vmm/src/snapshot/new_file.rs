//! Files that are there as a whole or not at all.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};

use super::Error;

/// A file under a name of its own, until it is whole. Gone when it is dropped before.
pub(crate) struct NewFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl NewFile {
    /// Makes an empty one beside `path`, for this user alone.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`; [`Error::NoFile`] when something else than a file has the name: it would be gone.
    pub(crate) fn beside(path: &Path) -> Result<NewFile, Error> {
        match std::fs::symlink_metadata(path) {
            Ok(there) if !there.is_file() => return Err(Error::NoFile),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("look at")(e)),
        }
        let mut number = [0; 8];
        getrandom(&mut number, GetRandomFlags::empty()).map_err(Error::io("name"))?;
        let mut name = path.file_name().map(OsString::from).ok_or(Error::NoFile)?;
        name.push(format!(".{:016x}", u64::from_ne_bytes(number)));
        let temporary = path.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(Error::io("make"))?;
        Ok(NewFile {
            file,
            temporary,
            path: path.into(),
        })
    }

    /// What is to be written to.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether both are to have one name, however it was written.
    ///
    /// # Errors
    ///
    /// Those of `stat(2)` of their directories.
    pub(crate) fn is_at_the_place_of(&self, other: &NewFile) -> Result<bool, Error> {
        let directory = |new: &NewFile| {
            let there = std::fs::metadata(new.directory()).map_err(Error::io("look at the directory of"))?;
            Ok((there.dev(), there.ino()))
        };
        Ok(self.path.file_name() == other.path.file_name() && directory(self)? == directory(other)?)
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Gives it its name, durably; one that was there before goes on being whoever has it open. Who wrote it has synced it.
    ///
    /// # Errors
    ///
    /// Those of `rename(2)`, and of `fsync(2)` of the directory.
    pub(crate) fn finish(self) -> Result<(), Error> {
        std::fs::rename(&self.temporary, &self.path).map_err(Error::io("rename"))?;
        let directory = File::open(self.directory()).map_err(Error::io("open the directory of"))?;
        directory.sync_all().map_err(Error::io("sync the directory of"))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It is not there when it has its name.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let before = std::fs::File::open(&path).unwrap();
        for whole in [false, true] {
            let new = NewFile::beside(&path).unwrap();
            new.file().write_all(b"new").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            assert_eq!(names(directory.path()).len(), 2);
            if whole {
                new.finish().unwrap();
            }
        }
        assert_eq!(names(directory.path()), ["file"], "nothing is left behind");
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(io::read_to_string(before).unwrap(), "old", "who has it keeps it");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("link")).unwrap();
        for path in [directory.path().to_path_buf(), directory.path().join("link")] {
            assert!(matches!(NewFile::beside(&path), Err(Error::NoFile)), "{path:?}");
        }
        assert!(NewFile::beside(&directory.path().join("nowhere/file")).is_err());
        assert_eq!(names(directory.path()), ["link"]);
    }
}
