//! The store of unpacked layers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_images::Digest;
use berth_images::layer::tar::{Kind, NewEntry};
use berth_images::layer::{Compression, Error, Limits};
use berth_images::snapshot::{Slot, Store};

use crate::archive::*;

fn receive(store: &Store, bytes: &[u8]) -> berth_images::snapshot::Pending {
    store
        .receive(
            Compression::None,
            bytes,
            Some(&Digest::of(bytes)),
            &Limits::default(),
        )
        .unwrap()
}

#[test]
fn layers_are_committed_in_order_and_shared() {
    if !root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(tmp.path()).unwrap();
    let base = tar(|w| {
        w.header(&NewEntry {
            mode: 0o1777,
            uid: 5,
            gid: 6,
            ..entry("opt", Kind::Directory, "")
        })
        .unwrap();
        plain(w, "opt/sub", Kind::Directory, "");
        w.header(&NewEntry {
            mode: 0o4711,
            uid: 7,
            size: 3,
            ..entry("opt/sub/tool", Kind::File, "")
        })
        .unwrap();
        w.data(b"abc").unwrap();
        w.pad().unwrap();
        plain(w, "lnk", Kind::Symlink, "/opt/sub");
    });
    let middle = tar(|w| plain(w, "other", Kind::Directory, ""));
    let top = tar(|w| {
        file(w, "opt/new", b"n");
        plain(w, "alias", Kind::HardLink, "lnk/tool");
        plain(w, "alias2", Kind::HardLink, "alias");
    });
    let ids: Vec<Digest> = [&base, &middle, &top].map(|b| Digest::of(b)).to_vec();
    // Received in any order.
    let (t, b, m) = (
        receive(&store, &top),
        receive(&store, &base),
        receive(&store, &middle),
    );
    let layers = store
        .commit(vec![Slot::Pending(b), Slot::Pending(m), Slot::Pending(t)])
        .unwrap();
    assert_eq!(layers[0].key(), &ids[0]);
    assert_eq!(
        layers[1].key(),
        &ids[1],
        "a layer that says all is stored under its diffID"
    );
    assert_ne!(
        layers[2].key(),
        &ids[2],
        "one that needs the layers below is stored under its chainID"
    );
    let fs_top = layers[2].fs();
    let opt = fs::metadata(fs_top.join("opt")).unwrap();
    assert_eq!(
        (opt.mode() & 0o7777, opt.uid(), opt.gid(), opt.mtime_nsec()),
        (0o1777, 5, 6, 123_456_789)
    );
    let alias = fs::metadata(fs_top.join("alias")).unwrap();
    assert_eq!(
        (alias.mode() & 0o7777, alias.uid(), alias.nlink()),
        (0o4711, 7, 3)
    );
    assert_eq!(alias.ino(), fs::metadata(fs_top.join("alias2")).unwrap().ino());
    assert_eq!(fs::read(fs_top.join("alias")).unwrap(), b"abc");

    assert!(store.contains(&ids).unwrap());
    let found: Vec<_> = store
        .find(&ids)
        .unwrap()
        .into_iter()
        .map(|l| l.unwrap().key().clone())
        .collect();
    assert_eq!(found, layers.iter().map(|l| l.key().clone()).collect::<Vec<_>>());
    assert!(
        !store.contains(&[ids[1].clone(), ids[2].clone()]).unwrap(),
        "other layers below, another chain"
    );
    // Again, as a second process would.
    let again = store
        .commit(vec![
            Slot::Stored(layers[0].clone()),
            Slot::Pending(receive(&store, &middle)),
        ])
        .unwrap();
    assert_eq!(again[1].key(), &ids[1]);
    assert_eq!(store.list().unwrap().len(), 3);
    assert_eq!(Store::lower_dirs(&layers)[0], fs_top);
    assert_eq!(
        fs::read_dir(tmp.path().join("layers")).unwrap().count(),
        3,
        "private directories are gone"
    );
}

#[test]
fn a_link_into_nowhere_is_an_error_that_leaves_nothing() {
    if !root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(tmp.path()).unwrap();
    let bytes = tar(|w| plain(w, "h", Kind::HardLink, "etc/shadow"));
    let error = store
        .commit(vec![Slot::Pending(receive(&store, &bytes))])
        .unwrap_err();
    assert!(matches!(error, Error::LinkTarget { .. }), "{error:?}");
    let wrong = store.receive(
        Compression::None,
        &bytes[..],
        Some(&Digest::of(b"")),
        &Limits::default(),
    );
    assert!(matches!(wrong, Err(Error::DiffId { .. })));
    assert_eq!(fs::read_dir(tmp.path().join("layers")).unwrap().count(), 0);
}

#[test]
fn removal_waits_for_users_and_sweeps_only_the_dead() {
    if !root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(tmp.path()).unwrap();
    let bytes = tar(|w| file(w, "f", b"x"));
    let layer = store
        .commit(vec![Slot::Pending(receive(&store, &bytes))])
        .unwrap()
        .remove(0);
    let key = layer.key().clone();
    assert!(matches!(store.remove(&key, || true), Err(Error::Busy(_))));
    drop(layer);
    assert!(!store.remove(&key, || false).unwrap());
    assert!(store.get(&key).is_ok());
    let alive = receive(&store, &bytes);
    fs::create_dir_all(tmp.path().join("layers/.new-dead/fs/x")).unwrap();
    assert_eq!(store.sweep().unwrap(), 1);
    assert!(alive.fs().join("f").exists());
    drop(alive);
    assert!(store.remove(&key, || true).unwrap());
    assert!(matches!(store.get(&key), Err(Error::Missing(_))));
    assert_eq!(fs::read_dir(tmp.path().join("layers")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_a_clear_error_and_leaves_nothing() {
    if !root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    struct Mounted<'p>(&'p Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }
    let flags = rustix::mount::MountFlags::empty();
    if let Err(e) = rustix::mount::mount("tmpfs", tmp.path(), "tmpfs", flags, Some(c"size=1m")) {
        assert!(
            std::env::var_os("BERTH_TESTS_STRICT").is_none(),
            "cannot mount: {e}"
        );
        eprintln!("skipped: cannot mount a tmpfs: {e}");
        return;
    }
    let _mounted = Mounted(tmp.path());
    let store = Store::open(tmp.path()).unwrap();
    let bytes = tar(|w| file(w, "big", &vec![1; 4 << 20]));
    let error = store
        .receive(Compression::None, &bytes[..], None, &Limits::default())
        .unwrap_err();
    let Error::Write { entry, source, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (entry.as_str(), source.kind()),
        ("\"big\"", std::io::ErrorKind::StorageFull)
    );
    assert_eq!(fs::read_dir(tmp.path().join("layers")).unwrap().count(), 0);
}

/// One of the processes of the test below: this test program again, told by the environment where.
#[test]
fn child_that_commits() {
    let Some(root) = std::env::var_os("TEST_COMMIT_ROOT") else {
        return;
    };
    let root = Path::new(&root);
    let store = Store::open(root).unwrap();
    let bytes = tar(|w| (0..50).for_each(|i| file(w, &format!("d/f{i}"), &[b'x'; 5000])));
    let pending = receive(&store, &bytes);
    // Both are ready before either commits.
    fs::write(root.join(format!("ready-{}", std::process::id())), "").unwrap();
    while !root.join("go").exists() {
        std::thread::yield_now();
    }
    let layer = store.commit(vec![Slot::Pending(pending)]).unwrap().remove(0);
    assert_eq!(layer.key(), &Digest::of(&bytes));
    assert_eq!(fs::read(layer.fs().join("d/f49")).unwrap(), [b'x'; 5000]);
}

#[test]
fn of_processes_that_commit_one_layer_at_once_all_get_it_and_one_copy_stays() {
    if !root() {
        return;
    }
    const PROCESSES: usize = 4;
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(tmp.path()).unwrap();
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::child_that_commits"])
                .env("TEST_COMMIT_ROOT", tmp.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let ready = || {
        let names = fs::read_dir(tmp.path()).unwrap().flatten();
        names
            .filter(|e| e.file_name().as_encoded_bytes().starts_with(b"ready-"))
            .count()
    };
    let mut tries = 0;
    while ready() < PROCESSES {
        std::thread::sleep(Duration::from_millis(10));
        tries += 1;
        assert!(tries < 3000, "{} of {PROCESSES} processes are ready", ready());
    }
    fs::write(tmp.path().join("go"), "").unwrap();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(
        fs::read_dir(tmp.path().join("layers")).unwrap().count(),
        1,
        "the copies that came second are gone"
    );
}
