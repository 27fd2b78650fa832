//! Two trees, attribute by attribute.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Everything that can be seen of one name but its content.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Of files and symlinks; a directory's is its filesystem's affair.
    size: u64,
    device: u64,
    target: Option<PathBuf>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names of the same inode, this one among them.
    same: Vec<PathBuf>,
    links: u64,
}

/// Every name below `root`, and the root itself as an empty path.
pub fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let at = root.join(&path);
        let meta = fs::symlink_metadata(&at).unwrap();
        let kind = meta.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&at).unwrap() {
                let entry = entry.unwrap();
                let child = path.join(entry.file_name());
                // d_type and a lookup must agree.
                let own = fs::symlink_metadata(root.join(&child)).unwrap();
                assert_eq!(entry.file_type().unwrap(), own.file_type(), "type of {child:?}");
                open.push(child);
            }
        }
        inodes.entry(meta.ino()).or_default().push(path.clone());
        numbers.insert(path.clone(), meta.ino());
        let has_size = kind.is_file() || kind.is_symlink();
        let is_device = kind.is_char_device() || kind.is_block_device();
        let one = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            size: if has_size { meta.size() } else { 0 },
            device: if is_device { meta.rdev() } else { 0 },
            target: kind.is_symlink().then(|| fs::read_link(&at).unwrap()),
            xattrs: xattrs(&at),
            same: Vec::new(),
            links: meta.nlink(),
        };
        seen.insert(path, one);
    }
    for (path, one) in &mut seen {
        one.same = inodes[&numbers[path]].clone();
        one.same.sort();
    }
    seen
}

/// Asserts that `image` shows what `source` holds.
pub fn assert_same(source: &Path, image: &Path) {
    let (expected, found) = (look(source), look(image));
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        found.keys().collect::<Vec<_>>(),
        "names"
    );
    for (path, expected) in &expected {
        assert_eq!(expected, &found[path], "{path:?}");
        if expected.mode & 0o170_000 == 0o100_000 {
            let content = |root: &Path| fs::read(root.join(path)).unwrap();
            assert!(content(source) == content(image), "content of {path:?}");
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0u8; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..len].split(|&b| b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0u8; 64 << 10];
            let len = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]).unwrap();
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}
