//! The tar format, read and written: ustar, PAX (POSIX.1-2001), GNU.
//!
//! One parser gives one answer: where two readers in the field differ (an entry's size given twice, data behind an entry that
//! has none, names given by PAX and GNU both) the archive is refused (CVE-2025-62518).

mod header;
mod pax;
mod reader;
mod sparse;
mod write;

pub use reader::{Entry, Kind, Reader, Xattr};
pub use sparse::Extent;
pub use write::{NewEntry, Writer};

/// Size of a header and of what everything is padded to.
pub const BLOCK: usize = 512;

/// A point in time: seconds since 1970, possibly negative, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC.
    pub secs: i64,
    /// 0 to 999 999 999.
    pub nanos: u32,
}
