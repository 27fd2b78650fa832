//! An inode: `struct erofs_inode_extended`, 64 bytes, which has room for nanoseconds, 64-bit sizes and 32-bit owners.

use rustix::fs::{FileType, Stat, major, minor};

use super::{BLOCK, SLOT, xattr};

/// Bytes of an inode without its xattrs and inline data.
pub(super) const SIZE: usize = 64;

/// Bit 0 of the format: an extended inode.
const EXTENDED: u16 = 1;

/// Where the data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In whole blocks, the last one filled up with zeros.
    Plain,
    /// In whole blocks, and what is left after the last whole one behind the inode.
    Inline,
}

/// An inode and its place.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    /// Byte offset in the image; the inode's number is that in units of [`SLOT`].
    pub(super) offset: u64,
    pub(super) size: u64,
    mtime_secs: i64,
    mtime_nanos: u32,
    uid: u32,
    gid: u32,
    pub(super) links: u32,
    /// The first data block of a file, directory or symlink; the number of a device.
    pub(super) data: u32,
    mode: u16,
    /// Size of the xattrs behind the inode, as [`xattr::count`] gives it.
    pub(super) xattr_count: u16,
    pub(super) layout: Layout,
}

impl Inode {
    /// The inode of what `stat` describes, without a place, with one link.
    pub(super) fn new(stat: &Stat) -> Self {
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let (size, data) = match file_type {
            FileType::RegularFile | FileType::Symlink => (u64::try_from(stat.st_size).unwrap_or(0), 0),
            FileType::CharacterDevice | FileType::BlockDevice => (0, device(stat.st_rdev)),
            _ => (0, 0),
        };
        Self {
            offset: 0,
            size,
            mtime_secs: stat.st_mtime,
            mtime_nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: 1,
            data,
            mode: (stat.st_mode & 0xffff) as u16,
            xattr_count: 0,
            layout: Layout::Plain,
        }
    }

    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(u32::from(self.mode))
    }

    pub(super) fn number(&self) -> u64 {
        self.offset / SLOT
    }

    /// Bytes of the inode and its xattrs.
    pub(super) fn head(&self) -> u64 {
        SIZE as u64 + xattr::bytes(self.xattr_count)
    }

    /// Bytes of data behind the inode.
    pub(super) fn tail(&self) -> u64 {
        match self.layout {
            Layout::Plain => 0,
            Layout::Inline => self.size % BLOCK,
        }
    }

    /// Data blocks.
    pub(super) fn blocks(&self) -> u64 {
        (self.size - self.tail()).div_ceil(BLOCK)
    }

    /// The 64 bytes; `serial` is what a 32-bit `stat` calls its inode number.
    pub(super) fn encode(&self, serial: u32) -> [u8; SIZE] {
        let mut bytes = [0u8; SIZE];
        let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
        let layout: u16 = match self.layout {
            Layout::Plain => 0,
            Layout::Inline => 2,
        };
        put(0, &(EXTENDED | layout << 1).to_le_bytes());
        put(2, &self.xattr_count.to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.data.to_le_bytes());
        put(20, &serial.to_le_bytes());
        put(24, &self.uid.to_le_bytes());
        put(28, &self.gid.to_le_bytes());
        put(32, &self.mtime_secs.to_le_bytes());
        put(40, &self.mtime_nanos.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        bytes
    }
}

/// A device number as the kernel's `new_encode_dev` packs it: 12 bits of major, 20 of minor.
fn device(rdev: u64) -> u32 {
    let (major, minor) = (major(rdev), minor(rdev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::makedev;

    #[test]
    fn device_numbers_are_packed_as_the_kernel_unpacks_them() {
        assert_eq!(device(0), 0, "a whiteout stays one");
        assert_eq!(device(makedev(1, 3)), 0x103);
        assert_eq!(device(makedev(0xfff, 0xf_ffff)), 0xffff_ffff);
        assert_eq!(device(makedev(259, 0x12345)), 0x1231_0345);
    }

    #[test]
    fn a_time_before_1970_is_kept() {
        let tmp = tempfile::tempdir().unwrap();
        let mut stat = rustix::fs::stat(tmp.path()).unwrap();
        (stat.st_mtime, stat.st_mtime_nsec) = (-5, 500);
        let bytes = Inode::new(&stat).encode(1);
        assert_eq!(i64::from_le_bytes(bytes[32..40].try_into().unwrap()), -5);
        assert_eq!(bytes[40..44], 500u32.to_le_bytes());
    }
}
