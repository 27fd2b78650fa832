//! What a guest does with files, and what the host sees of it.

use super::*;

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
