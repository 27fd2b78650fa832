//! The name of a Unix socket in the file system, which goes when nobody answers there any more.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The name of a socket of ours, to be kept by who knows when it ends. Removed when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that somebody else put in its place stays.
    identity: io::Result<(u64, u64)>,
}

impl SocketFile {
    /// Of a socket that was just bound there.
    pub(crate) fn of(path: &Path) -> SocketFile {
        SocketFile {
            path: path.into(),
            identity: identity(path),
        }
    }

    /// Lets the name be: somebody else removes it.
    pub(crate) fn leave(mut self) {
        self.identity = Err(io::ErrorKind::NotFound.into());
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let (Ok(ours), Ok(there)) = (&self.identity, identity(&self.path))
            && *ours == there
        {
            // One that cannot be removed keeps the next microVM from its path, which then says so.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_goes_and_what_took_its_place_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = UnixListener::bind(&path).unwrap();
        drop(SocketFile::of(&path));
        assert!(!path.exists());
        drop(first);
        let second = UnixListener::bind(&path).unwrap();
        let file = SocketFile::of(&path);
        fs::rename(&path, directory.path().join("away")).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        drop((file, second));
        assert!(path.exists());
    }
}
