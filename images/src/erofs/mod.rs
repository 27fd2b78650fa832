//! A layer as one file that guests mount: EROFS, uncompressed, as Linux 5.4 and later read it
//! (`Documentation/filesystems/erofs.rst`, `fs/erofs/erofs_fs.h`).
//!
//! ```text
//! block 0          the superblock, at byte 1024
//! from block 1     metadata: inodes of 64 bytes at multiples of 32, each with its xattrs and the last part of its data
//! after it         data: whole blocks of files and directories
//!
//! plan   walks the tree: every inode gets its place          (attributes in memory, some 60 bytes an entry)
//! write  walks it again, in the same order: two areas are written front to back
//! ```
//!
//! A directory's inode is followed by those of its files, then come its subdirectories one after another: `ls -l` and a program
//! start read few blocks. The same tree gives the same bytes, whichever filesystem it is read from.
//!
//! What overlayfs needs of a lower layer is kept: whiteouts (character devices 0:0), `trusted.overlay.opaque`, file types in
//! directories. Holes of sparse files are holes of the image: they take addresses, of which there are 16 TiB, but no disk.

mod content;
mod dirent;
mod inode;
mod plan;
mod region;
mod superblock;
mod walk;
mod write;
mod xattr;

pub use write::{Image, write};

/// Base-2 logarithm of a block's bytes: the page size of every kernel here, which is the size all of them can mount.
const BLOCK_BITS: u8 = 12;
const BLOCK: u64 = 1 << BLOCK_BITS;
const BLOCK_LEN: usize = 1 << BLOCK_BITS;
/// Inodes start at multiples of this, and their numbers count such units from the start of the image.
const SLOT: u64 = 32;
/// The root is the first inode: the superblock has 16 bits for its number.
const ROOT: u16 = 128;
/// Where the metadata starts: the second block.
const METADATA: u64 = ROOT as u64 * SLOT;
