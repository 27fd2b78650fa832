//! The two directories of a new filesystem (`Documentation/filesystems/ext4/directory.rst`).

use super::BLOCK_LEN;
use super::inode::LOST_AND_FOUND;

/// The root's block.
pub(super) fn root() -> Vec<u8> {
    block(&[(2, b"."), (2, b".."), (LOST_AND_FOUND, b"lost+found")])
}

/// lost+found's block. e2fsck wants the directory; nothing else here does.
pub(super) fn lost_and_found() -> Vec<u8> {
    block(&[(LOST_AND_FOUND, b"."), (2, b"..")])
}

/// A directory of directories: inode, length of the entry, length and type of the name, name. The last entry reaches to the
/// block's end.
fn block(entries: &[(u32, &[u8])]) -> Vec<u8> {
    const DIRECTORY: u8 = 2;
    let mut block = Vec::with_capacity(BLOCK_LEN);
    for (at, (inode, name)) in entries.iter().enumerate() {
        let len = if at + 1 < entries.len() {
            (8 + name.len()).next_multiple_of(4)
        } else {
            BLOCK_LEN - block.len()
        };
        let end = block.len() + len;
        block.extend_from_slice(&inode.to_le_bytes());
        let len = u16::try_from(len).expect("a block at most");
        block.extend_from_slice(&len.to_le_bytes());
        let len = u8::try_from(name.len()).expect("names are short");
        block.extend_from_slice(&[len, DIRECTORY]);
        block.extend_from_slice(name);
        block.resize(end, 0);
    }
    block
}
