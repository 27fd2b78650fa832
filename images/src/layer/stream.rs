//! From a blob's bytes to an unpacked tree: decompress, hash and unpack in one pass.

use std::io::Read;
use std::os::fd::BorrowedFd;

use super::apply::Applied;
use super::error::{Error, Result};
use super::limits::Limits;
use crate::digest::{Algorithm, Digest};

/// How a layer blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A bare tar.
    None,
    /// One or more gzip members.
    Gzip,
    /// One or more zstd frames.
    Zstd,
}

/// What came of a layer stream.
#[derive(Debug)]
pub struct Received {
    /// Digest of the uncompressed bytes, all of them to the end of the stream.
    pub diff_id: Digest,
    /// Uncompressed bytes.
    pub tar_bytes: u64,
    /// What the unpacked tree still needs.
    pub applied: Applied,
}

/// Unpacks a layer beneath `root`, an empty directory nobody else writes to. The stream is read to its end.
///
/// # Errors
/// [`Error`]; `root` then holds part of the layer.
pub fn unpack(
    _root: BorrowedFd<'_>,
    _compression: Compression,
    _reader: impl Read + Send,
    _algorithm: Algorithm,
    _limits: &Limits,
) -> Result<Received> {
    Err(Error::Output(std::io::ErrorKind::Unsupported.into()))
}
