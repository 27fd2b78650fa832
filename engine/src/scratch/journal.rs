//! An empty journal: its superblock says that nothing is to be replayed, the rest may hold anything
//! (`Documentation/filesystems/ext4/journal.rst`). Its numbers are big-endian.

use super::geometry::Geometry;
use super::{BLOCK, BLOCK_LEN};

const MAGIC: u32 = 0xc03b_3998;
/// A superblock of version 2.
const SUPERBLOCK: u32 = 4;

/// The journal's first block.
pub(super) fn superblock(geometry: &Geometry, uuid: [u8; 16]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_LEN];
    let mut put = |at: usize, number: u32| block[at..][..4].copy_from_slice(&number.to_be_bytes());
    put(0x0, MAGIC);
    put(0x4, SUPERBLOCK);
    put(0xc, BLOCK);
    put(0x10, geometry.journal_blocks);
    // The log starts in the second block, with transaction 1; where it starts in use is 0 (at 0x1c): nowhere.
    put(0x14, 1);
    put(0x18, 1);
    // One filesystem uses it.
    put(0x40, 1);
    block[0x30..][..16].copy_from_slice(&uuid);
    block
}
