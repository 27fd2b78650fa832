//! What a layer says and how it lies on disk: symlinks, replaced names, whiteouts, in both directions.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use berth_images::layer::Form;
use berth_images::layer::tar::Kind;
use proptest::prelude::*;

use crate::archive::*;

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

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
