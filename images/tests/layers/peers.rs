//! GNU tar on the other side, in each of its formats.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use berth_images::Digest;
use berth_images::layer::Form;

use crate::archive::*;

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
        if format == "gnu" {
            // The old form: four extents in the header, 21 in each block behind it.
            let bytes = fs::read(&archive).unwrap();
            let header = bytes.chunks(512).find(|b| b.starts_with(b"./sparse\0")).unwrap();
            assert_eq!((header[156], header[482]), (b'S', 1), "no extension block");
        }
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
