//! Names that hide others: image-spec `layer.md#whiteouts` turned into what overlayfs reads.

use std::os::fd::OwnedFd;

use rustix::fs::{self, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::{Applier, Place, failed, refused};
use crate::layer::error::Result;

pub(super) const PREFIX: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";

impl Applier<'_> {
    pub(super) fn whiteout(&mut self, path: &[u8], parent: &[u8], name: &[u8], hidden: &[u8]) -> Result<()> {
        if name == OPAQUE_MARK {
            let dir = self.parent(parent)?;
            return set_opaque(&dir, parent);
        }
        if name.starts_with(b".wh..wh.") {
            // AUFS bookkeeping in old images; never part of the tree.
            return Ok(());
        }
        // `..` would take away the parent (and `.` the directory itself).
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(path, "whiteout of no name, of . or of .."));
        }
        let target = [parent, b"/", hidden].concat();
        let target = if parent.is_empty() { hidden } else { &*target };
        let place = Place {
            path: target,
            parent: self.parent(parent)?,
            name: hidden,
        };
        match fs::mknodat(&place.parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // image-spec layer.md#whiteouts: they hide names of lower layers, never those of their own.
            Err(Errno::EXIST) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match fs::openat(&place.parent, hidden, flags, Mode::empty()) {
                    Ok(dir) => {
                        self.implied.remove(place.path);
                        set_opaque(&dir, place.path)
                    }
                    Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    Err(e) => Err(failed("open directory", place.path, e)),
                }
            }
            Err(e) => Err(failed("create whiteout", place.path, e)),
        }
    }
}

pub(super) fn set_opaque(dir: &OwnedFd, path: &[u8]) -> Result<()> {
    fs::fsetxattr(dir, OVERLAY_OPAQUE, b"y", XattrFlags::empty()).map_err(|e| failed("make opaque", path, e))
}
