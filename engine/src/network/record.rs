//! What is attached, on disk: `STATE/networks/.attachments/<container id>`. Written before anything it names is made and
//! moved to `STATE/networks/.released` once the container is off its networks; removed from there after all it names is
//! gone, so detaching works from here alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::model::{DnsOptions, EndpointStatus, Paths, PortMapping, primary};

/// One container's attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) container_id: String,
    pub(super) name: String,
    pub(super) inside: Inside,
    pub(super) endpoints: Vec<EndpointStatus>,
    pub(super) ports: Vec<PortMapping>,
    pub(super) dns: DnsOptions,
}

/// What is at the other end of a container's links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Inside {
    /// A network namespace.
    #[serde(rename_all = "camelCase")]
    Namespace {
        /// Where it can be entered.
        path: PathBuf,
        /// We made it and remove it.
        is_own: bool,
    },
    /// A microVM, whose name server, if it has networks, is on the host.
    #[serde(rename_all = "camelCase")]
    MicroVm { name_server: Option<NameServer> },
}

/// Ports of a microVM's name server, at [`super::dns::ADDRESS`] of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NameServer {
    pub(super) udp: u16,
    pub(super) tcp: u16,
}

impl Record {
    /// Where the container's namespace can be entered; a microVM has none.
    pub(super) fn namespace(&self) -> Option<&Path> {
        match &self.inside {
            Inside::Namespace { path, .. } => Some(path),
            Inside::MicroVm { .. } => None,
        }
    }

    pub(super) fn name_server(&self) -> Option<NameServer> {
        match self.inside {
            Inside::Namespace { .. } => None,
            Inside::MicroVm { name_server } => name_server,
        }
    }

    /// See [`primary`].
    pub(super) fn primary(&self) -> Option<&EndpointStatus> {
        primary(&self.endpoints)
    }

    pub(super) fn load(paths: &Paths, container: &str) -> Result<Option<Self>> {
        let path = path(paths, container);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::Parse { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", path)(error)),
        }
    }

    /// Replaces the record in one step. No fsync: STATE does not outlive the kernel whose links it records.
    pub(super) fn save(&self, paths: &Paths) -> Result<()> {
        let path = path(paths, &self.container_id);
        let aside = path.with_file_name(format!(".{}", self.container_id));
        let bytes = serde_json::to_vec(self).map_err(|source| Error::Parse {
            path: path.clone(),
            source,
        })?;
        let write = || fs::write(&aside, &bytes);
        match write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = paths.records();
                fs::create_dir_all(&directory).map_err(Error::file("create", directory))?;
                write()
            }
            other => other,
        }
        .map_err(Error::file("write", &aside))?;
        fs::rename(&aside, &path).map_err(Error::file("rename", aside))
    }

    pub(super) fn remove(paths: &Paths, container: &str) -> Result<()> {
        let path = path(paths, container);
        // What a crash in the middle of a save left.
        let _ = fs::remove_file(path.with_file_name(format!(".{container}")));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Moves the record aside, to where [`Record::released`] finds it. The file's ctime is the moment.
    pub(super) fn release(&self, paths: &Paths) -> Result<()> {
        let (from, to) = (
            path(paths, &self.container_id),
            released(paths, &self.container_id),
        );
        let result = match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = paths.released();
                fs::create_dir_all(&directory).map_err(Error::file("create", directory))?;
                fs::rename(&from, &to)
            }
            other => other,
        };
        result.map_err(Error::file("rename", from))
    }

    /// Containers that are off their networks but not settled yet, and since when.
    pub(super) fn released(paths: &Paths) -> Vec<(SystemTime, Self)> {
        let entries = fs::read_dir(paths.released()).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let status = entry.metadata().ok()?;
                let since = Duration::new(
                    u64::try_from(status.ctime()).ok()?,
                    u32::try_from(status.ctime_nsec()).ok()?,
                );
                let record = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
                Some((SystemTime::UNIX_EPOCH + since, record))
            })
            .collect()
    }

    /// Nothing is left of a released container.
    pub(super) fn forget_released(paths: &Paths, container: &str) -> Result<()> {
        let path = released(paths, container);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// All records that can be read.
    pub(super) fn all(paths: &Paths) -> Vec<Self> {
        let entries = fs::read_dir(paths.records()).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .filter_map(|name| Self::load(paths, &name).ok().flatten())
            .collect()
    }
}

pub(super) fn path(paths: &Paths, container: &str) -> PathBuf {
    paths.records().join(container)
}

pub(super) fn released(paths: &Paths, container: &str) -> PathBuf {
    paths.released().join(container)
}
