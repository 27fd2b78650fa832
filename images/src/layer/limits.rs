//! How much a foreign layer may ask for.

/// Upper bounds on one layer. Reaching one is an error that names the entry and the bound.
///
/// The defaults let every image seen in the wild through and bound memory to a few MiB a layer, or to its zstd window where
/// that is larger; the disk itself bounds the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed tar stream.
    pub expanded_bytes: u64,
    /// Uncompressed bytes per compressed byte, looked at after `ratio_after_bytes`. Deflate reaches 1032 at most; zstd
    /// goes far beyond.
    pub ratio: u64,
    /// Uncompressed bytes that pass before `ratio` is looked at.
    pub ratio_after_bytes: u64,
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes of a name or link target. The kernel's `PATH_MAX` counts the final zero byte, so it takes 4095.
    pub path_bytes: u64,
    /// Bytes of one PAX extended header.
    pub pax_bytes: u64,
    /// Bytes of all xattr names and values of one entry. Linux takes 64 KiB per value.
    pub xattr_bytes: u64,
    /// Apparent size of one sparse file, holes included.
    pub sparse_file_bytes: u64,
    /// Data extents of one sparse file.
    pub sparse_extents: u64,
    /// Bytes of names kept until the end of the layer: directories (their times are set last), directories implied by
    /// deeper names, hard links into lower layers.
    pub kept_name_bytes: u64,
    /// Base-2 logarithm of the largest zstd window accepted: the memory one decoder may take, and three layers are unpacked
    /// at once. 27 (128 MiB) is what libzstd and zstd(1) accept unless told otherwise and what `zstd --long` and `--ultra`
    /// write; without these `zstd` and the builders stay at 8 MiB, RFC 8878, section 3.1.1.1.2.
    pub zstd_window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            expanded_bytes: 128 << 30,
            ratio: 500,
            ratio_after_bytes: 256 << 20,
            entries: 4_000_000,
            path_bytes: 4095,
            pax_bytes: 1 << 20,
            xattr_bytes: 256 << 10,
            sparse_file_bytes: 16 << 40,
            sparse_extents: 1 << 18,
            kept_name_bytes: 32 << 20,
            zstd_window_log: 27,
        }
    }
}
