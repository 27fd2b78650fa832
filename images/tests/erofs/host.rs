//! What the tests need of the host: root, loop devices, mounts that go away with their test.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_images::erofs;

/// Whether the test may run; a skip is said aloud and fails under `BERTH_TESTS_STRICT`.
pub fn require(programs: &[&str]) -> bool {
    let has = |name: &&str| {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()))
    };
    let missing: Vec<_> = programs.iter().filter(|name| !has(name)).collect();
    if rustix::process::geteuid().is_root() && missing.is_empty() {
        return true;
    }
    assert!(
        std::env::var_os("BERTH_TESTS_STRICT").is_none(),
        "needs root and {missing:?}"
    );
    eprintln!("skipped: needs root and {missing:?}");
    false
}

/// The image of a tree, written anew.
pub fn image(tree: &Path, path: &Path) -> berth_images::layer::Result<()> {
    let file = File::create(path).unwrap();
    let root = File::open(tree).unwrap();
    erofs::write(root.as_fd(), erofs::Image { file: &file, path }, [7; 16])
}

/// A mount, gone when dropped.
pub struct Mounted {
    pub path: PathBuf,
}

impl Mounted {
    /// Mounts an EROFS image on a new directory beside it.
    pub fn image(image: &Path) -> Self {
        Self::new("erofs", image, "loop,ro", &image.with_extension("mnt"))
    }

    pub fn overlay(lower: &[&Path], at: &Path) -> Self {
        let lower: Vec<_> = lower.iter().map(|path| path.to_str().unwrap()).collect();
        let options = format!("ro,lowerdir={}", lower.join(":"));
        Self::new("overlay", Path::new("overlay"), &options, at)
    }

    fn new(kind: &str, source: &Path, options: &str, at: &Path) -> Self {
        std::fs::create_dir(at).unwrap();
        let done = Command::new("mount")
            .args(["-t", kind, "-o", options])
            .args([source, at])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self { path: at.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.path).status();
        if !std::thread::panicking() {
            assert!(done.unwrap().success(), "{} stays mounted", self.path.display());
        }
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Debian's own checker, where it is installed.
pub fn check(image: &Path) {
    let Ok(done) = Command::new("fsck.erofs").arg("--extract").arg(image).output() else {
        return;
    };
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        done.status.success() && !said.contains("<E>"),
        "fsck.erofs: {said}"
    );
}
