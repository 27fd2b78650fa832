//! A driver that speaks FUSE, well and badly, to a directory of the host's, served by a thread that is confined as a share's
//! is: a system call that is missing from its list ends the tests. Sharing a directory takes `CAP_SYS_ADMIN`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use fuse_backend_rs::abi::fuse_abi::Opcode;
use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use super::{Budget, Directory, Fs};
use crate::devices::virtio::driver::{BUFFERS, Descriptor, Driver, NEXT, WRITE};
use crate::devices::virtio::endpoint::Endpoint;
use crate::seccomp::Seccomp;
use crate::shares::Shares;

const REQUESTS: u32 = 1;
const ANSWER: u64 = BUFFERS + 0x4_0000;
const ROOM: u32 = 0x3_0000;
const ROOT: u64 = 1;

/// A guest that mounted a share.
struct Guest {
    driver: Driver,
    /// The other thread.
    shares: Shares,
    answers: u16,
    host: TempDir,
}

type Answer = Result<Vec<u8>, i32>;

fn guest(read_only: bool, fill: impl FnOnce(&Path)) -> Guest {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("share")).unwrap();
    fs::write(host.path().join("secret"), "secret").unwrap();
    fill(&host.path().join("share"));
    let directory = Directory::share(&host.path().join("share"), read_only, Budget::of(64)).unwrap();
    Guest::of(directory, host)
}

/// One field behind the other.
fn fields(numbers: &[u64], names: &[&str]) -> Vec<u8> {
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    for name in names {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Two fields of 32 bits.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Guest {
    fn of(directory: Directory, host: TempDir) -> Guest {
        let driver = Driver::start(Fs::new("tag", directory));
        // Names a call that is missing.
        Seccomp::On.prepare().unwrap();
        let endpoint = Endpoint::new(driver.shared.clone());
        Guest {
            shares: Shares::start(vec![endpoint], Seccomp::On, false).unwrap(),
            driver,
            answers: 0,
            host,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.host.path().join("share").join(name)
    }

    /// A request of user 7, group 8, and what came back.
    fn ask(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Answer {
        let length = u32::try_from(40 + body.len()).unwrap();
        let mut request = Vec::new();
        request.extend_from_slice(&length.to_le_bytes());
        request.extend_from_slice(&(opcode as u32).to_le_bytes());
        request.extend(fields(&[99, node, pair(7, 8), 0], &[]));
        request.extend_from_slice(body);
        self.send(&request, ROOM).expect("an answer")
    }

    /// Any bytes, and any room; none when nothing was said.
    fn send(&mut self, request: &[u8], room: u32) -> Option<Answer> {
        self.driver
            .memory
            .write_slice(request, GuestAddress(BUFFERS))
            .unwrap();
        let length = u32::try_from(request.len()).unwrap();
        self.driver
            .put(REQUESTS, &[(BUFFERS, length, false), (ANSWER, room, true)]);
        self.driver.ring(REQUESTS);
        self.answers = self.answers.wrapping_add(1);
        let (count, said) = self.driver.used(REQUESTS);
        assert_eq!(count, self.answers);
        assert!(said <= room);
        if said == 0 {
            return None;
        }
        let answer = self.driver.bytes(ANSWER, usize::try_from(said).unwrap());
        assert_eq!(u32::from_le_bytes(answer[..4].try_into().unwrap()), said);
        let error = i32::from_le_bytes(answer[4..8].try_into().unwrap());
        Some(if error == 0 {
            Ok(answer[16..].to_vec())
        } else {
            Err(-error)
        })
    }

    /// The number of a name, or why there is none.
    fn look_up(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        self.ask(Opcode::Lookup, parent, &fields(&[], &[name]))
            .map(|entry| number(&entry, 0))
    }

    fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        let body = fields(&[pair(flags.cast_unsigned(), 0)], &[]);
        self.ask(Opcode::Open, node, &body)
            .map(|opened| number(&opened, 0))
    }

    fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Answer {
        self.ask(
            Opcode::Read,
            node,
            &fields(&[handle, offset, pair(size, 0), 0, 0], &[]),
        )
    }

    fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Answer {
        let size = u32::try_from(data.len()).unwrap();
        let mut body = fields(&[handle, offset, pair(size, 0), 0, 0], &[]);
        body.extend_from_slice(data);
        self.ask(Opcode::Write, node, &body)
    }

    fn create(&mut self, name: &str, flags: i32, mode: u32) -> Result<(u64, u64), i32> {
        let body = fields(&[pair(flags.cast_unsigned(), mode), 0], &[name]);
        let made = self.ask(Opcode::Create, ROOT, &body)?;
        Ok((number(&made, 0), number(&made, 128)))
    }

    fn names(&mut self, node: u64) -> Vec<String> {
        let handle = self.ask(Opcode::Opendir, node, &fields(&[0], &[])).unwrap();
        let handle = number(&handle, 0);
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            // Small, so that it takes many.
            let body = fields(&[handle, offset, pair(200, 0), 0, 0], &[]);
            let listed = self.ask(Opcode::Readdir, node, &body).unwrap();
            if listed.is_empty() {
                break;
            }
            let mut at = 0;
            while at < listed.len() {
                offset = number(&listed, at + 8);
                let length = usize::try_from(number(&listed, at + 16) & 0xffff).unwrap();
                names.push(String::from_utf8(listed[at + 24..at + 24 + length].to_vec()).unwrap());
                at += (24 + length).next_multiple_of(8);
            }
        }
        names.sort();
        names
    }

    /// SETATTR of these fields.
    fn change(&mut self, node: u64, valid: u32, size: u64, mode: u32) -> Answer {
        let mut body = fields(&[pair(valid, 0), 0, size, 0, 0, 0, 0, 0, 0], &[]);
        body[68..72].copy_from_slice(&mode.to_le_bytes());
        body.extend_from_slice(&[0; 16]);
        self.ask(Opcode::Setattr, node, &body)
    }
}

#[test]
fn the_tag_and_one_queue_for_requests_are_in_the_configuration() {
    use crate::bus::Registers;
    let mut guest = guest(false, |_| {});
    let mut config = [0; 40];
    for at in 0..40 {
        guest
            .driver
            .registers
            .read(0x100 + at, &mut config[usize::try_from(at).unwrap()..][..1]);
    }
    assert_eq!(&config[..4], b"tag\0");
    assert_eq!(config[36..], [1, 0, 0, 0]);
}

#[test]
fn files_are_read_and_written_both_ways() {
    let mut guest = guest(false, |share| {
        fs::write(share.join("from_host"), "hello").unwrap()
    });
    let node = guest.look_up(ROOT, "from_host").unwrap();
    let handle = guest.open(node, libc::O_RDWR).unwrap();
    assert_eq!(guest.read(node, handle, 1, 100).unwrap(), b"ello");
    guest.write(node, handle, 5, b" world").unwrap();
    assert_eq!(fs::read(guest.path("from_host")).unwrap(), b"hello world");
    // Larger than a page, over several descriptors.
    let data: Vec<u8> = (0..100_000_u32)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    let (node, handle) = guest.create("from_guest", libc::O_RDWR, 0o640).unwrap();
    guest.write(node, handle, 0, &data).unwrap();
    assert_eq!(fs::read(guest.path("from_guest")).unwrap(), data);
    assert_eq!(guest.read(node, handle, 0, 150_000).unwrap(), data);
    let made = fs::metadata(guest.path("from_guest")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (7, 8, 0o640));
    // What the host changes is there at once.
    fs::write(guest.path("from_guest"), "short").unwrap();
    assert_eq!(guest.read(node, handle, 0, 100).unwrap(), b"short");
}

#[test]
fn a_write_that_appends_goes_to_the_end_that_the_host_sees() {
    let mut guest = guest(false, |share| fs::write(share.join("log"), "one\n").unwrap());
    let node = guest.look_up(ROOT, "log").unwrap();
    let handle = guest.open(node, libc::O_WRONLY | libc::O_APPEND).unwrap();
    fs::write(guest.path("log"), "one\ntwo\n").unwrap();
    guest.write(node, handle, 4, b"three\n").unwrap();
    assert_eq!(
        fs::read_to_string(guest.path("log")).unwrap(),
        "one\ntwo\nthree\n"
    );
}

#[test]
fn directories_are_listed_whole_whatever_the_room() {
    let mut guest = guest(false, |share| {
        for name in 0..50 {
            fs::write(share.join(format!("file{name:02}")), "").unwrap();
        }
    });
    let mut expected: Vec<String> = (0..50).map(|name| format!("file{name:02}")).collect();
    expected.extend([".".into(), "..".into()]);
    expected.sort();
    assert_eq!(guest.names(ROOT), expected);
}

#[test]
fn names_are_made_moved_and_removed() {
    let mut guest = guest(false, |_| {});
    guest
        .ask(Opcode::Mkdir, ROOT, &fields(&[pair(0o2750, 0)], &["d"]))
        .unwrap();
    let directory = guest.look_up(ROOT, "d").unwrap();
    let pipe = fields(&[pair(libc::S_IFIFO | 0o600, 0), 0], &["pipe"]);
    guest.ask(Opcode::Mknod, directory, &pipe).unwrap();
    guest
        .ask(Opcode::Symlink, ROOT, &fields(&[], &["link", "/etc/passwd"]))
        .unwrap();
    let (node, _) = guest.create("f", libc::O_RDWR, 0o600).unwrap();
    guest
        .ask(Opcode::Link, directory, &fields(&[node], &["again"]))
        .unwrap();
    guest
        .ask(Opcode::Rename, ROOT, &fields(&[directory], &["f", "moved"]))
        .unwrap();
    assert!(fs::metadata(guest.path("d/pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(guest.path("d/moved")).unwrap().nlink(), 2);
    assert_eq!(
        fs::read_link(guest.path("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    let link = guest.look_up(ROOT, "link").unwrap();
    assert_eq!(guest.ask(Opcode::Readlink, link, &[]).unwrap(), b"/etc/passwd");
    let made = fs::metadata(guest.path("d")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (7, 8, 0o2750));
    assert_eq!(fs::symlink_metadata(guest.path("link")).unwrap().uid(), 7);
    for name in ["again", "moved", "pipe"] {
        guest
            .ask(Opcode::Unlink, directory, &fields(&[], &[name]))
            .unwrap();
    }
    guest.ask(Opcode::Rmdir, ROOT, &fields(&[], &["d"])).unwrap();
    assert!(!guest.path("d").exists());
}

#[test]
fn attributes_change_and_only_the_users_own_extended_ones() {
    let mut guest = guest(false, |share| fs::write(share.join("f"), "12345678").unwrap());
    let node = guest.look_up(ROOT, "f").unwrap();
    guest.change(node, 1 | 8, 3, 0o4711).unwrap();
    assert_eq!(fs::read(guest.path("f")).unwrap(), b"123");
    assert_eq!(
        fs::metadata(guest.path("f")).unwrap().permissions().mode() & 0o7777,
        0o4711
    );
    let set = |name: &str, value: &[u8]| {
        let mut body = fields(&[pair(u32::try_from(value.len()).unwrap(), 0)], &[name]);
        body.extend_from_slice(value);
        body
    };
    for name in [
        "security.capability",
        "trusted.overlay.opaque",
        "system.posix_acl_access",
    ] {
        assert_eq!(
            guest.ask(Opcode::Setxattr, node, &set(name, b"x")),
            Err(libc::EOPNOTSUPP),
            "{name}"
        );
        assert_eq!(
            guest.ask(Opcode::Getxattr, node, &fields(&[64], &[name])),
            Err(libc::EOPNOTSUPP)
        );
    }
    match guest.ask(Opcode::Setxattr, node, &set("user.colour", b"red")) {
        // A temporary directory's file system may have none.
        Err(libc::EOPNOTSUPP) => return,
        done => done.unwrap(),
    };
    assert_eq!(
        guest
            .ask(Opcode::Getxattr, node, &fields(&[64], &["user.colour"]))
            .unwrap(),
        b"red"
    );
    assert_eq!(
        guest.ask(Opcode::Getxattr, node, &fields(&[2], &["user.colour"])),
        Err(libc::ERANGE)
    );
    assert_eq!(
        guest.ask(Opcode::Listxattr, node, &fields(&[64], &[])).unwrap(),
        b"user.colour\0"
    );
}

#[test]
fn room_holes_and_what_is_to_be_on_the_disk_are_the_hosts() {
    let mut guest = guest(false, |_| {});
    let (node, handle) = guest.create("f", libc::O_RDWR, 0o600).unwrap();
    guest
        .ask(Opcode::Fallocate, node, &fields(&[handle, 0, 8192, 0], &[]))
        .unwrap();
    assert_eq!(fs::metadata(guest.path("f")).unwrap().len(), 8192);
    let collapse = u64::try_from(libc::FALLOC_FL_COLLAPSE_RANGE).unwrap();
    let moved = guest.ask(
        Opcode::Fallocate,
        node,
        &fields(&[handle, 0, 4096, collapse], &[]),
    );
    assert_eq!(moved, Err(libc::EOPNOTSUPP));
    let seek = |whence: i32| fields(&[handle, 0, u64::try_from(whence).unwrap()], &[]);
    let hole = guest.ask(Opcode::Lseek, node, &seek(libc::SEEK_HOLE)).unwrap();
    assert!(number(&hole, 0) <= 8192);
    assert_eq!(
        guest.ask(Opcode::Lseek, node, &seek(libc::SEEK_SET)),
        Err(libc::EINVAL)
    );
    for data_only in [0, 1] {
        guest
            .ask(Opcode::Fsync, node, &fields(&[handle, data_only], &[]))
            .unwrap();
    }
    let opened = guest.ask(Opcode::Opendir, ROOT, &fields(&[0], &[])).unwrap();
    let directory = number(&opened, 0);
    guest
        .ask(Opcode::Fsyncdir, ROOT, &fields(&[directory, 0], &[]))
        .unwrap();
    guest
        .ask(Opcode::Releasedir, ROOT, &fields(&[directory, 0, 0], &[]))
        .unwrap();
    let found = guest.ask(Opcode::Statfs, ROOT, &[]).unwrap();
    assert!(number(&found, 0) > 0, "blocks");
}

#[test]
fn nothing_above_the_directory_is_there() {
    let mut guest = guest(false, |share| {
        symlink("../secret", share.join("up")).unwrap();
        symlink("/", share.join("root")).unwrap();
        symlink("/proc/self/root", share.join("magic")).unwrap();
        fs::create_dir(share.join("d")).unwrap();
    });
    let inner = guest.look_up(ROOT, "d").unwrap();
    for (parent, name) in [
        (ROOT, ".."),
        (ROOT, "."),
        (ROOT, "../secret"),
        (ROOT, "d/../../secret"),
        (ROOT, "/etc/passwd"),
        (ROOT, ""),
        (inner, ".."),
        (inner, "../.."),
    ] {
        assert_eq!(guest.look_up(parent, name), Err(libc::EINVAL), "{name}");
        let make = fields(&[pair(0o700, 0)], &[name]);
        assert_eq!(
            guest.ask(Opcode::Mkdir, parent, &make),
            Err(libc::EINVAL),
            "{name}"
        );
        assert_eq!(
            guest.ask(Opcode::Unlink, parent, &fields(&[], &[name])),
            Err(libc::EINVAL),
            "{name}"
        );
        let away = fields(&[inner], &["up", name]);
        assert_eq!(
            guest.ask(Opcode::Rename, ROOT, &away),
            Err(libc::EINVAL),
            "{name}"
        );
    }
    // Links are the guest's to follow: here each is one, not what it names.
    for name in ["up", "root", "magic"] {
        let link = guest.look_up(ROOT, name).unwrap();
        assert_eq!(guest.open(link, libc::O_RDONLY), Err(libc::ENXIO), "{name}");
        assert_eq!(guest.look_up(link, "etc"), Err(libc::ENOTDIR), "{name}");
        assert_eq!(
            guest.ask(Opcode::Opendir, link, &fields(&[0], &[])),
            Err(libc::ENOTDIR)
        );
        assert_eq!(guest.change(link, 8, 0, 0), Err(libc::ENXIO), "{name}");
    }
    assert_eq!(
        guest.create("up", libc::O_RDWR, 0o600),
        Err(libc::ENXIO),
        "a link in place of a file"
    );
    assert_eq!(fs::read(guest.host.path().join("secret")).unwrap(), b"secret");
}

/// A directory that the host moves out of the share while the guest has it is not a way after it.
#[test]
fn a_directory_that_leaves_takes_nobody_along() {
    let mut guest = guest(false, |share| fs::create_dir_all(share.join("a/b")).unwrap());
    let outer = guest.look_up(ROOT, "a").unwrap();
    let inner = guest.look_up(outer, "b").unwrap();
    fs::rename(guest.path("a/b"), guest.host.path().join("b")).unwrap();
    assert_eq!(guest.look_up(inner, ".."), Err(libc::EINVAL));
    assert_eq!(guest.look_up(outer, "b"), Err(libc::ENOENT));
}

#[test]
fn a_read_only_share_refuses_every_change() {
    let mut guest = guest(true, |share| {
        fs::write(share.join("f"), "as it was").unwrap();
        fs::create_dir(share.join("d")).unwrap();
    });
    let (file, directory) = (
        guest.look_up(ROOT, "f").unwrap(),
        guest.look_up(ROOT, "d").unwrap(),
    );
    let refused = Err(libc::EROFS);
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_eq!(guest.open(file, flags).map(|_| vec![]), refused, "{flags:#x}");
    }
    // What would make a file in a directory without a name, as open(2) has it.
    let unnamed = guest.open(directory, libc::O_TMPFILE | libc::O_RDWR);
    assert_eq!(unnamed, Err(libc::EISDIR));
    assert_eq!(guest.create("new", libc::O_RDWR, 0o600).map(|_| vec![]), refused);
    assert_eq!(
        guest.ask(Opcode::Mkdir, ROOT, &fields(&[pair(0o700, 0)], &["new"])),
        refused
    );
    let pipe = fields(&[pair(libc::S_IFIFO | 0o600, 0), 0], &["new"]);
    assert_eq!(guest.ask(Opcode::Mknod, ROOT, &pipe), refused);
    assert_eq!(
        guest.ask(Opcode::Symlink, ROOT, &fields(&[], &["new", "to"])),
        refused
    );
    assert_eq!(guest.ask(Opcode::Link, ROOT, &fields(&[file], &["new"])), refused);
    assert_eq!(guest.ask(Opcode::Unlink, ROOT, &fields(&[], &["f"])), refused);
    assert_eq!(guest.ask(Opcode::Rmdir, ROOT, &fields(&[], &["d"])), refused);
    assert_eq!(
        guest.ask(Opcode::Rename, ROOT, &fields(&[ROOT], &["f", "new"])),
        refused
    );
    for valid in [1, 2, 8, 0x10, 0x20] {
        assert_eq!(guest.change(file, valid, 1, 0o777), refused, "{valid}");
    }
    let set = fields(&[pair(1, 0)], &["user.x"])
        .into_iter()
        .chain([b'1'])
        .collect::<Vec<_>>();
    assert_eq!(guest.ask(Opcode::Setxattr, file, &set), refused);
    assert_eq!(
        guest.ask(Opcode::Removexattr, file, &fields(&[], &["user.x"])),
        refused
    );
    let handle = guest.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(guest.write(file, handle, 0, b"x"), Err(libc::EBADF));
    let room = fields(&[handle, 0, 1 << 20, 0], &[]);
    assert_eq!(guest.ask(Opcode::Fallocate, file, &room), Err(libc::EBADF));
    assert_eq!(guest.read(file, handle, 0, 100).unwrap(), b"as it was");
    assert_eq!(fs::read(guest.path("f")).unwrap(), b"as it was");
    assert_eq!(guest.names(ROOT), [".", "..", "d", "f"]);
}

#[test]
fn devices_are_not_made_and_not_opened_and_pipes_do_not_wait() {
    let mut guest = guest(false, |share| {
        let device = rustix::fs::makedev(1, 3);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        for (name, kind) in [
            ("null", rustix::fs::FileType::CharacterDevice),
            ("pipe", rustix::fs::FileType::Fifo),
        ] {
            rustix::fs::mknodat(rustix::fs::CWD, share.join(name), kind, mode, device).unwrap();
        }
    });
    for name in ["null", "pipe"] {
        let node = guest.look_up(ROOT, name).unwrap();
        assert_eq!(guest.open(node, libc::O_RDONLY), Err(libc::ENXIO), "{name}");
    }
    for kind in [libc::S_IFCHR, libc::S_IFBLK, 0, libc::S_IFDIR] {
        let device = fields(&[pair(kind | 0o600, 0x103), 0], &["made"]);
        assert_eq!(
            guest.ask(Opcode::Mknod, ROOT, &device),
            Err(libc::EPERM),
            "{kind:o}"
        );
    }
}

#[test]
fn a_file_is_shared_alone() {
    for read_only in [false, true] {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir(host.path().join("share")).unwrap();
        fs::write(host.path().join("share/wanted"), "wanted").unwrap();
        fs::write(host.path().join("share/beside"), "beside").unwrap();
        let path = host.path().join("share/wanted");
        let directory = Directory::share(&path, read_only, Budget::of(64)).unwrap();
        let mut guest = Guest::of(directory, host);
        assert_eq!(guest.names(ROOT), [".", "..", "wanted"]);
        for name in ["beside", "..", "wanted/../beside"] {
            assert_eq!(guest.look_up(ROOT, name), Err(libc::ENOENT), "{name}");
        }
        let node = guest.look_up(ROOT, "wanted").unwrap();
        let opened = guest.open(node, libc::O_RDWR);
        if read_only {
            assert_eq!(opened, Err(libc::EROFS));
        } else {
            guest.write(node, opened.unwrap(), 0, b"W").unwrap();
            assert_eq!(fs::read(guest.path("wanted")).unwrap(), b"Wanted");
        }
        assert_eq!(guest.create("beside", libc::O_RDWR, 0o600), Err(libc::EROFS));
        assert_eq!(
            guest.ask(Opcode::Unlink, ROOT, &fields(&[], &["wanted"])),
            Err(libc::EROFS)
        );
        assert_eq!(guest.change(ROOT, 1, 0, 0o777), Err(libc::EROFS));
    }
}

#[test]
fn what_a_guest_holds_open_is_bounded() {
    let mut guest = guest(false, |share| {
        for name in 0..100 {
            fs::write(share.join(name.to_string()), "").unwrap();
        }
    });
    let nodes: Vec<u64> = (0..60)
        .map(|name| guest.look_up(ROOT, &name.to_string()).unwrap())
        .collect();
    let handles: Vec<u64> = (0..4)
        .map(|_| guest.open(nodes[0], libc::O_RDONLY).unwrap())
        .collect();
    assert_eq!(guest.look_up(ROOT, "70"), Err(libc::ENFILE));
    assert_eq!(guest.open(nodes[0], libc::O_RDONLY), Err(libc::ENFILE));
    assert_eq!(
        guest.look_up(ROOT, "0"),
        Ok(nodes[0]),
        "what is known is found again"
    );
    // Once for each time it was looked up, and as often as the guest likes.
    let forget = |guest: &mut Guest, node: u64, times: u64| {
        let mut request = fields(&[pair(48, Opcode::Forget as u32), 0, node, 0, 0, times], &[]);
        request.truncate(48);
        guest
            .driver
            .memory
            .write_slice(&request, GuestAddress(BUFFERS))
            .unwrap();
        guest.driver.put(0, &[(BUFFERS, 48, false)]);
        guest.driver.ring(0);
    };
    forget(&mut guest, nodes[0], 1);
    assert_eq!(
        guest.look_up(ROOT, "70"),
        Err(libc::ENFILE),
        "it was looked up twice"
    );
    forget(&mut guest, nodes[1], u64::MAX);
    forget(&mut guest, nodes[1], u64::MAX);
    forget(&mut guest, ROOT, u64::MAX);
    guest.look_up(ROOT, "70").unwrap();
    guest
        .ask(Opcode::Release, nodes[0], &fields(&[handles[0], 0, 0], &[]))
        .unwrap();
    assert_eq!(guest.read(nodes[0], handles[0], 0, 1), Err(libc::EBADF));
    assert_eq!(
        guest.read(nodes[2], handles[1], 0, 1),
        Err(libc::EBADF),
        "another file's handle"
    );
    guest.look_up(ROOT, "71").unwrap();
    // A driver that starts anew begins with nothing.
    guest.driver.restart();
    guest.answers = 0;
    assert_eq!(guest.read(nodes[2], handles[1], 0, 1), Err(libc::EBADF));
    for name in 0..64 {
        guest.look_up(ROOT, &name.to_string()).unwrap();
    }
}

#[test]
fn requests_that_make_no_sense_are_answered_and_break_nothing() {
    let mut guest = guest(false, |share| fs::write(share.join("f"), "f").unwrap());
    let head = |length: u32, opcode: u32| {
        let mut head = fields(&[pair(length, opcode), 99, ROOT, 0], &[]);
        head.extend_from_slice(&[0; 8]);
        head
    };
    let lookup = Opcode::Lookup as u32;
    for (what, request, room, expected) in [
        (
            "longer than the chain",
            head(4096, lookup),
            ROOM,
            Some(Err(libc::EIO)),
        ),
        (
            "longer than anything",
            head(u32::MAX, lookup),
            ROOM,
            Some(Err(libc::ENOMEM)),
        ),
        (
            "shorter than its head",
            head(0, lookup),
            ROOM,
            Some(Err(libc::EIO)),
        ),
        ("no name", head(40, lookup), ROOM, Some(Err(libc::EIO))),
        (
            "a name without an end",
            [head(41, lookup), vec![b'f']].concat(),
            ROOM,
            Some(Err(libc::EIO)),
        ),
        (
            "no request of these",
            head(40, 4711),
            ROOM,
            Some(Err(libc::ENOSYS)),
        ),
        (
            "of another device",
            head(40, Opcode::SetupMapping as u32),
            ROOM,
            Some(Err(libc::EINVAL)),
        ),
        ("no room", [head(42, lookup), b"f\0".to_vec()].concat(), 15, None),
        (
            "room for a head",
            [head(42, lookup), b"f\0".to_vec()].concat(),
            16,
            Some(Err(libc::EIO)),
        ),
        (
            "a read without a body",
            head(40, Opcode::Read as u32),
            ROOM,
            Some(Err(libc::EIO)),
        ),
    ] {
        assert_eq!(guest.send(&request, room), expected, "{what}");
        assert!(!guest.driver.is_broken(), "{what}");
    }
    let mut many = head(48, Opcode::BatchForget as u32);
    many.extend(fields(&[pair(u32::MAX, 0)], &[]));
    assert_eq!(guest.send(&many, ROOM), Some(Err(libc::EIO)));
    guest.look_up(ROOT, "f").unwrap();
}

#[test]
fn chains_that_are_none_stop_the_share_until_a_reset() {
    let mut guest = guest(false, |share| fs::write(share.join("f"), "f").unwrap());
    let at = |at: u64, length: u32, flags: u16, next: u16| Descriptor {
        at,
        length,
        flags,
        next,
    };
    let cases: &[(&str, &[Descriptor])] = &[
        (
            "too short for a head",
            &[at(BUFFERS, 39, NEXT, 1), at(ANSWER, 64, WRITE, 0)],
        ),
        ("nothing said", &[at(ANSWER, 64, WRITE, 0)]),
        ("a loop", &[at(BUFFERS, 64, NEXT, 1), at(BUFFERS, 64, NEXT, 0)]),
        (
            "the answer first",
            &[at(ANSWER, 64, WRITE | NEXT, 1), at(BUFFERS, 64, 0, 0)],
        ),
        (
            "outside of memory",
            &[at(1 << 40, 64, NEXT, 1), at(ANSWER, 64, WRITE, 0)],
        ),
        (
            "more than can be said at once",
            &[
                at(0, 0x10_0000, NEXT, 1),
                at(0, 0x10_0000, NEXT, 2),
                at(ANSWER, 64, WRITE, 0),
            ],
        ),
    ];
    for (what, descriptors) in cases {
        for (number, descriptor) in (0..).zip(*descriptors) {
            guest.driver.describe(REQUESTS, number, *descriptor);
        }
        guest.driver.add(REQUESTS, 0);
        guest.driver.ring(REQUESTS);
        assert!(guest.driver.is_broken(), "{what}");
        assert_eq!(guest.driver.used(REQUESTS).0, 0, "{what}");
        guest.driver.restart();
        guest.answers = 0;
        guest.look_up(ROOT, "f").unwrap();
        guest.driver.restart();
        guest.answers = 0;
    }
}

#[test]
fn a_share_that_stands_serves_nothing_until_it_goes_on() {
    let mut guest = guest(false, |share| fs::write(share.join("f"), "f").unwrap());
    guest.look_up(ROOT, "f").unwrap();
    for _ in 0..100 {
        guest.shares.pause();
        let before = guest.driver.used(REQUESTS);
        guest
            .driver
            .put(REQUESTS, &[(BUFFERS, 42, false), (ANSWER, ROOM, true)]);
        guest
            .driver
            .set(virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY, REQUESTS);
        std::thread::yield_now();
        assert_eq!(guest.driver.used(REQUESTS), before);
        guest.shares.resume();
        guest.driver.wait();
        assert_eq!(guest.driver.used(REQUESTS).0, before.0.wrapping_add(1));
    }
}

/// Everything a guest can set: which request, of what, and its bytes.
fn requests() -> impl Strategy<Value = (u32, u64, Vec<u8>, u32)> {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..96),
        prop::collection::vec(
            prop_oneof![Just(0_u8), Just(1), Just(2), Just(b'/'), Just(b'.'), Just(255)],
            0..96
        ),
    ];
    (0_u32..55, 0_u64..6, body, prop_oneof![Just(ROOM), 0_u32..200])
}

proptest! {
    /// Whatever is asked, in whatever order: the share goes on, and what lies beside it is as it was.
    #[test]
    fn nothing_a_guest_asks_gets_out(asked in prop::collection::vec(requests(), 1..40)) {
        let mut guest = guest(false, |share| {
            fs::write(share.join("f"), "f").unwrap();
            symlink("../secret", share.join("l")).unwrap();
            fs::create_dir(share.join("d")).unwrap();
        });
        for name in ["f", "l", "d"] {
            guest.look_up(ROOT, name).unwrap();
        }
        for (opcode, node, body, room) in asked {
            let length = u32::try_from(40 + body.len()).unwrap();
            let mut request = fields(&[pair(length, opcode), 99, node, 0, 0], &[]);
            request.extend(body);
            guest.send(&request, room);
            prop_assert!(!guest.driver.is_broken());
        }
        prop_assert_eq!(fs::read(guest.host.path().join("secret")).unwrap(), b"secret");
        prop_assert_eq!(fs::read_dir(guest.host.path()).unwrap().count(), 2);
        guest.ask(Opcode::Getattr, ROOT, &[0; 16]).unwrap();
    }
}
