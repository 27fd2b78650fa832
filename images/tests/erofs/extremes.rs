//! Sizes at and beyond what the format's fields suggest.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use crate::compare::assert_same;
use crate::host::{Mounted, check, image, require};

#[test]
fn a_directory_holds_more_names_than_sixteen_bits_count() {
    if !require(&["mount"]) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let (source, at) = (tmp.path().join("source"), tmp.path().join("image"));
    fs::create_dir(&source).unwrap();
    for number in 0..70_000 {
        File::create(source.join(format!("file-{number}"))).unwrap();
    }
    image(&source, &at).unwrap();
    let mounted = Mounted::image(&at);
    assert_eq!(fs::read_dir(&mounted.path).unwrap().count(), 70_000);
    for number in [0, 1, 9999, 65_535, 65_536, 69_999] {
        assert!(mounted.path.join(format!("file-{number}")).exists(), "{number}");
    }
    assert!(!mounted.path.join("file-70000").exists());
}

#[test]
fn a_path_of_the_longest_names_comes_back() {
    if !require(&["mount"]) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let (source, at) = (tmp.path().join("source"), tmp.path().join("image"));
    let deep: PathBuf = std::iter::repeat_n("d".repeat(255), 14).collect();
    fs::create_dir_all(source.join(&deep)).unwrap();
    fs::write(source.join(&deep).join("f".repeat(255)), "deep").unwrap();
    image(&source, &at).unwrap();
    check(&at);
    let mounted = Mounted::image(&at);
    assert_same(&source, &mounted.path);
}

#[test]
fn holes_take_no_disk() {
    if !require(&["mount"]) {
        return;
    }
    const GIB: u64 = 1 << 30;
    let tmp = tempfile::tempdir().unwrap();
    let (source, at) = (tmp.path().join("source"), tmp.path().join("image"));
    fs::create_dir(&source).unwrap();
    let marks = [(0, b'a'), (3 * GIB + 5, b'b'), (5 * GIB + 7, b'c')];
    let sparse = File::create(source.join("sparse")).unwrap();
    for (offset, byte) in marks {
        sparse.write_all_at(&[byte], offset).unwrap();
    }
    let hollow = File::create(source.join("hollow")).unwrap();
    hollow.set_len(6 * GIB).unwrap();
    fs::write(source.join("zz"), "after both").unwrap();
    image(&source, &at).unwrap();

    let made = fs::metadata(&at).unwrap();
    assert!(made.size() > 11 * GIB);
    assert!(
        made.blocks() * 512 < 1 << 20,
        "{} KiB allocated",
        made.blocks() / 2
    );
    let mounted = Mounted::image(&at);
    let found = File::open(mounted.path.join("sparse")).unwrap();
    assert_eq!(found.metadata().unwrap().size(), 5 * GIB + 8);
    for (offset, byte) in marks {
        let mut around = [0xff; 8];
        found.read_exact_at(&mut around[..1], offset).unwrap();
        assert_eq!(around[0], byte, "at {offset}");
    }
    let mut hole = [0xff; 4096];
    found.read_exact_at(&mut hole, 2 * GIB).unwrap();
    assert_eq!(hole, [0; 4096]);
    assert_eq!(fs::read(mounted.path.join("zz")).unwrap(), b"after both");
}

/// tmpfs takes larger xattrs than ext4.
fn tmpfs() -> Option<tempfile::TempDir> {
    let tmp = tempfile::tempdir_in("/dev/shm").ok()?;
    let probe = rustix::fs::setxattr(tmp.path(), "user.probe", &[1; 20_000], XattrFlags::empty());
    probe.ok()?;
    rustix::fs::removexattr(tmp.path(), "user.probe").ok()?;
    Some(tmp)
}

#[test]
fn xattrs_larger_than_blocks_come_back() {
    if !require(&["mount"]) {
        return;
    }
    let Some(tmp) = tmpfs() else {
        eprintln!("skipped: no filesystem here takes large xattrs");
        return;
    };
    let (source, at) = (tmp.path().join("source"), tmp.path().join("image"));
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::write(source.join("file"), vec![b'x'; 5000]).unwrap();
    fs::write(source.join("next"), "after it").unwrap();
    symlink("t".repeat(300), source.join("symlink")).unwrap();
    let set = |path: &Path, name: &str, len: usize| {
        rustix::fs::lsetxattr(path, name, &vec![len as u8; len], XattrFlags::empty()).unwrap();
    };
    // Around the room that inodes leave in a block, and far over.
    for (name, len) in [("a", 3900), ("b", 65535), ("c", 65535), ("d", 1)] {
        set(&source.join("file"), &format!("user.{name}"), len);
    }
    set(&source.join("dir"), "trusted.large", 30_000);
    set(&source.join("symlink"), "trusted.large", 3800);
    set(&source.join("next"), "user.small", 4096 - 64 - 12 - 4 - 5 - 8);
    image(&source, &at).unwrap();
    let mounted = Mounted::image(&at);
    assert_same(&source, &mounted.path);
}

#[test]
fn an_xattr_that_the_format_has_no_room_for_is_named() {
    if !require(&[]) {
        return;
    }
    let Some(tmp) = tmpfs() else {
        eprintln!("skipped: no filesystem here takes large xattrs");
        return;
    };
    let source = tmp.path().join("source");
    fs::create_dir_all(source.join("dir")).unwrap();
    rustix::fs::setxattr(source.join("dir"), "user.a", &[0; 65536], XattrFlags::empty()).unwrap();
    let error = image(&source, &tmp.path().join("image")).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.to_string(), "lay out \"dir\"");
    assert_eq!(cause, "extended attribute over 65535 bytes");
}
