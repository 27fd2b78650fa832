//! Images as lower layers of an overlay, which is how guests use them.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::host::{Mounted, image, require};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_is_below() {
    if !require(&["mount"]) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    for dir in ["low/replaced", "low/merged", "top/replaced", "top/merged"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    for file in ["low/gone", "low/stays", "low/replaced/old", "low/merged/below"] {
        fs::write(at(file), "low").unwrap();
    }
    for file in ["top/stays", "top/replaced/new", "top/merged/above"] {
        fs::write(at(file), "top").unwrap();
    }
    let mode = Mode::from_raw_mode(0);
    rustix::fs::mknodat(CWD, at("top/gone"), FileType::CharacterDevice, mode, 0).unwrap();
    let flags = XattrFlags::empty();
    rustix::fs::setxattr(at("top/replaced"), "trusted.overlay.opaque", b"y", flags).unwrap();

    let layers = ["low", "top"].map(|name| {
        image(&at(name), &at(&format!("{name}.erofs"))).unwrap();
        Mounted::image(&at(&format!("{name}.erofs")))
    });
    let merged = Mounted::overlay(&[&layers[1].path, &layers[0].path], &at("merged"));
    assert_eq!(names(&merged.path), ["merged", "replaced", "stays"]);
    assert_eq!(names(&merged.path.join("merged")), ["above", "below"]);
    assert_eq!(names(&merged.path.join("replaced")), ["new"]);
    assert_eq!(fs::read_to_string(merged.path.join("stays")).unwrap(), "top");
}
