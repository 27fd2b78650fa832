//! The second walk: bytes into the places that were planned.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{self, FileType};

use super::content::{Content, changed};
use super::dirent::{self, Name, Target};
use super::inode::{Inode, Layout};
use super::plan::{Plan, encode_xattrs, plan, xattrs_of_open};
use super::region::Region;
use super::superblock::Superblock;
use super::walk::{Directory, Walk};
use super::{BLOCK, BLOCK_LEN, METADATA, xattr};
use crate::layer::diff::read_xattrs;
use crate::layer::listing::{by_fd, join, tree_error};
use crate::layer::{Error, Result};

/// The file an image is written to: empty and open for writing.
#[derive(Debug, Clone, Copy)]
pub struct Image<'i> {
    /// The file.
    pub file: &'i File,
    /// Its name in messages.
    pub path: &'i Path,
}

impl Image<'_> {
    pub(super) fn error(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Store {
            operation,
            path: self.path.to_owned(),
            source,
        }
    }
}

/// Writes the tree at `root`, which is in overlayfs' upper-dir form and does not change meanwhile, as an EROFS image with the
/// UUID `uuid`. Memory is some 60 bytes for each name, and does not depend on the sizes of files. Blocking; the image is not synced.
///
/// # Errors
/// [`Error::Tree`] when something cannot be read or does not fit the format: xattrs over 256 KiB, an image over 16 TiB.
/// [`Error::Store`] when the image cannot be written.
pub fn write(root: BorrowedFd<'_>, image: Image<'_>, uuid: [u8; 16]) -> Result<()> {
    let plan = plan(root)?;
    image
        .file
        .set_len(u64::from(plan.blocks) * BLOCK)
        .map_err(|e| image.error("resize", e))?;
    let first_data = plan
        .inodes
        .iter()
        .filter(|inode| inode.blocks() > 0)
        .map(|inode| inode.data);
    let mut writer = Writer {
        plan: &plan,
        image,
        metadata: Region::new(image, METADATA),
        data: Region::new(image, u64::from(first_data.min().unwrap_or(plan.blocks)) * BLOCK),
        directories: 0,
        names: 0,
        written: 1,
    };
    let mut walk = Walk::new(root);
    while let Some(directory) = walk.next()? {
        let below = writer.directory(&directory)?;
        walk.descend(directory, below);
    }
    writer.metadata.flush()?;
    writer.data.flush()?;
    let superblock = Superblock {
        inodes: plan.inodes.len() as u64,
        blocks: plan.blocks,
        uuid,
    };
    // Last: what was not written to its end is no image.
    image
        .file
        .write_all_at(&superblock.encode(), 0)
        .map_err(|e| image.error("write", e))
}

struct Writer<'p> {
    plan: &'p Plan,
    image: Image<'p>,
    metadata: Region<'p>,
    data: Region<'p>,
    /// How many directories, names and inodes of the plan are behind us.
    directories: usize,
    names: usize,
    written: u32,
}

impl Writer<'_> {
    /// Writes a directory and what in it is no directory; gives its subdirectories.
    fn directory(&mut self, directory: &Directory) -> Result<Vec<(CString, u32)>> {
        let plan = self.plan;
        if plan.counts.get(self.directories) != Some(&directory.names.len()) {
            return Err(changed(&directory.path));
        }
        let indices = &plan.names[self.names..][..directory.names.len()];
        self.directories += 1;
        self.names += indices.len();

        let own = &plan.inodes[directory.inode as usize];
        let target = |index: u32| {
            let inode = &plan.inodes[index as usize];
            Target {
                inode: inode.number(),
                file_type: inode.file_type(),
            }
        };
        let entries = dirent::encode(&directory.names, |name| match name {
            Name::Itself => target(directory.inode),
            Name::Parent => target(directory.parent),
            Name::Child(at) => target(indices[at]),
        });
        if entries.len() as u64 != own.size {
            return Err(changed(&directory.path));
        }
        let xattrs = encode_xattrs(&xattrs_of_open(directory)?, &directory.path)?;
        self.head(own, directory.inode, &xattrs, &directory.path)?;
        self.bytes(own, &entries)?;

        let mut below = Vec::new();
        for (name, &index) in directory.names.iter().zip(indices) {
            // Inodes are numbered as they are met, so a lower index is one more name of something written.
            let is_new = index == self.written;
            self.written += u32::from(is_new);
            if plan.inodes[index as usize].file_type() == FileType::Directory {
                below.push((name.clone(), index));
            } else if is_new {
                self.child(directory, name, index)?;
            }
        }
        Ok(below)
    }

    /// Writes what is no directory.
    fn child(&mut self, directory: &Directory, name: &CString, index: u32) -> Result<()> {
        let path = join(&directory.path, name.as_bytes());
        let inode = &self.plan.inodes[index as usize];
        let mut xattrs = Vec::new();
        if inode.xattr_count > 0 {
            let found = read_xattrs(&by_fd(directory.fd.as_fd(), name.as_bytes()), false)
                .map_err(|e| tree_error("read xattrs of", &path, e))?;
            xattrs = encode_xattrs(&found, &path)?;
        }
        self.head(inode, index, &xattrs, &path)?;
        match inode.file_type() {
            FileType::Symlink => {
                let target = fs::readlinkat(&directory.fd, name, Vec::new())
                    .map_err(|e| tree_error("read symlink", &path, e))?;
                if target.as_bytes().len() as u64 != inode.size {
                    return Err(changed(&path));
                }
                self.bytes(inode, target.as_bytes())
            }
            FileType::RegularFile if inode.size > 0 => {
                let content = Content::open(directory.fd.as_fd(), name, &path, inode.size)?;
                self.content(inode, &content)
            }
            _ => Ok(()),
        }
    }

    /// An inode and its xattrs.
    fn head(&mut self, inode: &Inode, index: u32, xattrs: &[u8], path: &[u8]) -> Result<()> {
        if xattr::count(xattrs) != inode.xattr_count {
            return Err(changed(path));
        }
        self.metadata.advance(inode.offset)?;
        self.metadata.write(&inode.encode(index + 1))?;
        self.metadata.write(xattrs)
    }

    /// Data that is in memory.
    fn bytes(&mut self, inode: &Inode, bytes: &[u8]) -> Result<()> {
        let whole = match inode.layout {
            Layout::Plain => bytes,
            Layout::Inline => {
                let (whole, tail) = bytes.split_at(bytes.len() - bytes.len() % BLOCK_LEN);
                self.metadata.write(tail)?;
                whole
            }
        };
        if whole.is_empty() {
            return Ok(());
        }
        self.data.advance(u64::from(inode.data) * BLOCK)?;
        self.data.write(whole)
    }

    /// Data of a regular file.
    fn content(&mut self, inode: &Inode, content: &Content<'_>) -> Result<()> {
        let tail = inode.tail();
        let whole = inode.size - tail;
        if tail > 0 {
            self.metadata.fill(tail, |bytes| content.read(whole, bytes))?;
        }
        if whole == 0 {
            return Ok(());
        }
        let offset = u64::from(inode.data) * BLOCK;
        self.data.advance(offset)?;
        if content.is_small() {
            return self.data.fill(whole, |bytes| content.read(0, bytes));
        }
        self.data.flush()?;
        content.copy(whole, self.image, offset)?;
        self.data.advance(offset + whole)
    }
}
