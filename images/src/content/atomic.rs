//! Small files that are either the old or the new one, never half of either.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How the name of a file that is not yet the new one ends.
const TEMPORARY: &str = ".tmp";

/// Replaces `path` by a file of `bytes` with `mode`: temporary file beside it, fsync, rename, fsync of the directory.
///
/// # Errors
/// [`Error::File`] naming the step.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let temporary = directory.join(format!(".{}{TEMPORARY}", random_name()));
    let written = write_temporary(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::file("rename to", path)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_dir(directory)
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(Error::file("create", path))?;
    file.write_all(bytes).map_err(Error::file("write", path))?;
    file.sync_all().map_err(Error::file("sync", path))
}

/// Removes the temporary files of killed writers. The caller keeps living ones away.
///
/// # Errors
/// [`Error::File`].
pub fn sweep(directory: &Path) -> Result<()> {
    for path in entries(directory)? {
        let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
        if name.starts_with('.') && name.ends_with(TEMPORARY) {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    Ok(())
}

/// Makes renames inside `directory` survive a crash.
///
/// # Errors
/// [`Error::File`].
pub fn sync_dir(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(Error::file("sync", directory))
}

/// Makes a directory and its parents, private to root.
///
/// # Errors
/// [`Error::File`].
pub fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::file("create", path))
}

/// Sixteen hexadecimal digits nobody else uses now.
#[must_use]
pub fn random_name() -> String {
    format!("{:016x}", random_u64())
}

/// A number seeded by the kernel's randomness; for names and jitter, not for secrets.
#[must_use]
pub fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Every entry's path in a directory; an absent directory has none.
///
/// # Errors
/// [`Error::File`].
pub fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = match fs::read_dir(directory) {
        Ok(read) => read,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::file("read", directory)(e)),
    };
    read.map(|entry| entry.map(|e| e.path()).map_err(Error::file("read", directory)))
        .collect()
}
