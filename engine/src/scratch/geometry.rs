//! Where everything is, by the size of the disk alone.

use super::BLOCK;
use crate::error::{Error, Result};

/// Smallest disk: 8 MiB, half of which is journal.
pub const BYTES_MIN: u64 = 8 << 20;
/// Largest disk: what 32-bit block numbers reach.
pub const BYTES_MAX: u64 = (1 << 44) - BLOCK as u64;

/// What one block of bitmap describes.
pub(super) const BLOCKS_PER_GROUP: u32 = 8 * BLOCK;
pub(super) const INODE_BYTES: u16 = 256;
const INODES_PER_BLOCK: u32 = BLOCK / INODE_BYTES as u32;
const DESCRIPTORS_PER_BLOCK: u32 = BLOCK / 32;
/// A last group with less room than this is left unused.
const LAST_GROUP_MIN: u32 = 50;

/// Sizes, in blocks unless the name says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) blocks: u32,
    pub(super) groups: u32,
    /// Inodes, in number.
    pub(super) inodes_per_group: u32,
    pub(super) descriptor_blocks: u32,
    pub(super) journal_blocks: u32,
}

/// A group's first blocks.
pub(super) struct Group {
    pub(super) block_bitmap: u32,
    pub(super) inode_bitmap: u32,
    pub(super) inodes: u32,
}

/// Those of the first group, and what only it has.
pub(super) struct First {
    pub(super) block_bitmap: u32,
    pub(super) inode_bitmap: u32,
    pub(super) inodes: u32,
    pub(super) root: u32,
    pub(super) lost_and_found: u32,
    pub(super) journal: u32,
}

impl Geometry {
    pub(super) fn new(bytes: u64) -> Result<Self> {
        if !(BYTES_MIN..=BYTES_MAX).contains(&bytes) {
            return Err(Error::Invalid {
                what: format!("disk size {bytes}"),
                why: "8 MiB to 16 TiB can be formatted".into(),
            });
        }
        let blocks = u32::try_from(bytes / u64::from(BLOCK)).expect("BYTES_MAX bounds it");
        // One inode for 4 KiB of a small disk, for 16 KiB of a large one, as mke2fs gives.
        let blocks_per_inode = if bytes < 512 << 20 { 1 } else { 4 };
        let inodes_per_group =
            (blocks.min(BLOCKS_PER_GROUP) / blocks_per_inode).next_multiple_of(INODES_PER_BLOCK);
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let mut geometry = Self {
            blocks,
            groups,
            inodes_per_group,
            descriptor_blocks: groups.div_ceil(DESCRIPTORS_PER_BLOCK),
            // 4 MiB is the least that jbd2 takes; 16 MiB keep a busy guest from waiting for it.
            journal_blocks: if bytes < 128 << 20 { 1024 } else { 4096 },
        };
        let last = geometry.groups - 1;
        if last > 0 && geometry.size(last) < geometry.used(last) + LAST_GROUP_MIN {
            geometry.groups = last;
            geometry.blocks = last * BLOCKS_PER_GROUP;
            geometry.descriptor_blocks = last.div_ceil(DESCRIPTORS_PER_BLOCK);
        }
        Ok(geometry)
    }

    /// Blocks of a group's inodes.
    pub(super) fn inode_blocks(&self) -> u32 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    /// Blocks a group has.
    pub(super) fn size(&self, group: u32) -> u32 {
        (self.blocks - group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP)
    }

    /// Blocks that are not free at the start of a group.
    pub(super) fn used(&self, group: u32) -> u32 {
        let own = 2 + self.inode_blocks();
        match group {
            // The superblock, /, lost+found.
            0 => 1 + self.descriptor_blocks + own + 2 + self.journal_blocks,
            _ => own,
        }
    }

    /// Blocks free on the whole disk.
    pub(super) fn free(&self) -> u32 {
        self.blocks - self.used(0) - (self.groups - 1) * (2 + self.inode_blocks())
    }

    pub(super) fn group(&self, group: u32) -> Group {
        let head = if group == 0 { 1 + self.descriptor_blocks } else { 0 };
        let block_bitmap = group * BLOCKS_PER_GROUP + head;
        Group {
            block_bitmap,
            inode_bitmap: block_bitmap + 1,
            inodes: block_bitmap + 2,
        }
    }

    pub(super) fn first(&self) -> First {
        let Group {
            block_bitmap,
            inode_bitmap,
            inodes,
        } = self.group(0);
        let root = inodes + self.inode_blocks();
        First {
            block_bitmap,
            inode_bitmap,
            inodes,
            root,
            lost_and_found: root + 1,
            journal: root + 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_used_fits_its_group(bytes in BYTES_MIN..=BYTES_MAX) {
            let geometry = Geometry::new(bytes).unwrap();
            let last = geometry.groups - 1;
            prop_assert!(u64::from(geometry.blocks) * u64::from(BLOCK) <= bytes);
            prop_assert!(geometry.used(0) < geometry.size(0));
            prop_assert!(geometry.used(last) < geometry.size(last));
            prop_assert!(geometry.inodes_per_group <= BLOCKS_PER_GROUP);
            prop_assert!(geometry.descriptor_blocks * DESCRIPTORS_PER_BLOCK >= geometry.groups);
            prop_assert!(geometry.groups.checked_mul(geometry.inodes_per_group).is_some());
        }
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        for bytes in [0, BYTES_MIN - 1, BYTES_MAX + 1, u64::MAX] {
            assert!(Geometry::new(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn a_last_group_that_would_hold_nothing_is_left_out() {
        let whole = Geometry::new(256 << 20).unwrap();
        assert_eq!(Geometry::new((256 << 20) + 4096 * 100).unwrap(), whole);
        assert_eq!(Geometry::new((256 << 20) + (32 << 20)).unwrap().groups, 3);
    }
}
