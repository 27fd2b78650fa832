//! Archives made entry by entry, a place to unpack them into, and a look at what came of it.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use berth_images::layer::tar::{Kind, NewEntry, Time, Writer};
use berth_images::layer::{self, Compression, DiffOptions, Form, Limits};

/// Unpacking owners, devices and trusted xattrs takes root.
pub fn root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("BERTH_TESTS_STRICT").is_none(), "needs root");
    eprintln!("skipped: needs root");
    false
}

pub fn entry<'a>(path: &'a str, kind: Kind, link: &'a str) -> NewEntry<'a> {
    NewEntry {
        path: path.as_bytes(),
        link: link.as_bytes(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time {
            secs: 1_000_000_000,
            nanos: 123_456_789,
        },
        size: 0,
        xattrs: &[],
    }
}

pub fn tar(build: impl FnOnce(&mut Writer<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    build(&mut writer);
    writer.finish().unwrap();
    bytes
}

pub fn file(w: &mut Writer<&mut Vec<u8>>, path: &str, data: &[u8]) {
    w.header(&NewEntry {
        size: data.len() as u64,
        ..entry(path, Kind::File, "")
    })
    .unwrap();
    w.data(data).unwrap();
    w.pad().unwrap();
}

pub fn plain(w: &mut Writer<&mut Vec<u8>>, path: &str, kind: Kind, link: &str) {
    w.header(&NewEntry {
        mode: 0o755,
        ..entry(path, kind, link)
    })
    .unwrap();
}

pub fn unpack_with(
    dir: &Path,
    bytes: &[u8],
    compression: Compression,
    limits: &Limits,
) -> layer::Result<layer::Received> {
    let fd = File::open(dir).unwrap();
    layer::unpack(
        fd.as_fd(),
        compression,
        bytes,
        berth_images::digest::Algorithm::Sha256,
        limits,
    )
}

pub fn unpack(dir: &Path, bytes: &[u8]) -> layer::Result<layer::Received> {
    unpack_with(dir, bytes, Compression::None, &Limits::default())
}

/// A directory `root` to unpack into beside a directory `outside` that must not change.
pub fn arena() -> (tempfile::TempDir, std::path::PathBuf) {
    let tmp = tempfile::tempdir().unwrap();
    let root = tmp.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::create_dir(tmp.path().join("outside")).unwrap();
    fs::write(tmp.path().join("outside/victim"), "kept").unwrap();
    fs::set_permissions(
        tmp.path().join("outside/victim"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    (tmp, root)
}

pub fn assert_outside_untouched(tmp: &Path) {
    let outside = tmp.join("outside");
    let names: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["victim"], "something was made or removed outside");
    let victim = fs::symlink_metadata(outside.join("victim")).unwrap();
    assert_eq!((victim.mode() & 0o7777, victim.nlink()), (0o640, 1));
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "kept");
    assert!(xattr(&outside, "trusted.overlay.opaque").is_none());
    let mut top: Vec<_> = fs::read_dir(tmp)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    top.sort();
    assert_eq!(top, ["outside", "root"]);
}

pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 1024];
    let got = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(got);
    Some(value)
}

pub fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

pub fn diff(dir: &Path, form: Form) -> Vec<u8> {
    let mut out = Vec::new();
    let fd = File::open(dir).unwrap();
    let options = DiffOptions {
        form,
        list_root: true,
        exclude: Vec::new(),
    };
    let written = layer::diff(fd.as_fd(), &mut out, &options).unwrap();
    assert_eq!(written, out.len() as u64);
    out
}
