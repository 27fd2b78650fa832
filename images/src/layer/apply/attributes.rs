//! Owner, mode, extended attributes and times of what was just made.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Applier, Place, failed, refused};
use crate::layer::error::{Result, shown};
use crate::layer::listing::by_fd;
use crate::layer::tar::{Entry, Kind, Time, Xattr};

impl Applier<'_> {
    /// Owner, mode and xattrs of an open file or directory. `fresh`: made by this thread just now with the permission bits asked.
    pub(super) fn attributes(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &[u8],
        entry: &Entry,
        fresh: bool,
    ) -> Result<()> {
        let (uid, gid) = ids(entry);
        if !fresh || self.owner_differs(uid, gid) {
            fs::fchown(fd, Some(uid), Some(gid)).map_err(|e| failed("change owner of", path, e))?;
        }
        // After chown(2), which takes set-ID bits away.
        if !fresh || self.mode_differs(entry.mode) {
            fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(|e| failed("change mode of", path, e))?;
        }
        // After chown(2) too: it drops security.capability.
        for xattr in &entry.xattrs {
            let set = fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty());
            self.xattr_result(set, path, xattr)?;
        }
        Ok(())
    }

    /// Owner, xattrs and times of what cannot be opened.
    pub(super) fn finish_node(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let (uid, gid) = ids(entry);
        if self.owner_differs(uid, gid) {
            fs::chownat(
                &place.parent,
                place.name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(place.failed("change owner of"))?;
            if entry.mode & 0o6000 != 0 && entry.kind != Kind::Symlink {
                fs::chmodat(
                    &place.parent,
                    place.name,
                    Mode::from_raw_mode(entry.mode),
                    AtFlags::empty(),
                )
                .map_err(place.failed("change mode of"))?;
            }
        }
        if !entry.xattrs.is_empty() {
            // The l-calls do not follow the last component, and the directory is named by its descriptor.
            let path = by_fd(place.parent.as_fd(), place.name);
            for xattr in &entry.xattrs {
                let set = fs::lsetxattr(&*path, &*xattr.name, &xattr.value, XattrFlags::empty());
                self.xattr_result(set, place.path, xattr)?;
            }
        }
        fs::utimensat(
            &place.parent,
            place.name,
            &timestamps(entry.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(place.failed("set times of"))
    }

    pub(super) fn xattr_result(
        &mut self,
        set: std::result::Result<(), Errno>,
        path: &[u8],
        xattr: &Xattr,
    ) -> Result<()> {
        match set {
            Ok(()) => Ok(()),
            // A program without its file capabilities would fail in puzzling ways; other attributes are decoration.
            Err(Errno::OPNOTSUPP) if xattr.name != b"security.capability" => {
                self.done.dropped_xattrs += 1;
                Ok(())
            }
            Err(e) => Err(failed("set xattr of", path, e)),
        }
    }

    pub(super) fn owner_differs(&self, uid: Uid, gid: Gid) -> bool {
        self.setgid_seen || (uid, gid) != self.owner
    }

    pub(super) fn mode_differs(&self, mode: u32) -> bool {
        self.setgid_seen || mode & (self.umask | 0o7000) != 0
    }
}

fn ids(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))
}

pub(super) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.secs,
        tv_nsec: i64::from(time.nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// overlayfs reads its own marks from these; an image that sets them could redirect or hide what is not its own.
pub(super) fn check_xattrs(entry: &Entry) -> Result<()> {
    for xattr in &entry.xattrs {
        if xattr.name.starts_with(b"trusted.overlay.") || xattr.name.starts_with(b"user.overlay.") {
            return Err(refused(
                &entry.path,
                format!("xattr {} is overlayfs' own", shown(&xattr.name)),
            ));
        }
    }
    Ok(())
}

/// The process's umask, without setting it: other threads create files meanwhile. Unknown counts as "takes everything".
pub(super) fn umask() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o777)
}
