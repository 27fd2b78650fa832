//! Random trees, and how they come onto a filesystem.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

#[derive(Debug, Clone)]
pub enum What {
    File {
        size: u64,
        seed: u8,
        /// Only its first and last byte are written.
        is_sparse: bool,
    },
    Directory(BTreeMap<Vec<u8>, Entry>),
    Symlink(Vec<u8>),
    Node(FileType, u64),
    /// One more name of a file, a symlink or a device made before.
    Link(Index),
    /// overlayfs: what is below under this name is gone.
    Whiteout,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub what: What,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// A directory with everything in it.
pub fn tree() -> impl Strategy<Value = Entry> {
    let size = prop_oneof![
        2 => 0u64..200,
        3 => (0u64..4, 0u64..140).prop_map(|(blocks, short)| (blocks + 1) * 4096 - short),
        3 => (0u64..4, 0u64..3).prop_map(|(blocks, over)| blocks * 4096 + over),
        1 => 60_000u64..300_000,
    ];
    let file =
        (size, any::<u8>(), prop::bool::weighted(0.2)).prop_map(|(size, seed, is_sparse)| What::File {
            size,
            seed,
            is_sparse,
        });
    let kinds = prop_oneof![
        Just(FileType::CharacterDevice),
        Just(FileType::BlockDevice),
        Just(FileType::Fifo),
        Just(FileType::Socket),
    ];
    let leaf = prop_oneof![
        6 => file,
        2 => vec(1u8..=255, 1..300).prop_map(What::Symlink),
        1 => vec(1u8..=255, 3900..4095).prop_map(What::Symlink),
        2 => (kinds, 0u32..4096, 0u32..1 << 20)
            .prop_map(|(kind, major, minor)| What::Node(kind, rustix::fs::makedev(major, minor))),
        2 => any::<Index>().prop_map(What::Link),
        1 => Just(What::Whiteout),
    ];
    let entries = leaf.prop_flat_map(entry);
    let entries = entries.prop_recursive(4, 60, 12, |inner| {
        prop_oneof![
            4 => btree_map(name(), inner.clone(), 0..12),
            // Enough names for several blocks.
            1 => btree_map(name(), inner, 30..60),
        ]
        .prop_map(What::Directory)
        .prop_flat_map(entry)
    });
    btree_map(name(), entries, 0..12)
        .prop_map(What::Directory)
        .prop_flat_map(entry)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = (1u8..=255).prop_filter("a separator", |&b| b != b'/');
    let dots = |name: &Vec<u8>| name != b"." && name != b"..";
    prop_oneof![
        vec(byte.clone(), 1..20),
        vec(byte, 200..=255),
        "[ !.a]{1,3}".prop_map(String::into_bytes)
    ]
    .prop_filter("taken by every directory", dots)
}

fn entry(what: What) -> impl Strategy<Value = Entry> {
    // The kernel keeps `user.` for files and directories.
    let takes_user = matches!(what, What::File { .. } | What::Directory(_));
    let prefix = if takes_user {
        "(user|trusted|security)"
    } else {
        "trusted"
    };
    let xattr = proptest::string::string_regex(&format!("{prefix}\\.x[a-z.]{{0,40}}")).unwrap();
    let xattrs = prop_oneof![
        3 => Just(BTreeMap::new()),
        1 => btree_map(xattr, vec(any::<u8>(), 0..400), 0..6),
    ];
    let owner = prop_oneof![Just((0, 0)), (0..u32::MAX, 0..u32::MAX)];
    // What ext4 can hold.
    let mtime = (-(1i64 << 31)..1 << 33, 0..1_000_000_000i64);
    (Just(what), 0u32..0o10000, owner, mtime, xattrs).prop_map(|(what, mode, owner, mtime, xattrs)| Entry {
        what,
        mode,
        owner,
        mtime,
        xattrs,
    })
}

impl Entry {
    /// Makes the tree at `path`, which does not exist.
    pub fn make(&self, path: &Path) {
        self.make_at(path, &mut Vec::new());
    }

    fn make_at(&self, path: &Path, made: &mut Vec<PathBuf>) {
        match &self.what {
            What::Directory(entries) => {
                fs::create_dir(path).unwrap();
                for (name, entry) in entries {
                    entry.make_at(&path.join(OsStr::from_bytes(name)), made);
                }
            }
            What::File {
                size,
                seed,
                is_sparse,
            } => write(path, *size, *seed, *is_sparse),
            What::Symlink(target) => symlink(OsStr::from_bytes(target), path).unwrap(),
            What::Node(kind, device) => node(path, *kind, *device),
            What::Whiteout => node(path, FileType::CharacterDevice, 0),
            What::Link(of) => {
                if !made.is_empty() {
                    fs::hard_link(of.get(made), path).unwrap();
                }
                return;
            }
        }
        if !matches!(self.what, What::Directory(_)) {
            made.push(path.to_owned());
        }
        self.give_attributes(path);
    }

    fn give_attributes(&self, path: &Path) {
        std::os::unix::fs::lchown(path, Some(self.owner.0), Some(self.owner.1)).unwrap();
        if !matches!(self.what, What::Symlink(_)) {
            rustix::fs::chmod(path, Mode::from_raw_mode(self.mode)).unwrap();
        }
        for (name, value) in &self.xattrs {
            rustix::fs::lsetxattr(path, name.as_str(), value, XattrFlags::empty()).unwrap();
        }
        let time = Timespec {
            tv_sec: self.mtime.0,
            tv_nsec: self.mtime.1,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn write(path: &Path, size: u64, seed: u8, is_sparse: bool) {
    let file = File::create(path).unwrap();
    if !is_sparse {
        let bytes: Vec<u8> = (0..size)
            .map(|at| (at.wrapping_mul(31).wrapping_add(at >> 8) as u8) ^ seed)
            .collect();
        file.write_all_at(&bytes, 0).unwrap();
        return;
    }
    file.set_len(size).unwrap();
    if size > 0 {
        file.write_all_at(&[seed], 0).unwrap();
        file.write_all_at(&[seed], size - 1).unwrap();
    }
}

fn node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).unwrap();
}
