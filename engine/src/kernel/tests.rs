//! The store over files that look like kernels and modules.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::modinfo::tests::module;
use super::*;

struct Place {
    tmp: tempfile::TempDir,
    kernels: Kernels,
}

impl Place {
    fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("boot")).unwrap();
        let kernels = Kernels::new(&tmp.path().join("root")).with_host(Host {
            boot: tmp.path().join("boot"),
            modules: tmp.path().join("modules"),
        });
        Self { tmp, kernels }
    }

    /// A kernel file of this release, with something that tells it from others.
    fn file(&self, name: &str, release: &str, mark: u8) -> PathBuf {
        let mut image = vec![mark; 0x1000];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x400u16.to_le_bytes());
        image[0x600..0x600 + release.len()].copy_from_slice(release.as_bytes());
        image[0x600 + release.len()] = b' ';
        let path = self.tmp.path().join(name);
        fs::write(&path, image).unwrap();
        path
    }

    /// A modules directory: virtio_blk needs virtio, the rest is built in.
    fn modules(&self, release: &str) -> PathBuf {
        let dir = self.tmp.path().join("modules").join(release);
        fs::create_dir_all(dir.join("kernel")).unwrap();
        let built_in = [
            "virtio_mmio",
            "vmw_vsock_virtio_transport",
            "erofs",
            "overlay",
            "ext4",
            "virtio_net",
            "virtio_rng",
            "virtio_balloon",
            "pvpanic_mmio",
        ];
        let lines: String = built_in
            .iter()
            .map(|name| format!("kernel/{name}.ko\n"))
            .collect();
        fs::write(dir.join("modules.builtin"), lines).unwrap();
        for (name, depends) in [("virtio_blk", "virtio"), ("virtio", "")] {
            let texts = [format!("depends={depends}"), format!("vermagic={release} SMP")];
            let content = module(&[&texts[0], &texts[1]]);
            fs::write(dir.join(format!("kernel/{name}.ko")), content).unwrap();
        }
        dir
    }

    fn installed(&self, release: &str, mark: u8) -> PathBuf {
        self.modules(release);
        self.file(&format!("boot/vmlinuz-{release}"), release, mark)
    }

    fn guest(&self, content: &str) -> PathBuf {
        let path = self.tmp.path().join("guest");
        fs::write(&path, content).unwrap();
        path
    }

    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.tmp.path().join("root/kernels"));
        let mut names: Vec<_> = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Names and contents of a cpio archive.
fn files(archive: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(archive).unwrap();
    let number = |at: usize| {
        let digits = std::str::from_utf8(&bytes[at..at + 8]).unwrap();
        usize::from_str_radix(digits, 16).unwrap()
    };
    let (mut at, mut files) = (0, Vec::new());
    loop {
        assert_eq!(&bytes[at..at + 6], b"070701");
        let (size, name_size) = (number(at + 54), number(at + 94));
        let name = String::from_utf8(bytes[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
        let content = (at + 110 + name_size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            return files;
        }
        files.push((name, bytes[content..content + size].to_vec()));
        at = (content + size).next_multiple_of(4);
    }
}

#[test]
fn a_stored_kernel_is_whole_by_itself() {
    let place = Place::new();
    let (file, modules) = (place.file("vmlinuz", "6.1.0", 1), place.modules("6.1.0"));
    let record = place.kernels.add("mine", &file, Some(&modules)).unwrap();
    assert_eq!((record.release.as_str(), record.size), ("6.1.0", 0x1000));
    assert_eq!(record.modules, ["virtio", "virtio_blk"]);
    assert_eq!(record.lacks.len(), 1, "{:?}", record.lacks);
    assert!(record.lacks[0].starts_with("kernel mine has no module virtiofs: "));

    let content = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::remove_dir_all(&modules).unwrap();
    let kernel = place.kernels.get("mine").unwrap();
    assert_eq!(kernel.record(), &record);
    assert_eq!(fs::read(kernel.image()).unwrap(), content);
    let files = files(&kernel.initramfs(&place.guest("guest")).unwrap());
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "init",
            "lib",
            "lib/modules",
            "lib/modules/virtio.ko",
            "lib/modules/virtio_blk.ko",
            "modules"
        ]
    );
    assert_eq!(files[0].1, b"guest");
    assert_eq!(files[4].1, module(&["depends=virtio", "vermagic=6.1.0 SMP"]));
    assert_eq!(
        files[5].1,
        b"/lib/modules/virtio.ko\n/lib/modules/virtio_blk.ko\n"
    );
}

#[test]
fn an_initramfs_is_made_once_for_each_guest_program() {
    let place = Place::new();
    place
        .kernels
        .add("k", &place.file("vmlinuz", "6.1", 1), None)
        .unwrap();
    let kernel = place.kernels.get("k").unwrap();
    let first = kernel.initramfs(&place.guest("one")).unwrap();
    // A writer that died left its file.
    fs::write(first.with_file_name(".initramfs"), "half").unwrap();
    let again: Vec<_> = std::thread::scope(|scope| {
        let guest = place.guest("two");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (kernels, guest) = (place.kernels.clone(), guest.clone());
                scope.spawn(move || {
                    let path = kernels.get("k").unwrap().initramfs(&guest).unwrap();
                    (fs::metadata(&path).unwrap().ino(), path)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(again.iter().all(|made| *made == again[0]), "{again:?}");
    assert_eq!(files(&again[0].1)[0].1, b"two");
    assert!(!first.exists(), "that of the older guest program is gone");
    assert_eq!(kernel.initramfs(&place.guest("one")).unwrap(), first);
    let error = kernel.initramfs(Path::new("/nowhere/berth-guest")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the guest program /nowhere/berth-guest"
    );
}

#[test]
fn what_cannot_be_stored_leaves_nothing() {
    let place = Place::new();
    let file = place.file("vmlinuz", "6.1", 1);
    for name in ["", ".hidden", "a/b", "../up", "a b", &"n".repeat(101)] {
        let error = place.kernels.add(name, &file, None).unwrap_err();
        assert!(matches!(error, Error::Name(_)), "{name}: {error}");
        assert!(matches!(place.kernels.get(name), Err(Error::Name(_))), "{name}");
    }
    let other = place.modules("6.2");
    assert!(matches!(
        place.kernels.add("k", &file, Some(&other)),
        Err(Error::OtherRelease { .. })
    ));
    let none = place.tmp.path().join("boot");
    assert!(matches!(
        place.kernels.add("k", &file, Some(&none)),
        Err(Error::NotModules { .. })
    ));
    assert!(matches!(
        place.kernels.add("k", &place.guest("no kernel"), None),
        Err(Error::NotKernel { .. })
    ));
    assert!(matches!(
        place.kernels.add("k", &place.tmp.path().join("nowhere"), None),
        Err(Error::Io { op: "open", .. })
    ));
    assert!(place.left().is_empty(), "{:?}", place.left());
    place.kernels.add("k", &file, None).unwrap();
    assert!(matches!(
        place.kernels.add("k", &file, None),
        Err(Error::Taken(_))
    ));
    assert_eq!(place.left(), ["k"]);
}

#[test]
fn without_a_word_modules_are_the_hosts_own_or_missed_aloud() {
    let place = Place::new();
    place.modules("6.1.0-9-amd64");
    let stored = place
        .kernels
        .add("known", &place.file("vmlinuz-a", "6.1.0-9-amd64", 1), None)
        .unwrap();
    assert_eq!(stored.modules, ["virtio", "virtio_blk"]);
    let stored = place
        .kernels
        .add("unknown", &place.file("vmlinuz-b", "6.2", 2), None)
        .unwrap();
    assert!(stored.modules.is_empty());
    let [lack] = &stored.lacks[..] else {
        panic!("{:?}", stored.lacks);
    };
    assert!(lack.contains("modules/6.2 is not there"), "{lack}");
}

#[test]
fn a_kernel_in_use_or_the_default_stays() {
    let place = Place::new();
    place
        .kernels
        .add("k", &place.file("vmlinuz", "6.1", 1), None)
        .unwrap();
    let kernel = place.kernels.get("k").unwrap();
    assert!(matches!(place.kernels.remove("k"), Err(Error::Busy(_))));
    drop(kernel);
    place.kernels.choose(Some("k")).unwrap();
    assert_eq!(place.kernels.default().unwrap().record().name, "k");
    assert!(matches!(place.kernels.remove("k"), Err(Error::IsDefault(_))));
    assert!(matches!(
        place.kernels.choose(Some("other")),
        Err(Error::Missing(_))
    ));
    place.kernels.choose(None).unwrap();
    place.kernels.choose(None).unwrap();
    place.kernels.remove("k").unwrap();
    assert!(matches!(place.kernels.remove("k"), Err(Error::Missing(_))));
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn the_default_is_the_hosts_newest_kernel_with_modules() {
    let place = Place::new();
    assert!(matches!(place.kernels.default(), Err(Error::NoDefault { .. })));
    place.installed("6.1.0-9-amd64", 1);
    place.installed("6.1.0-56-amd64", 2);
    // A name that says otherwise, a newer one without modules, what is no kernel.
    place.file("boot/vmlinuz-99", "5.10.0", 3);
    place.modules("5.10.0");
    place.file("boot/vmlinuz-7", "7.0", 4);
    fs::write(place.tmp.path().join("boot/vmlinuz-note"), "none").unwrap();
    let name = || place.kernels.default().unwrap().record().name.clone();
    assert_eq!(place.kernels.default_name().unwrap().unwrap(), "6.1.0-56-amd64");
    assert!(place.left().is_empty(), "asking for the name stores nothing");
    assert_eq!(name(), "6.1.0-56-amd64");
    assert_eq!(place.left(), ["6.1.0-56-amd64"]);

    // An upgrade brings another one, and the old one goes from here when it is gone from there.
    place.installed("6.1.0-100-amd64", 5);
    assert_eq!(name(), "6.1.0-100-amd64");
    assert_eq!(place.left(), ["6.1.0-100-amd64", "6.1.0-56-amd64"]);
    fs::remove_file(place.tmp.path().join("boot/vmlinuz-6.1.0-56-amd64")).unwrap();
    place.installed("6.1.0-101-amd64", 6);
    assert_eq!(name(), "6.1.0-101-amd64");
    assert_eq!(place.left(), ["6.1.0-100-amd64", "6.1.0-101-amd64"]);

    // The same release, built anew.
    let before = place
        .kernels
        .get("6.1.0-101-amd64")
        .unwrap()
        .record()
        .digest
        .clone();
    let file = place.installed("6.1.0-101-amd64", 7);
    fs::File::open(file)
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_ne!(place.kernels.default().unwrap().record().digest, before);
}

#[test]
fn many_at_once_store_the_hosts_kernel_once() {
    let place = Place::new();
    place.installed("6.1.0", 1);
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| place.kernels.default().unwrap().record().created))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(times.iter().all(|time| *time == times[0]), "{times:?}");
    assert_eq!(place.left(), ["6.1.0"]);
}
