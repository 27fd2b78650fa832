//! The first walk: which inodes there are, and where each and its data will be.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use super::inode::{Inode, Layout};
use super::walk::{Directory, Walk};
use super::{BLOCK, METADATA, SLOT, dirent, xattr};
use crate::layer::diff::{Xattrs, read_xattrs};
use crate::layer::error::shown;
use crate::layer::listing::{by_fd, join, tree_error};
use crate::layer::{Error, Result};

/// The layout of an image. The second walk meets directories, names and inodes in the order of these lists.
pub(super) struct Plan {
    pub(super) inodes: Vec<Inode>,
    /// How many names each directory holds.
    pub(super) counts: Vec<usize>,
    /// The inode of each name.
    pub(super) names: Vec<u32>,
    /// Blocks of the whole image.
    pub(super) blocks: u32,
}

struct Planner {
    inodes: Vec<Inode>,
    counts: Vec<usize>,
    names: Vec<u32>,
    /// Inodes with several names, by device and number on the host.
    links: HashMap<(u64, u64), u32>,
    /// End of the metadata so far, in bytes.
    metadata: u64,
    /// Data blocks so far.
    data: u64,
}

/// Lays the tree at `root` out.
pub(super) fn plan(root: BorrowedFd<'_>) -> Result<Plan> {
    let stat = fs::fstat(root).map_err(|e| tree_error("look at", b"", e))?;
    let mut planner = Planner {
        inodes: vec![Inode::new(&stat)],
        counts: Vec::new(),
        names: Vec::new(),
        links: HashMap::new(),
        metadata: METADATA,
        data: 0,
    };
    let mut walk = Walk::new(root);
    while let Some(directory) = walk.next()? {
        let below = planner.directory(&directory)?;
        walk.descend(directory, below);
    }
    planner.finish()
}

impl Planner {
    /// Places a directory and what in it is no directory; gives its subdirectories.
    fn directory(&mut self, directory: &Directory) -> Result<Vec<(CString, u32)>> {
        let own = &mut self.inodes[directory.inode as usize];
        own.size = dirent::size(&directory.names);
        own.links = 2;
        own.xattr_count = xattr::count(&encode_xattrs(&xattrs_of_open(directory)?, &directory.path)?);
        self.place(directory.inode);
        self.counts.push(directory.names.len());
        let mut below = Vec::new();
        for name in &directory.names {
            let (index, is_new) = self.child(directory, name)?;
            self.names.push(index);
            if self.inodes[index as usize].file_type() == FileType::Directory {
                self.inodes[directory.inode as usize].links += 1;
                below.push((name.clone(), index));
            } else if is_new {
                self.place(index);
            }
        }
        Ok(below)
    }

    /// The inode of a name, and whether this is its first.
    fn child(&mut self, directory: &Directory, name: &CString) -> Result<(u32, bool)> {
        let path = || join(&directory.path, name.as_bytes());
        if name.as_bytes().len() > dirent::NAME_MAX {
            return Err(tree_error("lay out", &path(), Errno::NAMETOOLONG));
        }
        let stat = fs::statat(&directory.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| tree_error("look at", &path(), e))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let index =
            u32::try_from(self.inodes.len()).map_err(|_| tree_error("lay out", &path(), Errno::FBIG))?;
        if !is_directory && stat.st_nlink > 1 {
            if let Some(&first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                self.inodes[first as usize].links += 1;
                return Ok((first, false));
            }
            self.links.insert((stat.st_dev, stat.st_ino), index);
        }
        let mut inode = Inode::new(&stat);
        // A directory's are looked at when it is open.
        if !is_directory {
            let xattrs = read_xattrs(&by_fd(directory.fd.as_fd(), name.as_bytes()), false)
                .map_err(|e| tree_error("read xattrs of", &path(), e))?;
            inode.xattr_count = xattr::count(&encode_xattrs(&xattrs, &path())?);
        }
        self.inodes.push(inode);
        Ok((index, true))
    }

    /// Gives an inode the next place for it and for its data.
    fn place(&mut self, index: u32) {
        let inode = &mut self.inodes[index as usize];
        let tail = inode.size % BLOCK;
        // The kernel reads an inode up to its inline data from one block.
        let is_inline = tail > 0 && inode.head() + tail <= BLOCK;
        inode.layout = if is_inline { Layout::Inline } else { Layout::Plain };
        let need = inode.head() + inode.tail();
        let start = self.metadata.next_multiple_of(SLOT);
        let room = BLOCK - start % BLOCK;
        inode.offset = if need > room { start + room % BLOCK } else { start };
        self.metadata = inode.offset + need;
        if inode.blocks() > 0 {
            // Relative to the data area until it is known where that starts. `finish` checks that all of it is in range.
            inode.data = u32::try_from(self.data).unwrap_or(u32::MAX);
            self.data = self.data.saturating_add(inode.blocks());
        }
    }

    fn finish(mut self) -> Result<Plan> {
        let first = self.metadata.div_ceil(BLOCK);
        let number =
            |blocks: u64| u32::try_from(blocks).map_err(|_| over(b"/", "an EROFS image is 16 TiB at most"));
        let blocks = number(first.saturating_add(self.data))?;
        let first = number(first)?;
        for inode in &mut self.inodes {
            if inode.blocks() > 0 {
                inode.data += first;
            }
        }
        Ok(Plan {
            inodes: self.inodes,
            counts: self.counts,
            names: self.names,
            blocks,
        })
    }
}

/// The attributes of an open directory.
pub(super) fn xattrs_of_open(directory: &Directory) -> Result<Xattrs> {
    let fd_path = format!("/proc/self/fd/{}", directory.fd.as_raw_fd());
    read_xattrs(fd_path.as_bytes(), true).map_err(|e| tree_error("read xattrs of", &directory.path, e))
}

/// The attributes as they stand behind an inode.
pub(super) fn encode_xattrs(xattrs: &Xattrs, path: &[u8]) -> Result<Vec<u8>> {
    xattr::encode(xattrs).map_err(|problem| over(path, problem))
}

/// What the format has no room for.
fn over(path: &[u8], problem: &'static str) -> Error {
    Error::Tree {
        operation: "lay out",
        path: shown(path),
        source: io::Error::new(io::ErrorKind::FileTooLarge, problem),
    }
}
