//! A tar stream becomes a directory.

use crate::snapshot::RootAttributes;

/// What unpacking found, and what it left to the moment the layers below are known.
#[derive(Debug, Default)]
pub struct Applied {
    /// Entries read.
    pub entries: u64,
    /// Bytes of regular file data written.
    pub size: u64,
    /// Owner and mode of `/`, if the archive lists it.
    pub root: Option<RootAttributes>,
    /// Directories that only deeper names imply, parents first: they take the attributes of the layers below.
    pub implied: Vec<Vec<u8>>,
    /// Hard links whose target is not in this layer, in order.
    pub links: Vec<DeferredLink>,
    /// Extended attributes the filesystem does not take, left out.
    pub dropped_xattrs: u64,
}

/// A hard link to a name in a layer below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredLink {
    /// Name of the link, relative to the root.
    pub link: Vec<u8>,
    /// Name of the target, relative to the root.
    pub target: Vec<u8>,
}

/// Unpacks an uncompressed tar.
pub fn apply() {}
