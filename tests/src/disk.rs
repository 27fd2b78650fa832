//! A filesystem of its own over a [`Berth`]'s `--root`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Berth;

/// Unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    image: Option<PathBuf>,
}

impl Disk {
    /// A tmpfs of that many bytes. `None`, said aloud, where it cannot be mounted.
    pub fn tmpfs(berth: &Berth, bytes: u64) -> Option<Self> {
        let options = format!("size={bytes}");
        Self::mount(berth, None, &["-t", "tmpfs", "-o", &options, "tmpfs"])
    }

    /// A new ext4 of that many bytes on a loop device. `None`, said aloud, where the host has none.
    ///
    /// # Panics
    /// When mkfs.ext4 is missing.
    pub fn ext4(berth: &Berth, bytes: u64) -> Option<Self> {
        let image = berth.scratch().join("disk");
        let file = std::fs::File::create(&image).expect("create a disk image");
        file.set_len(bytes).expect("size a disk image");
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(&image)
            .status();
        assert!(made.expect("start mkfs.ext4").success(), "mkfs.ext4 failed");
        Self::of(berth, image)
    }

    /// What would be on the disk had the power failed this moment, as the disk of another `berth`: what was written to `self`
    /// but not flushed is in the kernel's memory, not in the image.
    ///
    /// # Panics
    /// When the image cannot be copied.
    pub fn after_power_cut(&self, berth: &Berth) -> Option<Self> {
        let image = berth.scratch().join("disk");
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .arg(self.image.as_ref().expect("an ext4 has an image"))
            .arg(&image)
            .status();
        assert!(copied.expect("start cp").success(), "cannot copy the image");
        Self::of(berth, image)
    }

    fn of(berth: &Berth, image: PathBuf) -> Option<Self> {
        let path = image.to_str().expect("temporary paths are UTF-8").to_owned();
        // Nothing goes to the disk because five seconds have passed.
        Self::mount(berth, Some(image), &["-o", "loop,commit=300", &path])
    }

    fn mount(berth: &Berth, image: Option<PathBuf>, arguments: &[&str]) -> Option<Self> {
        let at = berth.root();
        std::fs::create_dir_all(&at).expect("make --root");
        let mounted = Command::new("mount")
            .args(arguments)
            .arg(&at)
            .output()
            .expect("start mount");
        if mounted.status.success() {
            return Some(Self { at, image });
        }
        let why = String::from_utf8_lossy(&mounted.stderr);
        assert!(
            std::env::var_os("BERTH_TESTS_STRICT").is_none_or(|value| value != "1"),
            "cannot mount a disk: {why}"
        );
        eprintln!("skipped: cannot mount a disk: {why}");
        None
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}
