//! What is written is what the kernel shows.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::compare::assert_same;
use crate::host::{Mounted, check, image, require};
use crate::tree::tree;

fn round_trip(source: &Path, at: &Path) {
    image(source, at).unwrap();
    check(at);
    let mounted = Mounted::image(at);
    assert_same(source, &mounted.path);
}

#[test]
fn an_empty_tree_mounts() {
    if !require(&["mount"]) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let source = tmp.path().join("source");
    fs::create_dir(&source).unwrap();
    round_trip(&source, &tmp.path().join("image"));
}

/// Each case mounts, so fewer than usual; `PROPTEST_CASES` asks for another number.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|number| number.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(32),
        max_shrink_iters: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_trees_come_back(entry in tree()) {
        if !require(&["mount"]) {
            return Ok(());
        }
        let tmp = tempfile::tempdir().unwrap();
        let source = tmp.path().join("source");
        entry.make(&source);
        round_trip(&source, &tmp.path().join("image"));
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes(entry in tree()) {
        if !require(&[]) {
            return Ok(());
        }
        let tmp = tempfile::tempdir().unwrap();
        // Made twice: other inode numbers, other orders of names and xattrs on disk.
        let made = |name: &str| {
            let source = tmp.path().join(name);
            entry.make(&source);
            let at = tmp.path().join(format!("{name}.erofs"));
            image(&source, &at).unwrap();
            fs::read(at).unwrap()
        };
        prop_assert!(made("one") == made("two"));
    }
}
