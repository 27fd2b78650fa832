//! A directory's data: blocks of `struct erofs_dirent`, 12 bytes each, and the names after them.
//!
//! The kernel looks names up by bisection, over blocks and then within one, so they are in the order of their bytes, `.` and
//! `..` among them. A name ends where the next begins; the last one of a block at a zero byte or the block's end.

use std::ffi::CString;

use rustix::fs::FileType;

use super::{BLOCK, BLOCK_LEN};

/// Longest name, `EROFS_NAME_LEN`.
pub(super) const NAME_MAX: usize = 255;

const DIRENT: usize = 12;

/// One name of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Itself,
    Parent,
    /// The child of this index.
    Child(usize),
}

/// The number and type a name leads to.
pub(super) struct Target {
    pub(super) inode: u64,
    pub(super) file_type: FileType,
}

/// Bytes of a directory that holds `names`, which are sorted.
pub(super) fn size(names: &[CString]) -> u64 {
    let (mut full, mut used) = (0, 0);
    for (_, name) in ordered(names) {
        let need = DIRENT + name.len();
        if used + need > BLOCK_LEN {
            full += BLOCK;
            used = 0;
        }
        used += need;
    }
    full + used as u64
}

/// The directory's data, [`size`] bytes.
pub(super) fn encode(names: &[CString], target: impl Fn(Name) -> Target) -> Vec<u8> {
    let mut data = Vec::new();
    let mut block: Vec<(Name, &[u8])> = Vec::new();
    let mut used = 0;
    for (name, bytes) in ordered(names) {
        let need = DIRENT + bytes.len();
        if used + need > BLOCK_LEN {
            encode_block(&block, &target, &mut data);
            data.resize(data.len().next_multiple_of(BLOCK_LEN), 0);
            block.clear();
            used = 0;
        }
        block.push((name, bytes));
        used += need;
    }
    encode_block(&block, &target, &mut data);
    data
}

fn encode_block(names: &[(Name, &[u8])], target: &impl Fn(Name) -> Target, data: &mut Vec<u8>) {
    let mut offset = names.len() * DIRENT;
    for (name, bytes) in names {
        let Target { inode, file_type } = target(*name);
        data.extend_from_slice(&inode.to_le_bytes());
        let start = u16::try_from(offset).expect("names end within a block");
        data.extend_from_slice(&start.to_le_bytes());
        data.extend_from_slice(&[type_number(file_type), 0]);
        offset += bytes.len();
    }
    for (_, bytes) in names {
        data.extend_from_slice(bytes);
    }
}

/// `names` with the two that every directory has, in order.
fn ordered(names: &[CString]) -> impl Iterator<Item = (Name, &[u8])> {
    let below = |dots: &[u8]| names.partition_point(|name| name.as_bytes() < dots);
    let (itself, parent) = (below(b"."), below(b".."));
    let children = |range: std::ops::Range<usize>| {
        let start = range.start;
        names[range]
            .iter()
            .enumerate()
            .map(move |(at, name)| (Name::Child(start + at), name.as_bytes()))
    };
    children(0..itself)
        .chain([(Name::Itself, &b"."[..])])
        .chain(children(itself..parent))
        .chain([(Name::Parent, &b".."[..])])
        .chain(children(parent..names.len()))
}

/// The `FT_*` numbers of `linux/fs_types.h`.
fn type_number(file_type: FileType) -> u8 {
    match file_type {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::CharacterDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
        FileType::Unknown => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(mut names: Vec<Vec<u8>>) -> Vec<CString> {
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|name| CString::new(name).unwrap())
            .collect()
    }

    /// The names of a directory's data with the numbers they lead to, read as the kernel does.
    fn decode(data: &[u8]) -> Vec<(Vec<u8>, u64, u8)> {
        let mut found = Vec::new();
        for block in data.chunks(4096) {
            let offset =
                |at: usize| usize::from(u16::from_le_bytes([block[at * 12 + 8], block[at * 12 + 9]]));
            let count = offset(0) / 12;
            for at in 0..count {
                let end = if at + 1 < count {
                    offset(at + 1)
                } else {
                    block.len()
                };
                let name = &block[offset(at)..end];
                let name = name.split(|&b| b == 0).next().unwrap_or_default();
                let number = u64::from_le_bytes(block[at * 12..][..8].try_into().unwrap());
                found.push((name.to_vec(), number, block[at * 12 + 10]));
            }
        }
        found
    }

    #[test]
    fn an_empty_directory_has_two_names() {
        let data = encode(&[], |name| Target {
            inode: if name == Name::Itself { 5 } else { 4 },
            file_type: FileType::Directory,
        });
        assert_eq!(data.len(), 27);
        assert_eq!(decode(&data), [(b".".to_vec(), 5, 2), (b"..".to_vec(), 4, 2)]);
    }

    #[test]
    fn names_below_the_dots_come_before_them() {
        let names = sorted(vec![
            b"-".to_vec(),
            b".-".to_vec(),
            b"...".to_vec(),
            b"a".to_vec(),
        ]);
        let order: Vec<_> = ordered(&names).map(|(_, name)| name.to_vec()).collect();
        assert_eq!(order, [&b"-"[..], b".", b".-", b"..", b"...", b"a"]);
    }

    #[test]
    fn a_block_filled_to_its_last_byte_is_one_block() {
        // 39 + 15 * (12 + 255) + 2 names that end the block exactly.
        let mut names: Vec<Vec<u8>> = (b'a'..b'a' + 15).map(|c| vec![c; 255]).collect();
        names.push(vec![b'z'; 4096 - 27 - 15 * 267 - 12]);
        let names = sorted(names);
        assert_eq!(size(&names), 4096);
        let data = encode(&names, |_| Target {
            inode: 1,
            file_type: FileType::Fifo,
        });
        assert_eq!(data.len(), 4096);
        assert_eq!(decode(&data).len(), 18);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_found_in_order(
            names in proptest::collection::vec(proptest::collection::vec(1u8..255, 1..255), 0..200)
        ) {
            let names: Vec<_> = names.into_iter().filter(|name| name != b"." && name != b"..").collect();
            let names = sorted(names);
            let data = encode(&names, |name| Target {
                inode: match name { Name::Itself => 1000, Name::Parent => 1001, Name::Child(at) => at as u64 },
                file_type: FileType::RegularFile,
            });
            prop_assert_eq!(data.len() as u64, size(&names));
            let found = decode(&data);
            prop_assert_eq!(found.len(), names.len() + 2);
            prop_assert!(found.is_sorted_by(|a, b| a.0 < b.0));
            for (name, number, _) in found {
                let expected = match &name[..] {
                    b"." => 1000,
                    b".." => 1001,
                    _ => names.binary_search_by(|n| n.as_bytes().cmp(&name)).unwrap() as u64,
                };
                prop_assert_eq!(number, expected);
            }
        }
    }
}
