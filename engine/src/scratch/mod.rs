//! A microVM's writable disk: an empty ext4 filesystem in a sparse file, without a program that makes one.
//!
//! ext4, because Debian's kernel has it built in, overlayfs takes it as an upper layer, and its group descriptors can say
//! "nothing here is written yet": what is made is the superblock, the descriptors, the bitmaps of the first and the last group and
//! the two directories that every ext4 has, a few blocks for any size. It has a journal: the disk lives as long as its container, so a
//! guest that was killed must find it whole when it starts again. The layout is that of `Documentation/filesystems/ext4/`.
//!
//! ```text
//! group 0     superblock, descriptors | bitmaps | inodes | / | lost+found | journal | free
//! group n     bitmaps | inodes | free                    none of it written but the last group's block bitmap
//! ```
//!
//! There are no copies of the superblock, and no groups are joined (`flex_bg`), so a group's place follows from its number.

mod directory;
mod geometry;
mod group;
mod inode;
mod journal;
mod superblock;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use geometry::Geometry;

use crate::error::{At, Result};
use crate::id::fill_random;

pub use geometry::{BYTES_MAX, BYTES_MIN};

/// Bytes of a block.
const BLOCK: u32 = 4096;
const BLOCK_LEN: usize = BLOCK as usize;

/// Makes the disk `path` of `bytes` bytes, [`BYTES_MIN`] to [`BYTES_MAX`], readable by root alone. Takes well under a MiB on disk.
/// It is not synced: nothing in it is worth more than the guest's first flush, which takes all of it along.
///
/// # Errors
/// A size out of bounds; a path that exists; a filesystem without room. The file is then removed.
pub fn create(path: &Path, bytes: u64) -> Result<()> {
    let geometry = Geometry::new(bytes)?;
    let mut uuid = [0; 16];
    fill_random(&mut uuid).at("get random bytes for", path)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .at("create", path)?;
    let made = format(&file, bytes, &geometry, uuid).at("format", path);
    if made.is_err() {
        let _ = std::fs::remove_file(path);
    }
    made
}

fn format(file: &File, bytes: u64, geometry: &Geometry, uuid: [u8; 16]) -> std::io::Result<()> {
    let write = |block: u32, content: &[u8]| file.write_all_at(content, u64::from(block) * u64::from(BLOCK));
    file.set_len(bytes)?;
    let first = geometry.first();
    write(first.block_bitmap, &group::block_bitmap(geometry, 0))?;
    write(first.inode_bitmap, &group::inode_bitmap(geometry))?;
    write(first.inodes, &inode::table(geometry))?;
    write(first.root, &directory::root())?;
    write(first.lost_and_found, &directory::lost_and_found())?;
    write(first.journal, &journal::superblock(geometry, uuid))?;
    let last = geometry.groups - 1;
    if last > 0 {
        // The kernel draws the bitmap of an unwritten group, but the last one may end early.
        write(
            geometry.group(last).block_bitmap,
            &group::block_bitmap(geometry, last),
        )?;
    }
    let mut head = superblock::encode(geometry, uuid);
    head.extend_from_slice(&group::descriptors(geometry, uuid));
    write(0, &head)
}
