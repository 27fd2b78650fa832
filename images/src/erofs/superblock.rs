//! The superblock: `struct erofs_super_block`, 128 bytes at byte 1024 of the image.

use super::{BLOCK_BITS, BLOCK_LEN, ROOT};

const MAGIC: u32 = 0xe0f5_e1e2;
const OFFSET: usize = 1024;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM`: the checksum is there to be looked at.
const CHECKSUMMED: u32 = 1;
/// `EROFS_FEATURE_COMPAT_MTIME`: an inode's time is that of the last modification.
const MTIME: u32 = 2;

/// What differs between images.
pub(super) struct Superblock {
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    pub(super) uuid: [u8; 16],
}

impl Superblock {
    /// Block 0 of the image.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0u8; BLOCK_LEN];
        let mut put = |at: usize, bytes: &[u8]| block[OFFSET + at..][..bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(8, &(CHECKSUMMED | MTIME).to_le_bytes());
        put(12, &[BLOCK_BITS]);
        put(14, &ROOT.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.uuid);
        // CRC-32C without the final inversion, over the rest of the block, the field itself being zero.
        let checksum = !crc32c::crc32c(&block[OFFSET..]);
        block[OFFSET + 4..][..4].copy_from_slice(&checksum.to_le_bytes());
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_kernel_reads_them() {
        let block = Superblock {
            inodes: 0x0102,
            blocks: 7,
            uuid: [9; 16],
        }
        .encode();
        assert_eq!(block.len(), 4096);
        assert!(block[..1024].iter().all(|&b| b == 0));
        let word = |at: usize| u32::from_le_bytes(block[1024 + at..][..4].try_into().unwrap());
        assert_eq!(word(0), 0xE0F5_E1E2);
        assert_eq!((block[1036], word(16), word(36)), (12, 0x0102, 7));
        assert_eq!(u16::from_le_bytes([block[1038], block[1039]]), 128);
        assert_eq!(block[1024 + 48..][..16], [9; 16]);
        assert_eq!(word(80), 0, "no feature that a kernel could lack");
    }
}
