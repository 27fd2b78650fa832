//! The layer store's disks: made once, gone with their layer, never half.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_images::Digest;
use berth_images::layer::tar::{Kind, NewEntry, Time, Writer};
use berth_images::layer::{Compression, Limits};
use berth_images::snapshot::{LayerRef, Slot, Store};

use crate::compare::assert_same;
use crate::host::{Mounted, require};

/// A stored layer of `files` files of `size` bytes.
fn layer(store: &Store, files: usize, size: usize) -> LayerRef {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    for number in 0..files {
        let path = format!("file-{number}");
        let entry = NewEntry {
            path: path.as_bytes(),
            link: b"",
            kind: Kind::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime: Time { secs: 3, nanos: 4 },
            size: size as u64,
            xattrs: &[],
        };
        writer.header(&entry).unwrap();
        writer.data(&vec![number as u8; size]).unwrap();
        writer.pad().unwrap();
    }
    writer.finish().unwrap();
    let id = Digest::of(&bytes);
    let pending = store
        .receive(Compression::None, &bytes[..], Some(&id), &Limits::default())
        .unwrap();
    store.commit(vec![Slot::Pending(pending)]).unwrap().remove(0)
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_disk_is_made_once_and_goes_with_its_layer() {
    if !require(&["mount"]) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(tmp.path()).unwrap();
    let layer = layer(&store, 20, 9000);
    assert_eq!(layer.disk_bytes(), 0);
    // Eight at once: one makes it.
    let inodes: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| fs::metadata(store.disk(&layer).unwrap()).unwrap().ino()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(inodes.iter().all(|ino| *ino == inodes[0]), "{inodes:?}");
    let disk = store.disk(&layer).unwrap();
    assert_eq!(fs::metadata(&disk).unwrap().ino(), inodes[0]);
    assert!(layer.disk_bytes() >= 20 * 9000);
    assert_eq!(
        entries(disk.parent().unwrap()),
        ["fs", "layer.erofs", "layer.json"]
    );
    assert_eq!(
        entries(&tmp.path().join("layers")).len(),
        1,
        "private directories are gone"
    );

    let mounted = Mounted::image(&disk);
    assert_same(&layer.fs(), &mounted.path);
    drop(mounted);

    let key = layer.key().clone();
    drop(layer);
    assert!(store.remove(&key, || true).unwrap());
    assert!(entries(&tmp.path().join("layers")).is_empty());
}

#[test]
fn a_disk_that_cannot_be_made_leaves_nothing() {
    if !require(&[]) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(tmp.path()).unwrap();
    let layer = layer(&store, 1, 1);
    // Bounded by the format, not by the store's filesystem: two sparse files of 15 TiB.
    for name in ["a", "b"] {
        let file = fs::File::create(layer.fs().join(name)).unwrap();
        if file.set_len(15 << 40).is_err() {
            eprintln!("skipped: no files of 15 TiB here");
            return;
        }
    }
    let error = store.disk(&layer).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "an EROFS image is 16 TiB at most");
    assert_eq!(entries(layer.fs().parent().unwrap()), ["fs", "layer.json"]);
    assert_eq!(entries(&tmp.path().join("layers")).len(), 1);
}

/// Set in the process that is to be killed: the store's root.
const VICTIM: &str = "BERTH_EROFS_VICTIM";

#[test]
#[ignore = "the process that killed_makers_leave_nothing_half kills"]
fn victim() {
    let root = std::env::var_os(VICTIM).expect("run by another test");
    let store = Store::open(Path::new(&root)).unwrap();
    let layer = store.list().unwrap().remove(0);
    store.disk(&layer).unwrap();
}

#[test]
fn killed_makers_leave_nothing_half() {
    if !require(&["mount"]) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(tmp.path()).unwrap();
    let layer = layer(&store, 3000, 20_000);
    let layers = tmp.path().join("layers");
    let mut halves = 0;
    for delay in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::victim", "--exact", "--ignored"])
            .env(VICTIM, tmp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while entries(&layers).len() == 1 && layer.disk_bytes() == 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(delay * 4));
        child.kill().unwrap();
        child.wait().unwrap();
        halves += usize::from(entries(&layers).len() > 1);
        if layer.disk_bytes() > 0 {
            break;
        }
    }
    assert!(halves > 0, "none was killed in the middle");
    store.sweep().unwrap();
    assert_eq!(entries(&layers).len(), 1, "leftovers are swept");
    let mounted = Mounted::image(&store.disk(&layer).unwrap());
    assert_same(&layer.fs(), &mounted.path);
}
