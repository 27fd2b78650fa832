//! The superblock: 1024 bytes at byte 1024 (`Documentation/filesystems/ext4/super.rst`).

use super::BLOCK_LEN;
use super::geometry::{BLOCKS_PER_GROUP, Geometry, INODE_BYTES};
use super::inode;

const OFFSET: usize = 1024;
const MAGIC: u16 = 0xef53;

/// `has_journal`, `ext_attr`, `dir_index`, and `sparse_super2`: copies only where the superblock names a group; it names none.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x20 | 0x200;
/// `filetype`, which overlayfs needs; `extents`.
const INCOMPATIBLE: u32 = 0x2 | 0x40;
/// `large_file`, `huge_file`, `uninit_bg` (checksums of descriptors, so that they may say "not written"), `dir_nlink`,
/// `extra_isize`.
const READ_ONLY_COMPATIBLE: u32 = 0x2 | 0x8 | 0x10 | 0x20 | 0x40;

/// Block 0.
pub(super) fn encode(geometry: &Geometry, uuid: [u8; 16]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_LEN];
    let mut put = |at: usize, field: &[u8]| block[OFFSET + at..][..field.len()].copy_from_slice(field);
    let inodes = geometry.groups * geometry.inodes_per_group;
    put(0x0, &inodes.to_le_bytes());
    put(0x4, &geometry.blocks.to_le_bytes());
    put(0xc, &geometry.free().to_le_bytes());
    put(0x10, &(inodes - inode::RESERVED).to_le_bytes());
    // Blocks and clusters of 1024 << 2 bytes.
    put(0x18, &2u32.to_le_bytes());
    put(0x1c, &2u32.to_le_bytes());
    put(0x20, &BLOCKS_PER_GROUP.to_le_bytes());
    put(0x24, &BLOCKS_PER_GROUP.to_le_bytes());
    put(0x28, &geometry.inodes_per_group.to_le_bytes());
    // No check after so many mounts.
    put(0x36, &u16::MAX.to_le_bytes());
    put(0x38, &MAGIC.to_le_bytes());
    // Cleanly unmounted; read-only after an error; revision 1.
    put(0x3a, &1u16.to_le_bytes());
    put(0x3c, &2u16.to_le_bytes());
    put(0x4c, &1u32.to_le_bytes());
    put(0x54, &inode::RESERVED.to_le_bytes());
    put(0x58, &INODE_BYTES.to_le_bytes());
    put(0x5c, &COMPATIBLE.to_le_bytes());
    put(0x60, &INCOMPATIBLE.to_le_bytes());
    put(0x64, &READ_ONLY_COMPATIBLE.to_le_bytes());
    put(0x68, &uuid);
    put(0xe0, &inode::JOURNAL.to_le_bytes());
    // Directories are hashed with half MD4, the seed being as random as the UUID.
    put(0xec, &uuid);
    put(0xfc, &[1]);
    put(0x15c, &inode::EXTRA_BYTES.to_le_bytes());
    put(0x15e, &inode::EXTRA_BYTES.to_le_bytes());
    // Hashes of names take bytes as unsigned.
    put(0x160, &2u32.to_le_bytes());
    block
}
