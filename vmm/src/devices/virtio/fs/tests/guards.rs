//! What a guest must not reach, break or hold, whatever it asks.

use super::*;

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
