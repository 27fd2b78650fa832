//! Debian's cloud kernel, from its package, once: `target/testvm/kernel/{boot,lib/modules}`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

/// The package whose one dependency is the newest kernel of Debian's cloud flavour.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel package.
pub struct Kernel {
    /// The bootable image.
    pub image: PathBuf,
    /// `lib/modules/VERSION`.
    pub modules: PathBuf,
}

impl Kernel {
    /// The kernel of this checkout, fetched from the Debian mirror when it is not there yet. Blocks while another test
    /// fetches it.
    ///
    /// # Panics
    /// When the package cannot be downloaded or unpacked.
    pub fn fetch() -> Self {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/testvm");
        fs::create_dir_all(&cache).expect("make target/testvm");
        let cache = cache.canonicalize().expect("target/testvm has a path");
        let lock = fs::File::create(cache.join("lock")).expect("make the lock file");
        flock(&lock, FlockOperation::LockExclusive).expect("lock target/testvm");
        let kernel = cache.join("kernel");
        if !kernel.exists() {
            let package = download(&cache);
            let fresh = tempfile::tempdir_in(&cache).expect("make a directory to unpack in");
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(fresh.path()));
            fs::rename(fresh.keep(), &kernel).expect("put the unpacked kernel in place");
        }
        Self {
            image: only(&kernel.join("boot"), "vmlinuz-"),
            modules: only(&kernel.join("lib/modules"), ""),
        }
    }
}

/// The path of the package file. Stale package lists name versions the mirror no longer has, so they are renewed once.
fn download(cache: &Path) -> PathBuf {
    if try_download(cache).is_err() {
        run(Command::new("apt-get").args(["-qq", "update"]));
        try_download(cache).unwrap_or_else(|error| panic!("{error}"));
    }
    only(cache, "linux-image-")
}

fn try_download(cache: &Path) -> Result<(), String> {
    let depends = try_run(Command::new("apt-cache").args(["depends", METAPACKAGE]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .ok_or_else(|| format!("{METAPACKAGE} depends on nothing:\n{depends}"))?;
    if fs::read_dir(cache)
        .expect("list target/testvm")
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(package))
    {
        return Ok(());
    }
    for entry in fs::read_dir(cache).expect("list target/testvm").flatten() {
        if entry.file_name().to_string_lossy().ends_with(".deb") {
            fs::remove_file(entry.path()).expect("remove an older package");
        }
    }
    try_run(
        Command::new("apt-get")
            .args(["-qq", "download", package])
            .current_dir(cache),
    )
    .map(drop)
}

fn run(command: &mut Command) {
    try_run(command).unwrap_or_else(|error| panic!("{error}"));
}

fn try_run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?}: {}: {said}", output.status))
    }
}

/// The one entry of `directory` whose name starts with `prefix`.
fn only(directory: &Path, prefix: &str) -> PathBuf {
    fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .unwrap_or_else(|| panic!("no {prefix}* in {}", directory.display()))
        .path()
}
