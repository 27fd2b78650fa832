//! Owners, modes, sizes, times, and extended attributes.

use std::ffi::CStr;
use std::io;

use fuse_backend_rs::abi::fuse_abi::{SetattrValid, stat64};
use fuse_backend_rs::api::filesystem::{GetxattrReply, ListxattrReply};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::known::Object;
use super::{Directory, link};

/// The most a value or a list of names takes (xattr(7)).
const XATTR_MAX: usize = 64 << 10;
/// The names a guest has to do with. What else there is says something to the host's kernel (`security.`, `trusted.`), or is
/// the guest's kernel's to do (`system.`).
const OWN: &[u8] = b"user.";

impl Directory {
    pub(super) fn change(
        &self,
        number: u64,
        handle: Option<u64>,
        wanted: &stat64,
        valid: SetattrValid,
    ) -> io::Result<stat64> {
        let object = self.object(number)?;
        if object.only.is_some() {
            return Err(Errno::ROFS.into());
        }
        if valid.intersects(SetattrValid::UID | SetattrValid::GID) {
            let user = valid
                .contains(SetattrValid::UID)
                .then(|| Uid::from_raw(wanted.st_uid));
            let group = valid
                .contains(SetattrValid::GID)
                .then(|| Gid::from_raw(wanted.st_gid));
            let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&object.named, "", user, group, flags)?;
        }
        if valid.contains(SetattrValid::MODE) {
            let mode = Mode::from_raw_mode(wanted.st_mode & 0o7777);
            rustix::fs::chmodat(&self.links, link(&object.named), mode, AtFlags::empty())?;
        }
        if valid.contains(SetattrValid::SIZE) {
            let size = u64::try_from(wanted.st_size).map_err(|_| Errno::INVAL)?;
            match handle {
                Some(handle) => self
                    .handle(handle, number)?
                    .with(|file| Ok(rustix::fs::ftruncate(&*file, size)?))?,
                None => rustix::fs::ftruncate(self.open_object(&object, OFlags::WRONLY)?, size)?,
            }
        }
        if valid.intersects(SetattrValid::ATIME | SetattrValid::MTIME) {
            let times = Timestamps {
                last_access: time(
                    valid.contains(SetattrValid::ATIME),
                    valid.contains(SetattrValid::ATIME_NOW),
                    (wanted.st_atime, wanted.st_atime_nsec),
                ),
                last_modification: time(
                    valid.contains(SetattrValid::MTIME),
                    valid.contains(SetattrValid::MTIME_NOW),
                    (wanted.st_mtime, wanted.st_mtime_nsec),
                ),
            };
            rustix::fs::utimensat(&self.links, link(&object.named), &times, AtFlags::empty())?;
        }
        object.look()
    }

    pub(super) fn set_attribute(&self, number: u64, name: &CStr, value: &[u8], flags: u32) -> io::Result<()> {
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let file = self.open_attributed(number, name)?;
        Ok(rustix::fs::fsetxattr(&file, name, value, flags)?)
    }

    pub(super) fn remove_attribute(&self, number: u64, name: &CStr) -> io::Result<()> {
        Ok(rustix::fs::fremovexattr(
            self.open_attributed(number, name)?,
            name,
        )?)
    }

    /// A value, or how long it is when there is no room.
    pub(super) fn attribute(&self, number: u64, name: &CStr, room: u32) -> io::Result<GetxattrReply> {
        let file = self.open_attributed(number, name)?;
        let mut value = Vec::with_capacity(XATTR_MAX);
        rustix::fs::fgetxattr(&file, name, rustix::buffer::spare_capacity(&mut value))?;
        if room == 0 {
            return Ok(GetxattrReply::Count(u32::try_from(value.len()).expect("64 KiB")));
        }
        fits(value, room).map(GetxattrReply::Value)
    }

    pub(super) fn attributes(&self, number: u64, room: u32) -> io::Result<ListxattrReply> {
        let file = self.open_plain(&*self.object(number)?)?;
        let mut all = Vec::with_capacity(XATTR_MAX);
        rustix::fs::flistxattr(&file, rustix::buffer::spare_capacity(&mut all))?;
        let own: Vec<u8> = all
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| name.starts_with(OWN))
            .flatten()
            .copied()
            .collect();
        if room == 0 {
            return Ok(ListxattrReply::Count(u32::try_from(own.len()).expect("64 KiB")));
        }
        fits(own, room).map(ListxattrReply::Names)
    }

    fn open_attributed(&self, number: u64, name: &CStr) -> io::Result<std::fs::File> {
        if !name.to_bytes().starts_with(OWN) {
            return Err(Errno::OPNOTSUPP.into());
        }
        self.open_plain(&*self.object(number)?)
    }

    /// What has attributes of the guest's: the kernel gives links, pipes and sockets none.
    fn open_plain(&self, object: &Object) -> io::Result<std::fs::File> {
        match (object.kind, &object.only) {
            (FileType::RegularFile | FileType::Directory, None) => self.open_object(object, OFlags::RDONLY),
            _ => Err(Errno::OPNOTSUPP.into()),
        }
    }
}

fn fits(value: Vec<u8>, room: u32) -> io::Result<Vec<u8>> {
    if value.len() as u64 > u64::from(room) {
        return Err(Errno::RANGE.into());
    }
    Ok(value)
}

fn time(given: bool, now: bool, (tv_sec, tv_nsec): (i64, i64)) -> Timespec {
    match (given, now) {
        (false, _) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        (true, true) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        (true, false) => Timespec { tv_sec, tv_nsec },
    }
}
