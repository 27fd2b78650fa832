//! The inodes that a new filesystem has (`Documentation/filesystems/ext4/inodes.rst`).

use super::geometry::{Geometry, INODE_BYTES};
use super::{BLOCK, BLOCK_LEN};

const ROOT: u32 = 2;
/// The journal's.
pub(super) const JOURNAL: u32 = 8;
/// lost+found is the first that is not reserved by the format, and the last in use.
pub(super) const LOST_AND_FOUND: u32 = 11;
/// Inodes in use.
pub(super) const RESERVED: u32 = LOST_AND_FOUND;
/// Bytes of an inode in use after the first 128.
pub(super) const EXTRA_BYTES: u16 = 32;

const EXTENTS: usize = 0x28;
const EXTENT_MAGIC: u16 = 0xf30a;
/// The data is found by extents.
const HAS_EXTENTS: u32 = 0x8_0000;

/// An encoded inode.
struct Inode([u8; INODE_BYTES as usize]);

/// The blocks of the inode table that hold inodes in use.
pub(super) fn table(geometry: &Geometry) -> Vec<u8> {
    let first = geometry.first();
    let mut block = vec![0; BLOCK_LEN];
    let mut put = |number: u32, inode: &Inode| {
        let at = (number as usize - 1) * usize::from(INODE_BYTES);
        block[at..][..inode.0.len()].copy_from_slice(&inode.0);
    };
    put(ROOT, &Inode::new(0o040_755, 3, first.root, 1));
    put(
        JOURNAL,
        &Inode::new(0o100_600, 1, first.journal, geometry.journal_blocks),
    );
    put(LOST_AND_FOUND, &Inode::new(0o040_700, 2, first.lost_and_found, 1));
    block
}

impl Inode {
    /// An inode of root's whose data is `blocks` blocks from `start` on.
    fn new(mode: u16, links: u16, start: u32, blocks: u32) -> Self {
        let mut bytes = [0; INODE_BYTES as usize];
        let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
        put(0x0, &mode.to_le_bytes());
        put(0x4, &(blocks * BLOCK).to_le_bytes());
        put(0x1a, &links.to_le_bytes());
        // In units of 512 bytes.
        put(0x1c, &(blocks * (BLOCK / 512)).to_le_bytes());
        put(0x20, &HAS_EXTENTS.to_le_bytes());
        // A header: one extent of four that fit, no levels below; then the extent, from the file's block 0 on.
        put(EXTENTS, &EXTENT_MAGIC.to_le_bytes());
        put(EXTENTS + 2, &1u16.to_le_bytes());
        put(EXTENTS + 4, &4u16.to_le_bytes());
        let len = u16::try_from(blocks).expect("the journal is the longest");
        put(EXTENTS + 16, &len.to_le_bytes());
        put(EXTENTS + 20, &start.to_le_bytes());
        put(0x80, &EXTRA_BYTES.to_le_bytes());
        Self(bytes)
    }
}
