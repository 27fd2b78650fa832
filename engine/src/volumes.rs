//! Named volumes: directories that outlive containers.
//!
//! ```text
//! ROOT/volumes/<name>/volume.json    name, labels, options, created; present from the moment the name is
//! ROOT/volumes/<name>/_data          what containers see
//! ROOT/volumes/<name>/users/<id>     one empty file per container that mounts it
//! ROOT/volumes/<name>/filling        the first-use copy has begun and not ended
//! ROOT/volumes/.new-* .gone-*        being made or removed; swept when their lock is free
//! ```
//!
//! A name is always whole, and its directory's `flock` orders attach, first use and removal (`named_dirs`). A `users` file
//! counts while `ROOT/containers/<id>` exists: a crash between the two leaves a file that means nothing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::named_dirs::{Held, NamedDirs};
use berth_copy as copy;

/// A volume as `volume inspect` shows it, and as `volume.json` keeps it but for the mount point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// When it was made.
    pub created_at: Timestamp,
    /// Always `local`.
    pub driver: String,
    /// User's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The directory containers see.
    #[serde(default)]
    pub mountpoint: PathBuf,
    /// Its name.
    pub name: String,
    /// Driver options as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Always `local`.
    pub scope: String,
    /// Made for one container without a name asked for: goes with `rm -v` and `--rm`.
    #[serde(default)]
    pub anonymous: bool,
}

/// Why a volume verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be a volume's.
    #[error("invalid volume name {0:?}: want [a-zA-Z0-9][a-zA-Z0-9_.-]*, two to 255 characters")]
    Name(String),
    /// No volume has this name.
    #[error("no such volume: {0}")]
    Missing(String),
    /// Containers still mount it.
    #[error("remove volume {name}: volume is in use by container {}", users.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// Ids of the containers.
        users: Vec<String>,
    },
    /// A file of the volume could not be made, read or removed.
    #[error("{operation} volume {name}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The volume.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The image's content could not be copied into a new volume.
    #[error("copy image content to volume {name}")]
    Fill {
        /// The volume.
        name: String,
        /// What failed.
        #[source]
        source: copy::Error,
    },
}

/// The volumes of one `ROOT`.
#[derive(Debug, Clone)]
pub struct Volumes {
    dirs: NamedDirs,
    containers: PathBuf,
}

impl Volumes {
    /// Names the volumes under `root`; nothing is opened yet.
    pub fn new(root: &Path) -> Volumes {
        Volumes {
            dirs: NamedDirs::new(root.join("volumes")),
            containers: root.join("containers"),
        }
    }

    /// Makes a volume, or returns the one of that name. Without a name it is anonymous and gets a random one.
    pub fn create(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<Volume, Error> {
        let random = name
            .is_none()
            .then(random_name)
            .transpose()
            .map_err(|source| io_error("create", "", source))?;
        let anonymous = random.is_some();
        let name = random.as_deref().or(name).unwrap_or_default();
        check_name(name)?;
        match self.inspect(name) {
            Err(Error::Missing(_)) => {}
            found => return found,
        }
        let volume = Volume {
            created_at: Timestamp::now(),
            driver: "local".to_owned(),
            labels,
            mountpoint: self.dirs.path(name).join("_data"),
            name: name.to_owned(),
            options,
            scope: "local".to_owned(),
            anonymous,
        };
        match self.install(&volume) {
            // Somebody else was first: theirs is as good.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.inspect(name),
            Err(source) => Err(io_error("create", name, source)),
            Ok(()) => Ok(volume),
        }
    }

    fn install(&self, volume: &Volume) -> io::Result<()> {
        self.dirs.create(&volume.name, |new| {
            DirBuilder::new().mode(0o755).create(new.join("_data"))?;
            DirBuilder::new().mode(0o700).create(new.join("users"))?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(new.join("volume.json"))?;
            file.write_all(&serde_json::to_vec(volume)?)?;
            file.sync_all()
        })
    }

    /// Reads one volume by its full name.
    pub fn inspect(&self, name: &str) -> Result<Volume, Error> {
        check_name(name)?;
        let dir = self.dirs.path(name);
        let read = fs::read(dir.join("volume.json")).and_then(|bytes| {
            let mut volume: Volume = serde_json::from_slice(&bytes)?;
            // ROOT may have moved since.
            volume.mountpoint = dir.join("_data");
            Ok(volume)
        });
        read.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing(name.to_owned()),
            _ => io_error("inspect", name, source),
        })
    }

    /// All volumes, by name. One that goes away meanwhile is left out.
    pub fn list(&self) -> Result<Vec<Volume>, Error> {
        let mut volumes = Vec::new();
        let names = self.dirs.names();
        for name in names.map_err(|source| io_error("list", "directory", source))? {
            match self.inspect(&name) {
                Ok(volume) => volumes.push(volume),
                Err(Error::Missing(_)) => {}
                Err(e) => return Err(e),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Ids of the containers that mount it.
    pub fn users(&self, name: &str) -> Result<Vec<String>, Error> {
        check_name(name)?;
        self.users_in(&self.dirs.path(name))
            .map_err(|source| io_error("inspect", name, source))
    }

    fn users_in(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut users = Vec::new();
        let entries = match fs::read_dir(dir.join("users")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(users),
            other => other?,
        };
        for entry in entries {
            if let Ok(id) = entry?.file_name().into_string()
                && self.containers.join(&id).exists()
            {
                users.push(id);
            }
        }
        users.sort();
        Ok(users)
    }

    /// Notes that `container` mounts `name`. `ROOT/containers/<container>` must exist already: the note counts only
    /// while it does.
    pub fn attach(&self, name: &str, container: &str) -> Result<(), Error> {
        let held = self.lock(name, FlockOperation::LockShared)?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(held.path().join("users").join(container))
            .map_err(|source| io_error("attach", name, source))?;
        Ok(())
    }

    /// Takes the note back. A volume or note that is gone already is fine.
    pub fn detach(&self, name: &str, container: &str) -> Result<(), Error> {
        check_name(name)?;
        match fs::remove_file(self.dirs.path(name).join("users").join(container)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("detach", name, e)),
            _ => Ok(()),
        }
    }

    fn lock(&self, name: &str, operation: FlockOperation) -> Result<Held, Error> {
        check_name(name)?;
        self.dirs
            .lock(name, operation)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::Missing(name.to_owned()),
                _ => io_error("lock", name, source),
            })
    }

    /// Copies what the image has at `path` into a volume that is still empty, as docker does on first use.
    ///
    /// `rootfs` is the container's root, with nothing mounted over `path` yet; symlinks on the way resolve inside it. Owners,
    /// modes, times, xattrs and hard links are kept, and `_data` takes the owner and mode of the directory. Nothing at `path`:
    /// nothing happens. Blocks while another container fills the same volume.
    pub fn fill(&self, name: &str, rootfs: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        let held = self.lock(name, FlockOperation::LockExclusive)?;
        let data = held.path().join("_data");
        let mark = held.path().join("filling");
        let io = |source| io_error("fill", name, source);
        if mark.exists() {
            // A copy was cut short: begin again from nothing.
            empty(&data).map_err(io)?;
        } else if fs::read_dir(&data).map_err(io)?.next().is_some() {
            return Ok(());
        }
        let fill = |source| Error::Fill {
            name: name.to_owned(),
            source,
        };
        let Some(source) = copy::open_dir_beneath(rootfs, path).map_err(fill)? else {
            return Ok(());
        };
        File::create(&mark).map_err(io)?;
        let target = File::open(&data).map_err(io)?;
        match copy::copy_dir_contents(source.as_fd(), target.as_fd()) {
            Ok(()) => fs::remove_file(&mark).map_err(io),
            Err(e) => {
                // The mark stays if this fails too, and the next container begins again.
                if empty(&data).is_ok() {
                    let _ = fs::remove_file(&mark);
                }
                Err(fill(e))
            }
        }
    }

    /// Removes a volume nobody mounts. With `force` a missing one is fine.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), Error> {
        let held = match self.lock(name, FlockOperation::LockExclusive) {
            Err(Error::Missing(_)) if force => return Ok(()),
            other => other?,
        };
        let fail = |source| io_error("remove", name, source);
        let users = self.users_in(held.path()).map_err(fail)?;
        if !users.is_empty() {
            return Err(Error::InUse {
                name: name.to_owned(),
                users,
            });
        }
        self.dirs.remove(held).map_err(fail)
    }

    /// Removes volumes nobody mounts: anonymous ones, with `all` named ones too, that `wanted` lets through. Returns their
    /// names and the bytes they held.
    pub fn prune(&self, all: bool, wanted: impl Fn(&Volume) -> bool) -> Result<(Vec<String>, u64), Error> {
        self.dirs.sweep();
        let (mut names, mut bytes) = (Vec::new(), 0);
        for volume in self.list()? {
            if !(all || volume.anonymous) || !wanted(&volume) {
                continue;
            }
            let size = disk_usage(&volume.mountpoint);
            match self.remove(&volume.name, true) {
                Ok(()) => {
                    names.push(volume.name);
                    bytes += size;
                }
                Err(Error::InUse { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok((names, bytes))
    }

    /// Bytes on disk of a volume's content.
    pub fn size(&self, volume: &Volume) -> u64 {
        disk_usage(&volume.mountpoint)
    }
}

fn io_error(operation: &'static str, name: &str, source: io::Error) -> Error {
    Error::Io {
        operation,
        name: name.to_owned(),
        source,
    }
}

/// docker's rule for volume names; it also keeps `.new-…`, `..` and separators out of paths.
fn check_name(name: &str) -> Result<(), Error> {
    let bytes = name.as_bytes();
    let fits = (2..=255).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b));
    if fits {
        Ok(())
    } else {
        Err(Error::Name(name.to_owned()))
    }
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0_u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?
        } else {
            fs::remove_file(entry.path())?
        }
    }
    Ok(())
}

/// Bytes on disk below `dir`, without following symlinks; what cannot be read counts nothing.
pub fn disk_usage(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path());
        (dir, volumes)
    }

    fn make(volumes: &Volumes, name: Option<&str>) -> Volume {
        volumes.create(name, BTreeMap::new(), BTreeMap::new()).unwrap()
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in [
            "",
            "a",
            "..",
            "../x",
            "/etc",
            ".hidden",
            "a/b",
            "a b",
            "a\n",
            &"x".repeat(256),
        ] {
            assert!(matches!(check_name(bad), Err(Error::Name(_))), "{bad:?}");
        }
        check_name("data-1.x_y").unwrap();
    }

    #[test]
    fn creating_twice_gives_the_first() {
        let (_dir, volumes) = volumes();
        let first = make(&volumes, Some("data"));
        assert_eq!(make(&volumes, Some("data")), first);
        assert_eq!(volumes.list().unwrap(), [first]);
    }

    #[test]
    fn a_volume_in_use_stays() {
        let (dir, volumes) = volumes();
        make(&volumes, Some("data"));
        fs::create_dir_all(dir.path().join("containers/c1")).unwrap();
        volumes.attach("data", "c1").unwrap();
        assert!(matches!(volumes.remove("data", true), Err(Error::InUse { .. })));
        assert!(volumes.prune(true, |_| true).unwrap().0.is_empty());
        volumes.detach("data", "c1").unwrap();
        volumes.remove("data", false).unwrap();
        assert!(matches!(volumes.inspect("data"), Err(Error::Missing(_))));
    }

    #[test]
    fn a_note_of_a_container_that_is_gone_does_not_hold_the_volume() {
        let (_dir, volumes) = volumes();
        make(&volumes, Some("data"));
        volumes.attach("data", "crashed").unwrap();
        volumes.remove("data", false).unwrap();
    }

    #[test]
    fn prune_takes_anonymous_ones_and_what_crashes_left() {
        let (dir, volumes) = volumes();
        let anonymous = make(&volumes, None);
        make(&volumes, Some("named"));
        let left = dir.path().join("volumes/.new-1");
        fs::create_dir(&left).unwrap();
        assert_eq!(volumes.prune(false, |_| true).unwrap().0, [anonymous.name]);
        assert!(!left.exists());
        assert_eq!(volumes.list().unwrap().len(), 1);
    }

    #[test]
    fn first_use_copies_and_later_use_does_not() {
        let (dir, volumes) = volumes();
        make(&volumes, Some("data"));
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("srv/www")).unwrap();
        fs::write(rootfs.join("srv/www/index.html"), "hello").unwrap();
        let root = File::open(&rootfs).unwrap();
        volumes.fill("data", root.as_fd(), Path::new("/srv/www")).unwrap();
        let copied = dir.path().join("volumes/data/_data/index.html");
        assert_eq!(fs::read_to_string(&copied).unwrap(), "hello");
        fs::write(&copied, "changed").unwrap();
        volumes.fill("data", root.as_fd(), Path::new("/srv/www")).unwrap();
        assert_eq!(fs::read_to_string(&copied).unwrap(), "changed");
    }

    #[test]
    fn a_copy_that_was_cut_short_begins_again() {
        let (dir, volumes) = volumes();
        let volume = make(&volumes, Some("data"));
        fs::write(volume.mountpoint.join("half"), "x").unwrap();
        fs::write(dir.path().join("volumes/data/filling"), "").unwrap();
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("d")).unwrap();
        fs::write(rootfs.join("d/whole"), "y").unwrap();
        volumes
            .fill("data", File::open(&rootfs).unwrap().as_fd(), Path::new("/d"))
            .unwrap();
        assert!(!volume.mountpoint.join("half").exists());
        assert!(volume.mountpoint.join("whole").exists());
    }
}
