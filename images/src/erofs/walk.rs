//! Every directory of a tree, parents first, in an order that depends on names alone.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::layer::Result;
use crate::layer::listing;

/// A directory the walk has come to.
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// Relative to the tree's root, for messages.
    pub(super) path: Vec<u8>,
    /// What it holds, sorted.
    pub(super) names: Vec<CString>,
    /// Its inode and its parent's, as indices that the caller gave.
    pub(super) inode: u32,
    pub(super) parent: u32,
}

/// A walk: one directory after another, each followed by those the caller says are in it, and by all below these.
pub(super) struct Walk<'t> {
    root: BorrowedFd<'t>,
    levels: Vec<Level>,
}

/// A directory whose subdirectories are still to come.
struct Level {
    path: Vec<u8>,
    inode: u32,
    below: std::vec::IntoIter<(CString, u32)>,
}

impl<'t> Walk<'t> {
    /// A walk through the tree at `root`, whose inode is index 0.
    pub(super) fn new(root: BorrowedFd<'t>) -> Self {
        let first = Level {
            path: Vec::new(),
            inode: 0,
            below: vec![(CString::default(), 0)].into_iter(),
        };
        Self {
            root,
            levels: vec![first],
        }
    }

    /// The next directory, opened and listed.
    pub(super) fn next(&mut self) -> Result<Option<Directory>> {
        while let Some(level) = self.levels.last_mut() {
            let Some((name, inode)) = level.below.next() else {
                self.levels.pop();
                continue;
            };
            let path = listing::join(&level.path, name.as_bytes());
            let fd = listing::open(self.root, &path)?;
            let names = listing::names(&fd, &path)?;
            return Ok(Some(Directory {
                fd,
                path,
                names,
                inode,
                parent: level.inode,
            }));
        }
        Ok(None)
    }

    /// Goes into these subdirectories of `at` (name, index of the inode) next.
    pub(super) fn descend(&mut self, at: Directory, below: Vec<(CString, u32)>) {
        self.levels.push(Level {
            path: at.path,
            inode: at.inode,
            below: below.into_iter(),
        });
    }
}
