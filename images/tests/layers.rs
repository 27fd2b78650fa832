//! Layers through the public interface, on the real filesystem: hostile archives, peers' archives, the store.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use berth_images::Digest;
use berth_images::layer::tar::{Kind, NewEntry, Time, Writer, Xattr};
use berth_images::layer::{self, Compression, DiffOptions, Error, Form, Limits};
use berth_images::snapshot::{Slot, Store};
use proptest::prelude::*;

/// Unpacking owners, devices and trusted xattrs takes root.
fn root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("BERTH_TESTS_STRICT").is_none(), "needs root");
    eprintln!("skipped: needs root");
    false
}

fn entry<'a>(path: &'a str, kind: Kind, link: &'a str) -> NewEntry<'a> {
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

fn tar(build: impl FnOnce(&mut Writer<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    build(&mut writer);
    writer.finish().unwrap();
    bytes
}

fn file(w: &mut Writer<&mut Vec<u8>>, path: &str, data: &[u8]) {
    w.header(&NewEntry {
        size: data.len() as u64,
        ..entry(path, Kind::File, "")
    })
    .unwrap();
    w.data(data).unwrap();
    w.pad().unwrap();
}

fn plain(w: &mut Writer<&mut Vec<u8>>, path: &str, kind: Kind, link: &str) {
    w.header(&NewEntry {
        mode: 0o755,
        ..entry(path, kind, link)
    })
    .unwrap();
}

fn unpack_with(
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

fn unpack(dir: &Path, bytes: &[u8]) -> layer::Result<layer::Received> {
    unpack_with(dir, bytes, Compression::None, &Limits::default())
}

/// A directory `root` to unpack into beside a directory `outside` that must not change.
fn arena() -> (tempfile::TempDir, std::path::PathBuf) {
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

fn assert_outside_untouched(tmp: &Path) {
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

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 1024];
    let got = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(got);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

type Build = fn(&mut Writer<&mut Vec<u8>>, &str);

/// CVE-2021-32760, CVE-2025-47290, CVE-2026-33056 and their kin: whatever the archive says, nothing outside changes.
#[test]
fn hostile_archives_stay_inside() {
    if !root() {
        return;
    }
    let cases: &[(&str, bool, Build)] = &[
        ("dot dot", false, |w, _| file(w, "../outside/new", b"x")),
        ("dot dot within", false, |w, _| {
            file(w, "a/../../outside/new", b"x")
        }),
        ("absolute name", true, |w, out| {
            file(w, &format!("{out}/new"), b"x")
        }),
        ("symlink then write through it", true, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            file(w, "link/../link2", b"x".as_slice().get(..0).unwrap_or_default());
        }),
        ("absolute symlink then write below", false, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            file(w, "link/new", b"x");
        }),
        ("relative symlink then write below", false, |w, _| {
            plain(w, "link", Kind::Symlink, "../outside");
            file(w, "link/new", b"x");
        }),
        ("symlink to a file, then the file", true, |w, out| {
            plain(w, "f", Kind::Symlink, &format!("{out}/victim"));
            file(w, "f", b"overwritten");
        }),
        (
            "symlink to a directory, then the directory with a mode",
            true,
            |w, out| {
                plain(w, "d", Kind::Symlink, out);
                w.header(&NewEntry {
                    mode: 0o777,
                    ..entry("d", Kind::Directory, "")
                })
                .unwrap();
            },
        ),
        ("hard link to a name outside", true, |w, out| {
            plain(w, "h", Kind::HardLink, &format!("{out}/victim"));
        }),
        ("hard link with dot dot", false, |w, _| {
            plain(w, "h", Kind::HardLink, "../outside/victim")
        }),
        ("hard link through a symlink", true, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            plain(w, "h", Kind::HardLink, "link/victim");
        }),
        ("whiteout through a symlink", false, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            file(w, "link/.wh.victim", b"");
        }),
        ("whiteout of dot dot", false, |w, _| file(w, "a/.wh...", b"")),
        ("whiteout of dot", false, |w, _| file(w, "a/.wh..", b"")),
        ("whiteout of nothing", false, |w, _| file(w, "a/.wh.", b"")),
        ("opaque through a symlink", false, |w, out| {
            plain(w, "link", Kind::Symlink, out);
            file(w, "link/.wh..wh..opq", b"");
        }),
        ("chmod through a hard-linked symlink", true, |w, out| {
            plain(w, "link", Kind::Symlink, &format!("{out}/victim"));
            plain(w, "h", Kind::HardLink, "link");
            w.header(&NewEntry {
                mode: 0o4777,
                ..entry("n", Kind::Fifo, "")
            })
            .unwrap();
        }),
        ("root that is a file", false, |w, _| file(w, "./", b"x")),
        ("overlayfs' own xattr", false, |w, _| {
            let xattrs = [Xattr {
                name: b"trusted.overlay.redirect".to_vec(),
                value: b"/etc".to_vec(),
            }];
            w.header(&NewEntry {
                xattrs: &xattrs,
                ..entry("d", Kind::Directory, "")
            })
            .unwrap();
        }),
        ("overlayfs' own user xattr", false, |w, _| {
            let xattrs = [Xattr {
                name: b"user.overlay.metacopy".to_vec(),
                value: Vec::new(),
            }];
            w.header(&NewEntry {
                xattrs: &xattrs,
                ..entry("d", Kind::Directory, "")
            })
            .unwrap();
        }),
        ("hard link to itself", false, |w, _| {
            file(w, "f", b"x");
            plain(w, "./f", Kind::HardLink, "f");
        }),
        ("name of a megabyte", false, |w, _| {
            file(w, &"a/".repeat(1 << 19), b"")
        }),
        ("component of a kilobyte", false, |w, _| {
            file(w, &"a".repeat(1024), b"")
        }),
        ("link target of a megabyte", false, |w, _| {
            plain(w, "l", Kind::Symlink, &"a".repeat(1 << 20))
        }),
    ];
    for (what, fine, build) in cases {
        let (tmp, root) = arena();
        let outside = tmp.path().join("outside");
        let bytes = tar(|w| build(w, outside.to_str().unwrap()));
        let result = unpack(&root, &bytes);
        assert_outside_untouched(tmp.path());
        if what.contains("symlink then write through it") {
            assert!(matches!(result, Err(Error::Entry { .. })), "{what}: {result:?}");
            continue;
        }
        assert_eq!(result.is_ok(), *fine, "{what}: {result:?}");
    }
}

#[test]
fn symlinked_ancestors_resolve_in_the_root() {
    if !root() {
        return;
    }
    let (_tmp, root) = arena();
    let bytes = tar(|w| {
        plain(w, "usr/", Kind::Directory, "");
        plain(w, "usr/bin", Kind::Directory, "");
        plain(w, "bin", Kind::Symlink, "/usr/bin");
        plain(w, "up", Kind::Symlink, "../../../../usr");
        file(w, "bin/tool", b"1");
        file(w, "up/other", b"2");
        file(w, "bin/.wh.gone", b"");
    });
    unpack(&root, &bytes).unwrap();
    assert_eq!(fs::read(root.join("usr/bin/tool")).unwrap(), b"1");
    assert_eq!(fs::read(root.join("usr/other")).unwrap(), b"2");
    assert!(is_whiteout(&root.join("usr/bin/gone")));
}

#[test]
fn later_entries_replace_earlier_ones_and_whiteouts_spare_their_own_layer() {
    if !root() {
        return;
    }
    let (_tmp, root) = arena();
    let bytes = tar(|w| {
        file(w, "a/b/c", b"1");
        file(w, "a", b"now a file");
        plain(w, "s", Kind::Symlink, "x");
        plain(w, "s", Kind::Directory, "");
        file(w, "kept", b"1");
        file(w, ".wh.kept", b"");
        file(w, "dir/x", b"1");
        file(w, ".wh.dir", b"");
        file(w, ".wh.new", b"");
        file(w, "new/x", b"1");
        file(w, "o/.wh..wh..opq", b"");
        file(w, ".wh..wh.plnk", b"");
    });
    unpack(&root, &bytes).unwrap();
    assert_eq!(fs::read(root.join("a")).unwrap(), b"now a file");
    assert!(fs::symlink_metadata(root.join("s")).unwrap().is_dir());
    assert_eq!(fs::read(root.join("kept")).unwrap(), b"1");
    for opaque in ["dir", "new", "o"] {
        assert_eq!(
            xattr(&root.join(opaque), "trusted.overlay.opaque").as_deref(),
            Some(&b"y"[..]),
            "{opaque}"
        );
    }
    assert!(
        root.join("dir/x").exists() && root.join("new/x").exists() && !root.join(".wh..wh.plnk").exists()
    );
}

#[test]
fn limits_name_the_entry_and_the_bound() {
    if !root() {
        return;
    }
    let zeros = vec![0u8; 8 << 20];
    let big = tar(|w| file(w, "bomb", &zeros));
    let small = Limits {
        expanded_bytes: 4 << 20,
        ..Limits::default()
    };
    let ratio = Limits {
        ratio: 100,
        ratio_after_bytes: 1 << 20,
        ..Limits::default()
    };
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&big).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(&big[..], 19).unwrap();
    let many = tar(|w| (0..100).for_each(|i| file(w, &format!("f{i}"), b"")));
    let few = Limits {
        entries: 50,
        ..Limits::default()
    };
    let xattrs = tar(|w| {
        let xattrs = [Xattr {
            name: b"user.a".to_vec(),
            value: vec![b'x'; 60_000],
        }];
        w.header(&NewEntry {
            xattrs: &xattrs,
            ..entry("fat", Kind::Directory, "")
        })
        .unwrap();
    });
    let lean = Limits {
        pax_bytes: 1000,
        ..Limits::default()
    };
    let dirs = tar(|w| (0..100).for_each(|i| plain(w, &format!("d{i}"), Kind::Directory, "")));
    let forgetful = Limits {
        kept_name_bytes: 1000,
        ..Limits::default()
    };
    for (bytes, compression, limits, names) in [
        (&big, Compression::None, &small, "bomb"),
        (&gz, Compression::Gzip, &small, "bomb"),
        (&zst, Compression::Zstd, &small, "bomb"),
        (&gz, Compression::Gzip, &ratio, "bomb"),
        (&zst, Compression::Zstd, &ratio, "bomb"),
        (&many, Compression::None, &few, "f50"),
        (&xattrs, Compression::None, &lean, "PAX header"),
        (&dirs, Compression::None, &forgetful, "directory"),
    ] {
        let (_tmp, root) = arena();
        let error = unpack_with(&root, bytes, compression, limits).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error:?}");
        assert!(error.to_string().contains(names), "{error}");
    }
}

#[test]
fn broken_streams_are_refused() {
    if !root() {
        return;
    }
    let good = tar(|w| file(w, "f", &[7u8; 100_000]));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&good).unwrap();
    let gz = encoder.finish().unwrap();
    let zst = zstd::encode_all(&good[..], 3).unwrap();
    let mut flipped = gz.clone();
    let middle = flipped.len() - 6;
    flipped[middle] ^= 1;
    let garbage = |bytes: &[u8]| [bytes, b"garbage behind the end"].concat();
    for (what, bytes, compression) in [
        ("truncated tar", good[..50_000].to_vec(), Compression::None),
        ("truncated gzip", gz[..gz.len() - 9].to_vec(), Compression::Gzip),
        ("truncated zstd", zst[..zst.len() - 3].to_vec(), Compression::Zstd),
        ("gzip with a wrong checksum", flipped, Compression::Gzip),
        ("gzip with garbage behind", garbage(&gz), Compression::Gzip),
        ("zstd with garbage behind", garbage(&zst), Compression::Zstd),
        ("plain as gzip", good.clone(), Compression::Gzip),
    ] {
        let (_tmp, root) = arena();
        let error = unpack_with(&root, &bytes, compression, &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Stream { .. }), "{what}: {error:?}");
    }
    // Several members or frames are one stream.
    let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let gzip = |bytes: &[u8]| {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(bytes).unwrap();
        e.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let (head, tail) = good.split_at(1000);
    for (bytes, compression) in [
        (two(gzip(head), gzip(tail)), Compression::Gzip),
        (two(zstd(head), zstd(tail)), Compression::Zstd),
    ] {
        let (_tmp, root) = arena();
        let received = unpack_with(&root, &bytes, compression, &Limits::default()).unwrap();
        assert_eq!(received.diff_id, Digest::of(&good));
        assert_eq!(fs::read(root.join("f")).unwrap(), [7u8; 100_000]);
    }
}

/// A tree with one of everything.
fn everything(dir: &Path) {
    fs::create_dir_all(dir.join("d/deep")).unwrap();
    fs::write(dir.join("d/file"), "data").unwrap();
    fs::write(dir.join("suid"), "x").unwrap();
    std::os::unix::fs::chown(dir.join("suid"), Some(1000), Some(3_000_000)).unwrap();
    fs::set_permissions(dir.join("suid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(dir.join("d/file"), dir.join("hard")).unwrap();
    symlink("/somewhere/else", dir.join("sym")).unwrap();
    let long = format!("d/{}/{}", "n".repeat(200), "m".repeat(200));
    fs::create_dir_all(dir.join(&long)).unwrap();
    fs::write(dir.join(&long).join("f"), "x").unwrap();
    fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o2770)).unwrap();
    let cwd = rustix::fs::CWD;
    for (name, kind, device) in [
        ("fifo", rustix::fs::FileType::Fifo, 0),
        (
            "null",
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::makedev(1, 3),
        ),
        (
            "loop",
            rustix::fs::FileType::BlockDevice,
            rustix::fs::makedev(7, 300),
        ),
    ] {
        rustix::fs::mknodat(
            cwd,
            dir.join(name),
            kind,
            rustix::fs::Mode::from_raw_mode(0o622),
            device,
        )
        .unwrap();
    }
    let flags = rustix::fs::XattrFlags::empty();
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    rustix::fs::setxattr(dir.join("d/file"), "security.capability", capability, flags).unwrap();
    rustix::fs::setxattr(dir.join("d/deep"), "user.bytes", b"a\0b\n=", flags).unwrap();
    rustix::fs::lsetxattr(dir.join("sym"), "trusted.note", b"on a symlink", flags).unwrap();
    for (name, secs, nanos) in [
        ("d/deep", 1_234_567_890, 987_654_321),
        ("d", 1, 1),
        ("sym", -5, 500_000_000),
        ("hard", 7, 7),
    ] {
        let time = rustix::fs::Timespec {
            tv_sec: secs,
            tv_nsec: nanos,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(cwd, dir.join(name), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// GNU tar carries no xattrs of symlinks.
fn restore_symlink_xattr(dir: &Path) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(dir.join("sym"), "trusted.note", b"on a symlink", flags).unwrap();
}

fn diff(dir: &Path, form: Form) -> Vec<u8> {
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

#[test]
fn everything_survives_diff_and_apply_and_gnu_tar_agrees() {
    if !root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let [from, to, gnu, back] = ["from", "to", "gnu", "back"].map(|n| tmp.path().join(n));
    for dir in [&from, &to, &gnu, &back] {
        fs::create_dir(dir).unwrap();
    }
    everything(&from);
    let bytes = diff(&from, Form::Layer);
    let received = unpack(&to, &bytes).unwrap();
    assert_eq!(received.diff_id, Digest::of(&bytes));
    assert!(diff(&to, Form::Layer) == bytes, "the copy differs");
    let hard = fs::metadata(to.join("hard")).unwrap();
    assert_eq!((hard.nlink(), hard.mtime(), hard.mtime_nsec()), (2, 7, 7));
    assert_eq!(
        fs::symlink_metadata(to.join("suid")).unwrap().mode() & 0o7777,
        0o6755
    );

    // GNU tar reads what is written here...
    let archive = tmp.path().join("layer.tar");
    fs::write(&archive, &bytes).unwrap();
    let run = |args: &[&str]| {
        let status = Command::new("tar").args(args).status().unwrap();
        assert!(status.success(), "tar {args:?}");
    };
    let text = |p: &Path| p.to_str().unwrap().to_owned();
    run(&[
        "-xpf",
        &text(&archive),
        "--xattrs",
        "--xattrs-include=*",
        "-C",
        &text(&gnu),
    ]);
    restore_symlink_xattr(&gnu);
    assert!(diff(&gnu, Form::Layer) == bytes, "GNU tar's copy differs");
    // ...and what it writes, in each of its formats, is read here.
    for format in ["pax", "posix", "gnu"] {
        let made = tmp.path().join(format!("{format}.tar"));
        let mut args = vec![
            "-cf".to_owned(),
            text(&made),
            "-C".to_owned(),
            text(&from),
            "--format".to_owned(),
            format.to_owned(),
        ];
        if format != "gnu" {
            args.extend(["--xattrs", "--xattrs-include=*"].map(str::to_owned));
        }
        args.push(".".to_owned());
        run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        fs::remove_dir_all(&back).unwrap();
        fs::create_dir(&back).unwrap();
        unpack(&back, &fs::read(&made).unwrap()).unwrap();
        restore_symlink_xattr(&back);
        if format != "gnu" {
            assert!(
                diff(&back, Form::Layer) == bytes,
                "copy through GNU tar's {format} differs"
            );
        }
        assert_eq!(fs::read(back.join("hard")).unwrap(), b"data");
    }
}

#[test]
fn sparse_files_of_gnu_tar_keep_their_holes() {
    if !root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let from = tmp.path().join("from");
    fs::create_dir(&from).unwrap();
    let file = File::create(from.join("sparse")).unwrap();
    for i in 0..60u64 {
        rustix::io::pwrite(&file, format!("extent {i}").as_bytes(), i * (1 << 20) + 4096).unwrap();
    }
    file.set_len(100 << 20).unwrap();
    File::create(from.join("hole"))
        .unwrap()
        .set_len(10 << 20)
        .unwrap();
    let original = fs::read(from.join("sparse")).unwrap();
    for (format, version) in [("gnu", "1.0"), ("pax", "0.0"), ("pax", "0.1"), ("pax", "1.0")] {
        let archive = tmp.path().join("a.tar");
        let status = Command::new("tar")
            .args(["--format", format, "--sparse", "--sparse-version", version, "-cf"])
            .args([&archive, Path::new("-C"), &from, Path::new(".")])
            .status()
            .unwrap();
        assert!(status.success());
        let to = tmp.path().join(format!("{format}{version}"));
        fs::create_dir(&to).unwrap();
        let received = unpack(&to, &fs::read(&archive).unwrap()).unwrap();
        assert!(
            fs::read(to.join("sparse")).unwrap() == original,
            "{format} {version}"
        );
        assert!(
            fs::metadata(to.join("sparse")).unwrap().blocks() < 2048,
            "{format} {version}: holes were filled"
        );
        assert_eq!(fs::metadata(to.join("hole")).unwrap().len(), 10 << 20);
        assert!(received.applied.size < 1 << 20);
    }
}

#[test]
fn whiteouts_come_back_from_the_upper_directory_form() {
    if !root() {
        return;
    }
    let (tmp, root) = arena();
    let bytes = tar(|w| {
        plain(w, "d", Kind::Directory, "");
        file(w, "d/.wh..wh..opq", b"");
        file(w, "d/.wh.gone", b"");
        file(w, ".wh.top", b"");
    });
    unpack(&root, &bytes).unwrap();
    let again = diff(&root, Form::Layer);
    let second = tmp.path().join("second");
    fs::create_dir(&second).unwrap();
    unpack(&second, &again).unwrap();
    assert!(is_whiteout(&second.join("top")) && is_whiteout(&second.join("d/gone")));
    assert!(diff(&second, Form::Layer) == again);
    let names: Vec<_> = tar::Archive::new(&again[..])
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["./", "d/", "d/.wh..wh..opq", "d/.wh.gone", ".wh.top"]);
}

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

/// A stream that fails when read past `limit`.
struct Watched<'b>(&'b [u8]);

impl Read for Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = out.len().min(self.0.len()).min(777);
        out[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Valid archives with bytes changed: read or refused, never a panic, never anything outside the root.
    #[test]
    fn mutated_archives_stay_inside(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), fix: bool) {
        prop_assume!(rustix::process::geteuid().is_root());
        let (tmp, root) = arena();
        let mut bytes = tar(|w| {
            plain(w, "link", Kind::Symlink, "../outside");
            file(w, "d/file", b"some data");
            file(w, "d/.wh.x", b"");
            plain(w, "h", Kind::HardLink, "d/file");
            let xattrs = [Xattr { name: b"user.a".to_vec(), value: b"b".to_vec() }];
            w.header(&NewEntry { xattrs: &xattrs, ..entry("x", Kind::Directory, "") }).unwrap();
        });
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if fix {
            // Checksums made right again let the changes reach the parser.
            for block in bytes.chunks_exact_mut(512).filter(|b| &b[257..262] == b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let limits = Limits { expanded_bytes: 1 << 20, ..Limits::default() };
        let fd = File::open(&root).unwrap();
        let _ = layer::unpack(fd.as_fd(), Compression::None, Watched(&bytes), berth_images::digest::Algorithm::Sha256, &limits);
        assert_outside_untouched(tmp.path());
    }

    /// apply(diff(x)) == x for random trees.
    #[test]
    fn random_trees_survive(tree in proptest::collection::vec(
        ("[a-c]{1}(/[a-c]{1,120}){0,3}", 0u8..6, 0u32..0o10000, any::<u16>(), 0u32..1_000_000_000), 1..20)) {
        prop_assume!(rustix::process::geteuid().is_root());
        let (tmp, root) = arena();
        let mut last = String::new();
        for (path, kind, mode, id, nanos) in &tree {
            let at = root.join(path);
            if at.symlink_metadata().is_ok() || fs::create_dir_all(at.parent().unwrap()).is_err() {
                continue;
            }
            let made = match kind {
                0 => fs::create_dir(&at).is_ok(),
                1 => symlink(format!("/nowhere/{path}"), &at).is_ok(),
                2 => !last.is_empty() && fs::hard_link(root.join(&last), &at).is_ok(),
                3 => rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty(), 0).is_ok(),
                _ => fs::write(&at, vec![b'x'; usize::from(*id)]).is_ok(),
            };
            if !made || *kind == 3 {
                continue;
            }
            std::os::unix::fs::lchown(&at, Some(u32::from(*id)), Some(u32::from(*id) * 60)).unwrap();
            if *kind != 1 {
                fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
            }
            let time = rustix::fs::Timespec { tv_sec: i64::from(*id) - 30_000, tv_nsec: i64::from(*nanos) };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(rustix::fs::CWD, &at, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
            if *kind > 3 {
                last.clone_from(path);
            }
        }
        let bytes = diff(&root, Form::Layer);
        let to = tmp.path().join("to");
        fs::create_dir(&to).unwrap();
        unpack(&to, &bytes).unwrap();
        prop_assert!(diff(&to, Form::Layer) == bytes);
    }
}
