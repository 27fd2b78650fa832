//! Files of the host's that a request names after the start. Who is outside of the jail opens them and gives them their names in the
//! end, who is inside gets them open.
//!
//! ```text
//! Command ─ Outside::open ─► descriptors ─► the machine reads or writes them ─► Outside::finish
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::api::Action;
use crate::config::{Settings, SnapshotCreate};
use crate::devices::virtio::block::open_file;
use crate::error::{Error, Result};
use crate::snapshot::{NewFile, in_file};

/// What was opened for an action. Dropped before it is finished, nothing of it is left.
pub(crate) enum Outside {
    /// It names nothing.
    Nothing,
    /// Another file for a disk.
    Disk(File),
    /// Empty files for a snapshot's memory and state.
    Snapshot {
        memory: NewFile,
        state: NewFile,
        ask: SnapshotCreate,
    },
}

impl Outside {
    /// Opens what `action` names. `settings` are the machine's: they say which disks are never written to.
    ///
    /// # Errors
    ///
    /// [`Error::Drive`], [`Error::Snapshot`], and [`Error::Invalid`] for a snapshot of one file.
    pub(crate) fn open(action: &Action, settings: &Settings) -> Result<Outside> {
        match action {
            Action::ChangeDrive(change) => {
                let id = &change.drive_id;
                let drive = settings.drives.iter().find(|drive| drive.drive_id == *id);
                let (Some(drive), Some(path)) = (drive, &change.path_on_host) else {
                    return Ok(Outside::Nothing);
                };
                let file = open_file(path, drive.is_read_only).map_err(|source| Error::Drive {
                    id: id.to_string(),
                    path: path.clone(),
                    source,
                })?;
                Ok(Outside::Disk(file))
            }
            Action::CreateSnapshot(ask) => {
                let new = |path| NewFile::beside(path).map_err(in_file(path));
                let (memory, state) = (new(&ask.mem_file_path)?, new(&ask.snapshot_path)?);
                if memory
                    .is_at_the_place_of(&state)
                    .map_err(in_file(&ask.snapshot_path))?
                {
                    return Err(Error::Invalid {
                        field: "mem_file_path",
                        why: "it is snapshot_path, and one file would replace the other".into(),
                    });
                }
                Ok(Outside::Snapshot {
                    memory,
                    state,
                    ask: ask.clone(),
                })
            }
            _ => Ok(Outside::Nothing),
        }
    }

    /// What the machine is to get, in the order in which [`Inside`] takes it.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Outside::Nothing => Vec::new(),
            Outside::Disk(file) => vec![file.as_fd()],
            Outside::Snapshot { memory, state, .. } => vec![memory.file().as_fd(), state.file().as_fd()],
        }
    }

    /// After the machine has done what was asked. A state that is there has its memory.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`].
    pub(crate) fn finish(self) -> Result<()> {
        let Outside::Snapshot { memory, state, ask } = self else {
            return Ok(());
        };
        memory.finish().map_err(in_file(&ask.mem_file_path))?;
        state.finish().map_err(in_file(&ask.snapshot_path))
    }
}

/// Files that came with a request, in their order.
#[derive(Default)]
pub(crate) struct Inside(std::vec::IntoIter<OwnedFd>);

impl Inside {
    pub(crate) fn of(files: Vec<OwnedFd>) -> Inside {
        Inside(files.into_iter())
    }

    /// Those of this process's own.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] without descriptors.
    pub(crate) fn copied(outside: &Outside) -> Result<Inside> {
        let copies = outside
            .descriptors()
            .into_iter()
            .map(|fd| fd.try_clone_to_owned());
        let copies = copies.collect::<io::Result<Vec<OwnedFd>>>();
        copies.map(Inside::of).map_err(|source| Error::Events {
            operation: "keep the files of a request",
            source,
        })
    }

    /// The next.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] when there is none.
    pub(crate) fn next(&mut self) -> Result<File> {
        self.0.next().map(File::from).ok_or_else(|| Error::Events {
            operation: "find the files of a request",
            source: io::ErrorKind::NotFound.into(),
        })
    }
}
