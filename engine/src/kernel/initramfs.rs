//! What a guest boots with: the guest program as `/init`, the modules, and `/modules`, which lists their paths in the order they
//! are loaded, one a line. The guest program reads that list (docs/guest.md).

use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};

use berth_images::Digest;

use super::cpio::Archive;
use super::error::{At, Error};
use crate::programs;

/// The beginning of the names of finished ones. The rest is the guest program's digest.
const PREFIX: &str = "initramfs-";
/// Where one is written. Its writer has the lock, so what is found here is of a writer that died.
const ASIDE: &str = ".initramfs";
/// More than the guest program may have, by far.
const GUEST_MAX: u64 = 64 << 20;

/// The program that is a guest's first process: `BERTH_GUEST`, or `berth-guest` beside the running program.
///
/// # Errors
///
/// `/proc` is not mounted.
pub fn guest_program() -> Result<PathBuf, Error> {
    programs::beside("BERTH_GUEST", "berth-guest").at("read", Path::new("/proc/self/exe"))
}

/// Whether the guest program is there to be put into an initramfs.
///
/// # Errors
///
/// [`Error::Guest`].
pub fn check_guest(guest: &Path) -> Result<(), Error> {
    read_guest(guest).map(drop)
}

fn read_guest(guest: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(guest)?.take(GUEST_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > GUEST_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    };
    read().map_err(|source| Error::Guest {
        path: guest.to_owned(),
        source,
    })
}

/// A guest program's bytes and where its initramfs is or will be in the kernel's directory.
pub(super) struct Wanted {
    guest: Vec<u8>,
    pub(super) path: PathBuf,
}

impl Wanted {
    pub(super) fn of(guest: &Path, kernel: &Path) -> Result<Self, Error> {
        let guest = read_guest(guest)?;
        let path = kernel.join(format!("{PREFIX}{}", Digest::of(&guest).hex()));
        Ok(Self { guest, path })
    }

    /// Makes the file, with `modules` of the kernel's own in that order, and removes those made for other guest programs. The
    /// caller has the lock. Blocking: waits for the disk.
    pub(super) fn make(&self, kernel: &Path, modules: &[String]) -> Result<(), Error> {
        let aside = kernel.join(ASIDE);
        let file = File::create(&aside).at("create", &aside)?;
        let mut archive = Archive::new(BufWriter::with_capacity(256 << 10, file));
        let mut list = String::new();
        archive
            .file("init", 0o755, &self.guest)
            .and_then(|()| archive.directory("lib"))
            .and_then(|()| archive.directory("lib/modules"))
            .at("write", &aside)?;
        for name in modules {
            let from = super::store::module_file(kernel, name);
            let content = fs::read(&from).at("read", &from)?;
            let path = format!("lib/modules/{name}.ko");
            archive.file(&path, 0o644, &content).at("write", &aside)?;
            list.push_str(&format!("/{path}\n"));
        }
        archive
            .file("modules", 0o644, list.as_bytes())
            .and_then(|()| archive.finish())
            .and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error))
            .and_then(|file| file.sync_all())
            .at("write", &aside)?;
        for entry in fs::read_dir(kernel).at("list", kernel)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                fs::remove_file(entry.path()).at("remove", &entry.path())?;
            }
        }
        fs::rename(&aside, &self.path).at("rename to", &self.path)?;
        File::open(kernel)
            .and_then(|dir| dir.sync_all())
            .at("sync", kernel)
    }
}
