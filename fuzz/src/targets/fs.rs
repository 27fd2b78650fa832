//! virtio-fs: requests of FUSE that are in order and that are not, to a directory of a small file system of its own.

use std::cell::OnceCell;
use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use berth_vmm::fuzzing::VirtioDevice;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

use crate::driver::{Driver, memory};
use crate::input::Input;
use crate::play::{Kind, play};

/// Names that are there, that are not, and that are none.
const NAMES: [&[u8]; 10] = [
    b"file", b"dir", b"link", b"a", b"b", b"..", b".", b"x/y", b"", b"/",
];
/// Requests by their numbers (`enum fuse_opcode`): words of 8 bytes, then names, then whether data follows.
const REQUESTS: [(u32, u8, u8, bool); 41] = [
    (1, 0, 1, false),
    (2, 1, 0, false),
    (3, 2, 0, false),
    (4, 11, 0, false),
    (5, 0, 0, false),
    (6, 0, 2, false),
    (8, 2, 1, false),
    (9, 1, 1, false),
    (10, 0, 1, false),
    (11, 0, 1, false),
    (12, 1, 2, false),
    (13, 1, 1, false),
    (14, 1, 0, false),
    (15, 5, 0, false),
    (16, 5, 0, true),
    (17, 0, 0, false),
    (18, 3, 0, false),
    (20, 2, 0, false),
    (21, 1, 1, true),
    (22, 1, 1, false),
    (23, 1, 0, false),
    (24, 0, 1, false),
    (25, 3, 0, false),
    (26, 2, 0, false),
    (27, 1, 0, false),
    (28, 5, 0, false),
    (29, 3, 0, false),
    (30, 2, 0, false),
    (34, 1, 0, false),
    (35, 2, 1, false),
    (36, 1, 0, false),
    (37, 2, 0, false),
    (38, 0, 0, false),
    (39, 4, 0, true),
    (42, 5, 0, false),
    (43, 4, 0, false),
    (44, 5, 0, false),
    (45, 2, 2, false),
    (46, 3, 0, false),
    (47, 7, 0, false),
    (48, 5, 0, false),
];

/// `share`, which the guest has, and `secret` beside it, in a mount namespace of this thread's.
struct Place {
    directory: TempDir,
}

impl Place {
    #[allow(unsafe_code)]
    fn new() -> Place {
        // SAFETY: the flag touches no descriptors, and no other thread relies on this one's mounts or working directory.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).expect("mounts of its own");
        let directory = tempfile::tempdir().expect("a directory");
        let options: &CStr = c"size=4m,nr_inodes=1000";
        mount("fuzz", directory.path(), "tmpfs", MountFlags::empty(), options).expect("a tmpfs");
        Place { directory }
    }

    fn share(&self) -> PathBuf {
        self.directory.path().join("share")
    }

    /// As it is for every input.
    fn fill(&self) {
        let share = self.share();
        if share.exists() {
            fs::remove_dir_all(&share).expect("no longer shared");
        }
        fs::create_dir_all(share.join("dir")).expect("room");
        fs::write(share.join("file"), [7; 5000]).expect("room");
        fs::write(share.join("dir/a"), "a").expect("room");
        symlink("../secret", share.join("link")).expect("room");
        fs::write(self.directory.path().join("secret"), "secret").expect("room");
    }

    fn check(&self, read_only: bool) {
        let names = |path: &Path| {
            let entries = fs::read_dir(path).expect("it is there");
            let mut names: Vec<_> = entries.map(|entry| entry.expect("a name").file_name()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(
            names(self.directory.path()),
            ["secret", "share"],
            "beside the share"
        );
        let secret = fs::read(self.directory.path().join("secret")).expect("it is there");
        assert_eq!(secret, b"secret", "a file beside the share was written");
        if read_only {
            assert_eq!(names(&self.share()), ["dir", "file", "link"], "a read-only share");
            let file = fs::read(self.share().join("file")).expect("it is there");
            assert_eq!(file, [7; 5000], "a file of a read-only share was written");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Otherwise the directory could not be removed.
        let _ = unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}

thread_local! {
    /// None without root.
    static PLACE: OnceCell<Option<Place>> = const { OnceCell::new() };
}

struct Share;

/// A small number, as those of objects and handles are, or any.
fn number(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        few @ 0..0xe0 => (few % 32).into(),
        0xe0..0xf8 => input.u16().into(),
        _ => input.u64(),
    }
}

impl Kind for Share {
    fn request(&mut self, input: &mut Input<'_>, _queue: u32) -> (Vec<u8>, Vec<u32>) {
        let (opcode, words, names, data) = input.one_of(&REQUESTS);
        let node = u64::from(input.byte() % 16);
        let mut body = Vec::new();
        body.extend((0..words).flat_map(|_| number(input).to_le_bytes()));
        for _ in 0..names {
            let name = if input.byte() < 0xf0 {
                input.one_of(&NAMES)
            } else {
                input.bytes(20)
            };
            body.extend_from_slice(name);
            body.push(0);
        }
        if data {
            body.resize(body.len() + usize::from(input.u16() % 3000), 0x33);
        }
        if input.byte() < 16 {
            body.truncate(input.byte().into());
        }
        let length = 40 + u32::try_from(body.len()).expect("a few thousand");
        let claimed = if input.byte() < 8 { input.u32() } else { length };
        let mut said = Vec::new();
        said.extend([claimed, opcode].into_iter().flat_map(u32::to_le_bytes));
        said.extend([99, node].into_iter().flat_map(u64::to_le_bytes));
        said.extend([0, 0, 1, 0].into_iter().flat_map(u32::to_le_bytes));
        said.extend(body);
        (
            said,
            vec![input.one_of(&[16, 200, 5000, 60_000, 0, 15]), input.byte().into()],
        )
    }

    fn answered(&self) -> &[u32] {
        &[0, 1]
    }

    /// It says what file system it is.
    fn works(&mut self, driver: &mut Driver) {
        driver.start(0, 0b11);
        let mut said = Vec::new();
        said.extend([40_u32, 17].into_iter().flat_map(u32::to_le_bytes));
        said.extend([99_u64, 1, 0, 0].into_iter().flat_map(u64::to_le_bytes));
        driver.put(1, &said, 1, &[200], false);
        driver.check_used(1);
        assert_eq!((driver.used(1).0, driver.is_broken()), (1, false));
    }
}

/// A driver of virtio-fs.
pub(super) fn fs(bytes: &[u8]) {
    PLACE.with(|place| {
        let place = place.get_or_init(|| super::with_root("fs").then(Place::new));
        let Some(place) = place else { return };
        let mut input = Input::new(bytes);
        let how = input.byte();
        let read_only = how & 1 != 0;
        place.fill();
        {
            // A file is shared as a directory that holds it alone.
            let shared = if how & 14 == 14 {
                place.share().join("file")
            } else {
                place.share()
            };
            let memory = memory(false);
            let device = VirtioDevice::fs(&shared, read_only, 16, &memory.guest).expect("a share");
            play(&mut input, &mut Driver::new(device, memory, false), &mut Share);
        }
        place.check(read_only);
    });
}
