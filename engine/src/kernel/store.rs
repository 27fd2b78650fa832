//! `ROOT/kernels`.
//!
//! ```text
//! ROOT/kernels/<name>/kernel             the kernel file
//! ROOT/kernels/<name>/kernel.json        [`Record`]; its flock orders those who make an initramfs
//! ROOT/kernels/<name>/modules/<m>.ko     what a guest loads, unpacked
//! ROOT/kernels/<name>/initramfs-<hex>    made when first asked for, for the guest program of this digest
//! ROOT/kernels/.default.json             the name of the default; without it, the host's newest is
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use berth_images::Digest;
use berth_images::digest::{Algorithm, Hasher};
use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::error::{At, Error};
use super::host::{Host, Installed};
use super::image;
use super::initramfs::Wanted;
use super::modules::{self, Selection};
use crate::named_dirs::{Held, NamedDirs};
use crate::record::{Durability, replace};

const KERNEL: &str = "kernel";
const RECORD: &str = "kernel.json";
const NAME_MAX: usize = 100;

/// The kernels of one `ROOT`.
#[derive(Debug, Clone)]
pub struct Kernels {
    root: PathBuf,
    dirs: NamedDirs,
    host: Host,
}

/// A stored kernel, held against removal as long as this value lives.
#[derive(Debug)]
pub struct Kernel {
    record: Record,
    held: Held,
}

/// What `kernel.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    /// Its name here.
    pub name: String,
    /// What `uname -r` says in its guests.
    pub release: String,
    /// Of the kernel file.
    pub digest: Digest,
    /// Bytes of the kernel file.
    pub size: u64,
    /// What guests load, in that order.
    pub modules: Vec<String>,
    /// What its guests go without, as sentences; for it has no such modules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// When it was stored.
    pub created: Timestamp,
    /// The file it was copied from.
    pub source: Source,
    /// It was found on the host and not registered by anybody: it goes when the host's file does.
    #[serde(default)]
    pub is_hosts: bool,
}

/// A file, told from what it may be replaced by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// When it was last written: seconds and nanoseconds.
    pub modified: (i64, i64),
}

impl Kernels {
    /// Names the kernels under `root`; nothing is opened yet.
    pub fn new(root: &Path) -> Self {
        let root = root.join("kernels");
        Self {
            dirs: NamedDirs::new(root.clone()),
            root,
            host: Host::default(),
        }
    }

    /// The same, looking for the host's kernels elsewhere.
    #[must_use]
    pub fn with_host(self, host: Host) -> Self {
        Self { host, ..self }
    }

    /// Stores the kernel file `kernel`, with what guests need of `modules`, by default of the host's own `/lib/modules/<release>`;
    /// where that is not there, everything is taken to be built in. Blocking: copies, and waits for the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`]; what is no kernel, or whose modules are another's or lack one that every guest needs.
    pub fn add(&self, name: &str, kernel: &Path, modules: Option<&Path>) -> Result<Record, Error> {
        self.store(name, kernel, modules, false)
    }

    /// A stored kernel.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`].
    pub fn get(&self, name: &str) -> Result<Kernel, Error> {
        let held = self.lock(name, FlockOperation::LockShared)?;
        let path = held.path().join(RECORD);
        let bytes = fs::read(&path).at("read", &path)?;
        let record = serde_json::from_slice(&bytes)
            .map_err(io::Error::from)
            .at("parse", &path)?;
        Ok(Kernel { record, held })
    }

    /// All stored kernels, by name. One that goes away meanwhile is left out.
    ///
    /// # Errors
    ///
    /// A directory or record that cannot be read.
    pub fn list(&self) -> Result<Vec<Record>, Error> {
        let mut names = self.dirs.names().at("list", &self.root)?;
        names.retain(|name| is_name(name));
        names.sort();
        let mut records = Vec::new();
        for name in names {
            match self.get(&name) {
                Ok(kernel) => records.push(kernel.record),
                Err(Error::Missing(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(records)
    }

    /// Removes a kernel nobody is about to boot.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::IsDefault`], [`Error::Busy`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.dirs.sweep();
        let held = self.lock(name, FlockOperation::NonBlockingLockExclusive)?;
        if self.chosen()?.as_deref() == Some(name) {
            return Err(Error::IsDefault(name.to_owned()));
        }
        self.dirs.remove(held).at("remove", &self.dirs.path(name))
    }

    /// The kernel of microVMs that name none: the chosen one, else the newest that a package installed on the host, which is
    /// stored under its release the first time.
    ///
    /// # Errors
    ///
    /// [`Error::NoDefault`], and those of [`Kernels::add`].
    pub fn default(&self) -> Result<Kernel, Error> {
        if let Some(name) = self.chosen()? {
            return self.get(&name);
        }
        let installed = self.host.newest()?.ok_or_else(|| Error::NoDefault {
            boot: self.host.boot.clone(),
            modules: self.host.modules.clone(),
        })?;
        self.installed(&installed)
    }

    /// The name of the default kernel, also of one that is not stored yet; `None` without one.
    ///
    /// # Errors
    ///
    /// `/boot` or the choice cannot be read.
    pub fn default_name(&self) -> Result<Option<String>, Error> {
        match self.chosen()? {
            Some(name) => Ok(Some(name)),
            None => Ok(self.host.newest()?.map(|installed| installed.release)),
        }
    }

    /// The name that [`Kernels::choose`] was given.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn chosen(&self) -> Result<Option<String>, Error> {
        let path = self.choice();
        match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            other => serde_json::from_slice(&other.at("read", &path)?)
                .map(Some)
                .map_err(io::Error::from)
                .at("parse", &path),
        }
    }

    /// Makes a stored kernel the default, or with `None` the host's newest again.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`].
    pub fn choose(&self, name: Option<&str>) -> Result<(), Error> {
        let path = self.choice();
        // Until the choice is on record, so that it is not removed meanwhile.
        let _held = match name {
            Some(name) => self.lock(name, FlockOperation::LockShared)?,
            None => {
                return match fs::remove_file(&path) {
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                    other => other.at("remove", &path),
                };
            }
        };
        let all = File::open(&self.root).at("open", &self.root)?;
        rustix::fs::flock(&all, FlockOperation::LockExclusive).at("lock", &self.root)?;
        let text = serde_json::to_vec(&name).map_err(io::Error::from);
        replace(&path, &text.at("write", &path)?, Durability::Synced)
            .map_err(io::Error::other)
            .at("write", &path)
    }

    fn choice(&self) -> PathBuf {
        self.root.join(".default.json")
    }

    fn lock(&self, name: &str, operation: FlockOperation) -> Result<Held, Error> {
        if !is_name(name) {
            return Err(Error::Name(name.to_owned()));
        }
        self.dirs
            .lock(name, operation)
            .map_err(|source| match source.kind() {
                ErrorKind::NotFound => Error::Missing(name.to_owned()),
                ErrorKind::WouldBlock => Error::Busy(name.to_owned()),
                _ => Error::Io {
                    op: "lock",
                    path: self.dirs.path(name),
                    source,
                },
            })
    }

    /// The host's kernel as it is now, stored.
    fn installed(&self, installed: &Installed) -> Result<Kernel, Error> {
        let source = Source::of(&installed.kernel)?;
        let name = &installed.release;
        loop {
            match self.get(name) {
                // One that somebody registered under this name is what they want it to be.
                Ok(kernel) if !kernel.record.is_hosts || kernel.record.source == source => return Ok(kernel),
                // The package was upgraded and kept its release.
                Ok(kernel) => {
                    drop(kernel);
                    let held = self.lock(name, FlockOperation::LockExclusive)?;
                    self.dirs.remove(held).at("remove", &self.dirs.path(name))?;
                }
                Err(Error::Missing(_)) => {}
                Err(e) => return Err(e),
            }
            match self.store(name, &installed.kernel, Some(&installed.modules), true) {
                Ok(_) => self.forget_uninstalled(),
                // Another process was first.
                Err(Error::Taken(_)) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Removes the host's kernels whose files are gone from the host. What is in use goes another time.
    fn forget_uninstalled(&self) {
        for record in self.list().unwrap_or_default() {
            if record.is_hosts && !record.source.path.exists() {
                let _ = self.remove(&record.name);
            }
        }
    }

    fn store(
        &self,
        name: &str,
        kernel: &Path,
        modules: Option<&Path>,
        is_hosts: bool,
    ) -> Result<Record, Error> {
        if !is_name(name) {
            return Err(Error::Name(name.to_owned()));
        }
        if self.dirs.path(name).exists() {
            return Err(Error::Taken(name.to_owned()));
        }
        self.dirs.sweep();
        let file = File::open(kernel).at("open", kernel)?;
        let source = Source::of(kernel)?;
        let release = image::release(&file, kernel)?;
        let hosts = self.host.modules.join(&release);
        let modules = modules.or_else(|| hosts.join("modules.builtin").is_file().then_some(&*hosts));
        let selection = match modules {
            Some(tree) => modules::select(tree, &release)?,
            None => Selection::default(),
        };
        let mut made = None;
        let stored = self.dirs.create(name, |dir| {
            let (digest, size) = copy(&file, kernel, &dir.join(KERNEL))?;
            write_modules(dir, &selection)?;
            let record = Record {
                name: name.to_owned(),
                release,
                digest,
                size,
                modules: selection
                    .modules
                    .iter()
                    .map(|module| module.name.clone())
                    .collect(),
                lacks: match modules {
                    Some(_) => selection
                        .lacks
                        .iter()
                        .map(|(module, without)| format!("kernel {name} has no module {module}: {without}"))
                        .collect(),
                    None => vec![format!(
                        "kernel {name} has no modules: none were named, and {} is not there; all that guests need must be built in",
                        hosts.display()
                    )],
                },
                created: Timestamp::now(),
                source,
                is_hosts,
            };
            let bytes = serde_json::to_vec(&record)
                .map_err(io::Error::from)
                .map_err(Failed::Io)?;
            write(&dir.join(RECORD), &bytes)?;
            made = Some(record);
            Ok(())
        });
        match stored {
            Ok(()) => Ok(made.expect("what was stored has a record")),
            Err(Failed::Here(e)) => Err(e),
            Err(Failed::Io(e)) if e.kind() == ErrorKind::AlreadyExists => Err(Error::Taken(name.to_owned())),
            Err(Failed::Io(source)) => Err(Error::Io {
                op: "create",
                path: self.dirs.path(name),
                source,
            }),
        }
    }
}

impl Kernel {
    /// What is known of it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The kernel file: a bzImage or a vmlinux, as it was registered.
    pub fn image(&self) -> PathBuf {
        self.held.path().join(KERNEL)
    }

    /// The initial file system that runs the guest program `guest`, made if this kernel has none for exactly that program.
    /// Reads the program each time, so an upgraded one is never run stale. Blocking.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`].
    pub fn initramfs(&self, guest: &Path) -> Result<PathBuf, Error> {
        let dir = self.held.path();
        let wanted = Wanted::of(guest, dir)?;
        if !wanted.path.exists() {
            let record = dir.join(RECORD);
            let lock = File::open(&record).at("open", &record)?;
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).at("lock", &record)?;
            if !wanted.path.exists() {
                wanted.make(dir, &self.record.modules)?;
            }
        }
        Ok(wanted.path)
    }
}

impl Source {
    fn of(path: &Path) -> Result<Self, Error> {
        let found = fs::metadata(path).at("look at", path)?;
        Ok(Self {
            path: std::path::absolute(path).at("look at", path)?,
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

/// Where a kernel's directory has the module `name`.
pub(super) fn module_file(kernel: &Path, name: &str) -> PathBuf {
    kernel.join("modules").join(format!("{name}.ko"))
}

/// Why a directory was not filled: an error of ours, or one of making directories.
enum Failed {
    Here(Error),
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

/// Copies a kernel file and tells what was copied.
fn copy(mut from: &File, path: &Path, to: &Path) -> Result<(Digest, u64), Error> {
    let mut out = File::create_new(to).at("create", to)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let len = match io::Read::read(&mut from, &mut buffer) {
            Ok(0) => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other.at("read", path)?,
        };
        hasher.update(&buffer[..len]);
        out.write_all(&buffer[..len]).at("write", to)?;
        size += len as u64;
    }
    out.sync_all().at("sync", to)?;
    Ok((hasher.finish(), size))
}

fn write_modules(dir: &Path, selection: &Selection) -> Result<(), Error> {
    let modules = dir.join("modules");
    DirBuilder::new()
        .mode(0o700)
        .create(&modules)
        .at("create", &modules)?;
    for module in &selection.modules {
        write(&module_file(dir, &module.name), &module.content)?;
    }
    File::open(&modules)
        .and_then(|dir| dir.sync_all())
        .at("sync", &modules)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = File::create_new(path).at("create", path)?;
    file.write_all(bytes).at("write", path)?;
    file.sync_all().at("sync", path)
}

/// The characters of releases, and none that could lead out of the directory.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.+~-".contains(&b))
}
