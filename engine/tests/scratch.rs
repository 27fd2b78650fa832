//! Scratch disks under e2fsck and the kernel's ext4.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_engine::scratch;
use rustix::fs::{FallocateFlags, XattrFlags};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn require_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("BERTH_TESTS_STRICT").is_none(), "needs root");
    eprintln!("skipped: needs root");
    false
}

/// Has the filesystem's own checker look, where it is installed.
fn check(disk: &Path) {
    let Ok(done) = Command::new("e2fsck").arg("-fn").arg(disk).output() else {
        return;
    };
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
}

struct Mounted(PathBuf);

impl Mounted {
    fn disk(disk: &Path) -> Self {
        Self::new("ext4", disk, "loop", disk.with_extension("mnt"))
    }

    fn new(kind: &str, source: &Path, options: &str, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let done = Command::new("mount")
            .args(["-t", kind, "-o", options])
            .args([source, &at])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        if !std::thread::panicking() {
            assert!(done.unwrap().success(), "{} stays mounted", self.0.display());
        }
    }
}

fn disk(dir: &Path, bytes: u64) -> PathBuf {
    let disk = dir.join("disk");
    scratch::create(&disk, bytes).unwrap();
    let made = fs::metadata(&disk).unwrap();
    assert_eq!((made.size(), made.mode() & 0o777), (bytes, 0o600));
    assert!(made.blocks() * 512 < MIB, "{} KiB for {bytes}", made.blocks() / 2);
    check(&disk);
    disk
}

/// A directory per group or so, as ext4 spreads those of the root, with files in each.
fn spread(root: &Path, directories: usize) {
    for number in 0..directories {
        let dir = root.join(format!("dir-{number}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..3 {
            fs::write(
                dir.join(format!("file-{file}")),
                format!("{number}-{file}").repeat(2000),
            )
            .unwrap();
        }
    }
}

fn assert_spread(root: &Path, directories: usize) {
    for number in 0..directories {
        for file in 0..3 {
            let path = root.join(format!("dir-{number}/file-{file}"));
            assert_eq!(
                fs::read_to_string(path).unwrap(),
                format!("{number}-{file}").repeat(2000)
            );
        }
    }
}

#[test]
fn a_small_disk_is_filled_to_its_last_block() {
    if !require_root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    for bytes in [scratch::BYTES_MIN, 16 * MIB, 200 * MIB + 12345] {
        let disk = disk(tmp.path(), bytes);
        let mounted = Mounted::disk(&disk);
        let mut file = File::create(mounted.0.join("all")).unwrap();
        let block = [0x5a; 4096];
        let mut written = 0;
        let error = loop {
            match file.write_all(&block) {
                Ok(()) => written += block.len() as u64,
                Err(error) => break error,
            }
        };
        drop(file);
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(written > bytes / 4, "{written} of {bytes}");
        drop(mounted);
        check(&disk);
        let mounted = Mounted::disk(&disk);
        let all = fs::read(mounted.0.join("all")).unwrap();
        assert!(all.len() as u64 >= written && all.iter().all(|&b| b == 0x5a));
        drop(mounted);
        fs::remove_file(disk).unwrap();
    }
}

#[test]
fn every_group_of_a_large_disk_can_be_used() {
    if !require_root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    for bytes in [GIB, 10 * GIB, 100 * GIB] {
        let disk = disk(tmp.path(), bytes);
        let mounted = Mounted::disk(&disk);
        spread(&mounted.0, 100);
        // Nearly all blocks are given away; those of a hole's size are not written.
        let whole = File::create(mounted.0.join("whole")).unwrap();
        rustix::fs::fallocate(whole.as_fd(), FallocateFlags::empty(), 0, bytes / 100 * 94).unwrap();
        drop(whole);
        drop(mounted);
        check(&disk);
        let mounted = Mounted::disk(&disk);
        assert_spread(&mounted.0, 100);
        drop(mounted);
        let taken = fs::metadata(&disk).unwrap().blocks() * 512;
        assert!(taken < 64 * MIB, "{} MiB for {bytes}", taken / MIB);
        fs::remove_file(disk).unwrap();
    }
}

#[test]
fn any_size_is_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let group = 128 * MIB;
    let sizes = [
        scratch::BYTES_MIN + 1,
        group - 4096,
        group,
        group + 4096,
        group + 9 * MIB,
        512 * MIB - 1,
        512 * MIB,
        3 * group + 3 * MIB,
        17 * GIB + 4097,
        1 << 40,
        scratch::BYTES_MAX,
    ];
    for bytes in sizes {
        let path = tmp.path().join("disk");
        match scratch::create(&path, bytes) {
            Ok(()) => check(&path),
            // The filesystem the test runs on takes no file that large.
            Err(error) => assert!(error.chain().contains("File too large"), "{}", error.chain()),
        }
        let _ = fs::remove_file(&path);
    }
}

#[test]
fn overlayfs_takes_it_as_the_upper_layer() {
    if !require_root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let disk = disk(tmp.path(), GIB);
    let mounted = Mounted::disk(&disk);
    let lower = tmp.path().join("lower");
    fs::create_dir_all(lower.join("dir")).unwrap();
    fs::write(lower.join("gone"), "low").unwrap();
    fs::write(lower.join("dir/old"), "low").unwrap();
    let (upper, work) = (mounted.0.join("upper"), mounted.0.join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let merged = Mounted::new(
        "overlay",
        Path::new("overlay"),
        &options,
        tmp.path().join("merged"),
    );
    fs::remove_file(merged.0.join("gone")).unwrap();
    fs::remove_dir_all(merged.0.join("dir")).unwrap();
    fs::create_dir(merged.0.join("dir")).unwrap();
    rustix::fs::setxattr(merged.0.join("dir"), "user.a", b"b", XattrFlags::empty()).unwrap();
    drop(merged);
    let mut opaque = [0; 8];
    let len = rustix::fs::getxattr(upper.join("dir"), "trusted.overlay.opaque", &mut opaque).unwrap();
    assert_eq!(&opaque[..len], b"y");
    assert_eq!(fs::symlink_metadata(upper.join("gone")).unwrap().rdev(), 0);
    drop(mounted);
    check(&disk);
}

#[test]
fn a_disk_in_the_way_or_of_no_size_is_an_error_that_changes_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("disk");
    for bytes in [0, scratch::BYTES_MIN - 1, scratch::BYTES_MAX + 1] {
        let error = scratch::create(&path, bytes).unwrap_err().chain();
        assert_eq!(
            error,
            format!("invalid disk size {bytes}: 8 MiB to 16 TiB can be formatted")
        );
        assert!(!path.exists());
    }
    fs::write(&path, "here first").unwrap();
    let error = scratch::create(&path, GIB).unwrap_err().chain();
    assert!(
        error.contains("cannot create") && error.contains("File exists"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "here first");
}
