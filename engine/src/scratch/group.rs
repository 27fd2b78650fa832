//! Group descriptors and bitmaps (`Documentation/filesystems/ext4/group_descr.rst`).

use super::BLOCK_LEN;
use super::geometry::{BLOCKS_PER_GROUP, Geometry};
use super::inode;

/// The inode bitmap was never written and is all free.
const INODES_UNWRITTEN: u16 = 1;
/// The block bitmap was never written: free but for the group's own metadata.
const BLOCKS_UNWRITTEN: u16 = 2;
/// The inode table reads as zeros, as all of a new sparse file does. Without it the guest would write them in the
/// background, 2 MiB a group.
const INODES_ZEROED: u16 = 4;

/// All descriptors, 32 bytes each.
pub(super) fn descriptors(geometry: &Geometry, uuid: [u8; 16]) -> Vec<u8> {
    (0..geometry.groups)
        .flat_map(|group| descriptor(geometry, group, uuid))
        .collect()
}

fn descriptor(geometry: &Geometry, group: u32, uuid: [u8; 16]) -> [u8; 32] {
    let place = geometry.group(group);
    let (used_inodes, directories) = if group == 0 {
        (inode::RESERVED, 2u16)
    } else {
        (0, 0)
    };
    let mut flags = INODES_ZEROED;
    if group > 0 {
        flags |= INODES_UNWRITTEN;
        if group < geometry.groups - 1 {
            flags |= BLOCKS_UNWRITTEN;
        }
    }
    let free_blocks = sixteen(geometry.size(group) - geometry.used(group));
    let free_inodes = sixteen(geometry.inodes_per_group - used_inodes);
    let mut bytes = [0; 32];
    let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
    put(0x0, &place.block_bitmap.to_le_bytes());
    put(0x4, &place.inode_bitmap.to_le_bytes());
    put(0x8, &place.inodes.to_le_bytes());
    put(0xc, &free_blocks.to_le_bytes());
    put(0xe, &free_inodes.to_le_bytes());
    put(0x10, &directories.to_le_bytes());
    put(0x12, &flags.to_le_bytes());
    // Inodes at the table's end that were never used: all but the reserved ones.
    put(0x1c, &free_inodes.to_le_bytes());
    let checksum = [&uuid[..], &group.to_le_bytes(), &bytes[..0x1e]]
        .iter()
        .fold(u16::MAX, |crc, part| crc16(crc, part));
    bytes[0x1e..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A group's block bitmap: what is used at its start, and what is not there at its end.
pub(super) fn block_bitmap(geometry: &Geometry, group: u32) -> Vec<u8> {
    let mut bitmap = vec![0; BLOCK_LEN];
    set(&mut bitmap, 0..geometry.used(group));
    set(&mut bitmap, geometry.size(group)..BLOCKS_PER_GROUP);
    bitmap
}

/// The first group's inode bitmap.
pub(super) fn inode_bitmap(geometry: &Geometry) -> Vec<u8> {
    let mut bitmap = vec![0; BLOCK_LEN];
    set(&mut bitmap, 0..inode::RESERVED);
    set(&mut bitmap, geometry.inodes_per_group..BLOCKS_PER_GROUP);
    bitmap
}

fn set(bitmap: &mut [u8], bits: std::ops::Range<u32>) {
    for bit in bits {
        bitmap[bit as usize / 8] |= 1 << (bit % 8);
    }
}

/// Counts within a group: 32768 at most.
fn sixteen(count: u32) -> u16 {
    u16::try_from(count).expect("a group has no more")
}

/// CRC-16 as the kernel's `lib/crc16.c`: polynomial 0x8005, bits reversed.
fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xa001 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_kernels() {
        // CRC-16/ARC's and CRC-16/MODBUS' check values: the same function with other starts.
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
        assert_eq!(crc16(u16::MAX, b"123456789"), 0x4b37);
    }

    #[test]
    fn only_the_last_block_bitmap_is_written_and_no_inode_table_is_left_to_the_guest() {
        let geometry = Geometry::new(1 << 30).unwrap();
        let flags: Vec<u8> = descriptors(&geometry, [0; 16])
            .chunks(32)
            .map(|d| d[0x12])
            .collect();
        assert_eq!(flags, [4, 7, 7, 7, 7, 7, 7, 5]);
    }

    #[test]
    fn bits_are_set_from_the_lowest() {
        let mut bitmap = [0; 4];
        set(&mut bitmap, 0..10);
        set(&mut bitmap, 31..32);
        assert_eq!(bitmap, [0xff, 0x03, 0, 0x80]);
    }
}
