//! A pull that is killed, or whose disk fills: the store stays clean and the next pull finishes.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use berth_images::{Images, PullOptions, Reference};
use support::double::{Double, Reply};
use support::{TestImage, TestStore, chain, noise};

const FILE_BYTES: usize = 1 << 20;

fn image() -> TestImage {
    TestImage::new(&[
        ("a", noise(FILE_BYTES, 1)),
        ("b", noise(FILE_BYTES, 2)),
        ("c", noise(FILE_BYTES, 3)),
        ("d", noise(FILE_BYTES, 4)),
    ])
}

/// The process to be killed by the test below: this test program again, told by the environment whom to pull from.
#[test]
fn child_that_pulls() {
    let (Some(host), Some(root)) = (
        std::env::var_os("TEST_PULL_HOST"),
        std::env::var_os("TEST_PULL_ROOT"),
    ) else {
        return;
    };
    let reference = Reference::parse(&format!("{}/x:t", host.to_str().unwrap())).unwrap();
    let images = Images::open(Path::new(&root)).unwrap();
    images.pull(&reference, PullOptions::default()).unwrap();
}

fn spawn(double: &Double, store: &TestStore) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_pulls"])
        .env("TEST_PULL_HOST", double.host())
        .env("TEST_PULL_ROOT", store.images.root())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn assert_whole(store: &TestStore, double: &Double, image: &TestImage, what: &str) {
    let pulled = store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
    for (layer, (name, seed)) in pulled.layers.iter().zip([("a", 1), ("b", 2), ("c", 3), ("d", 4)]) {
        assert!(
            std::fs::read(layer.join(name)).unwrap() == noise(FILE_BYTES, seed),
            "{what}: {name} differs"
        );
    }
    for layer in &image.layers {
        assert!(store.has_blob(layer), "{what}");
    }
    assert_eq!(store.leftovers(), Vec::<String>::new(), "{what}");
    assert_eq!(store.layer_count(), 4, "{what}");
}

#[test]
fn killed_at_any_point_the_next_pull_finishes() {
    if !support::can_run(&[]) {
        return;
    }
    let image = image();
    let double = Double::new(&image, |_| Reply::Serve);
    let whole = TestStore::new();
    let start = Instant::now();
    assert!(spawn(&double, &whole).wait().unwrap().success());
    let duration = start.elapsed();
    let mut killed = 0;
    const POINTS: u32 = 10;
    for point in 0..POINTS {
        let store = TestStore::new();
        let delay = duration * point / POINTS;
        let mut child = spawn(&double, &store);
        std::thread::sleep(delay);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        // What is under a final name is whole, whenever the process died.
        for layer in &image.layers {
            let digest = berth_images::Digest::of(layer);
            let path = store.images.root().join("blobs/sha256").join(digest.hex());
            if let Ok(bytes) = std::fs::read(&path) {
                assert!(bytes == *layer, "a partial blob after {delay:?}");
            }
        }
        assert_whole(&store, &double, &image, &format!("killed after {delay:?}"));
    }
    assert!(killed > 0, "no child was killed before its end");
}

struct Mounted<'p>(&'p Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_disk_that_fills_is_named_and_more_room_is_enough() {
    if !support::can_run(&[]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let mount =
        |flags, size: &std::ffi::CStr| rustix::mount::mount("tmpfs", &root, "tmpfs", flags, Some(size));
    if let Err(e) = mount(rustix::mount::MountFlags::empty(), c"size=3m") {
        assert!(
            std::env::var_os("BERTH_TESTS_STRICT").is_none(),
            "cannot mount: {e}"
        );
        eprintln!("skipped: cannot mount a tmpfs: {e}");
        return;
    }
    let _mounted = Mounted(&root);
    let images = Images::open(&root)
        .unwrap()
        .with_registry(support::config(dir.path(), |_| {}));
    let store = TestStore { dir, images };
    let image = image();
    let double = Double::new(&image, |_| Reply::Serve);
    let error = store
        .images
        .pull(&double.reference(), PullOptions::default())
        .unwrap_err();
    let said = chain(&error);
    assert!(said.contains("No space left on device"), "{said}");
    assert!(
        said.contains(store.images.root().to_str().unwrap()) || said.contains("sha256:"),
        "{said}"
    );
    assert_eq!(store.leftovers(), Vec::<String>::new(), "{said}");
    // A full disk is no fault of the network: nothing is fetched again.
    for layer in &image.layers {
        let path = format!("/blobs/{}", berth_images::Digest::of(layer));
        assert!(double.asked(&path) <= 1, "{said}");
    }
    rustix::mount::mount_remount(&root, rustix::mount::MountFlags::empty(), c"size=64m").unwrap();
    assert_whole(&store, &double, &image, "after more room");
}
