//! The records of containers on disk, and the flock that goes with each.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::config::ContainerConfig;
use crate::container::State;
use crate::error::{At, Error, Result};
use crate::id::ContainerId;
use crate::paths::Paths;

/// Whether a record must be on the disk before the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// fsync of the file and of its directory.
    Synced,
    /// rename alone: a power cut may bring the old record back, which reads as true after a reboot as the new one.
    Renamed,
}

/// How a container's end is written: what somebody will ask for after a power cut, on the disk.
pub(crate) fn last_words(config: &ContainerConfig) -> Durability {
    // One that goes with its end has nothing to tell.
    if config.host.auto_remove {
        Durability::Renamed
    } else {
        Durability::Synced
    }
}

/// Every container's id, in no order.
pub(crate) fn ids(paths: &Paths) -> Result<Vec<ContainerId>> {
    let dir = paths.containers();
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at("read", &dir)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        if let Some(id) = entry
            .at("read", &dir)?
            .file_name()
            .to_str()
            .and_then(|n| n.parse().ok())
        {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Makes the container's directory and locks it before anybody else can know of it.
pub(crate) fn make(paths: &Paths, id: &ContainerId) -> Result<Lock> {
    let dir = paths.container(id);
    DirBuilder::new().mode(0o700).create(&dir).at("create", &dir)?;
    lock(paths, id)
}

/// Exclusive hold on a container: whoever has it may start, remove, rename or reconcile it.
#[derive(Debug)]
pub(crate) struct Lock {
    _dir: File,
}

/// Takes the container's lock, waiting for it.
///
/// # Errors
///
/// [`Error::NoSuchContainer`], also when it was removed while we waited.
pub(crate) fn lock(paths: &Paths, id: &ContainerId) -> Result<Lock> {
    lock_with(paths, id, FlockOperation::LockExclusive)
        .map(|lock| lock.expect("a blocking lock is had or an error"))
}

/// Takes the lock if nobody has it.
pub(crate) fn try_lock(paths: &Paths, id: &ContainerId) -> Result<Option<Lock>> {
    lock_with(paths, id, FlockOperation::NonBlockingLockExclusive)
}

fn lock_with(paths: &Paths, id: &ContainerId, operation: FlockOperation) -> Result<Option<Lock>> {
    let path = paths.container(id);
    let gone = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => Error::NoSuchContainer(id.to_string()),
        _ => Error::io("lock", &path, e),
    };
    let dir = File::open(&path).map_err(gone)?;
    match rustix::fs::flock(&dir, operation) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(e) => return Err(gone(e.into())),
    }
    // The holder before us may have removed it.
    let named = std::fs::metadata(&path).map_err(gone)?;
    if dir.metadata().map_err(gone)?.ino() != named.ino() {
        return Err(Error::NoSuchContainer(id.to_string()));
    }
    Ok(Some(Lock { _dir: dir }))
}

/// Reads what a container is. An empty record is one whose name reached the disk before a power cut and whose bytes did not
/// ([`save_first_config`]): nobody was told of that container.
pub(crate) fn config(paths: &Paths, id: &ContainerId) -> Result<ContainerConfig> {
    let path = paths.config(id);
    match std::fs::read(&path) {
        Ok(bytes) if bytes.is_empty() => Err(Error::NoSuchContainer(id.to_string())),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path, source }),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Error::NoSuchContainer(id.to_string())),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// Whether the container's creation came to its end; what [`config`] would say, without reading.
pub(crate) fn was_created(paths: &Paths, id: &ContainerId) -> bool {
    std::fs::metadata(paths.config(id)).is_ok_and(|config| config.len() > 0)
}

/// Writes what a new container is, under its name for other processes at once but not yet on the disk: for that
/// [`sync_config`].
pub(crate) fn save_first_config(paths: &Paths, config: &ContainerConfig) -> Result<()> {
    write_config(paths, config, Durability::Renamed)
}

/// Writes what a container is from now on.
pub(crate) fn save_config(paths: &Paths, config: &ContainerConfig) -> Result<()> {
    write_config(paths, config, last_words(config))
}

fn write_config(paths: &Paths, config: &ContainerConfig, durability: Durability) -> Result<()> {
    let path = paths.config(&config.id);
    let bytes = serde_json::to_vec(config).map_err(|source| Error::Damaged {
        path: path.clone(),
        source,
    })?;
    replace(&path, &bytes, durability)
}

/// Has a new container's record, its directory and its name on the disk: one flush for all three. A journal keeps the order in
/// which directories changed, so the file synced *after* its rename takes along what came before. Blocking: waits for the
/// disk. One that goes with its end need not outlive the host.
pub(crate) fn sync_config(paths: &Paths, config: &ContainerConfig) -> Result<()> {
    if last_words(config) == Durability::Renamed {
        return Ok(());
    }
    let path = paths.config(&config.id);
    // Not fdatasync: that may leave out a journal entry which only names the file.
    File::open(&path)
        .and_then(|file| file.sync_all())
        .at("sync", &path)
}

/// Reads what it was doing last; a record that never was or was cut short is a container just created.
pub(crate) fn state(paths: &Paths, id: &ContainerId) -> Result<State> {
    let path = paths.state_file(id);
    Ok(State::load(&path).at("read", &path)?.unwrap_or_default())
}

/// Writes what it is doing.
pub(crate) fn save_state(
    paths: &Paths,
    id: &ContainerId,
    state: &State,
    durability: Durability,
) -> Result<()> {
    let path = paths.state_file(id);
    let bytes = serde_json::to_vec(state).map_err(|source| Error::Damaged {
        path: path.clone(),
        source,
    })?;
    replace(&path, &bytes, durability)
}

/// Replaces a file whole: temporary file, fsync if asked, rename.
pub(crate) fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let aside = path.with_extension("json.new");
    let mut file = OpenOptions::new();
    let mut file = file
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .at("create", &aside)?;
    file.write_all(bytes).at("write", &aside)?;
    if durability == Durability::Synced {
        file.sync_data().at("sync", &aside)?;
    }
    std::fs::rename(&aside, path).at("rename", path)?;
    if durability == Durability::Synced
        && let Some(dir) = path.parent()
    {
        File::open(dir).and_then(|d| d.sync_all()).at("sync", dir)?;
    }
    Ok(())
}
