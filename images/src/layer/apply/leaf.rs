//! What has nothing below it: files, symlinks, devices, pipes, hard links.

use std::io::BufRead;
use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::timestamps;
use super::{Applier, Place, failed, refused};
use crate::layer::beneath;
use crate::layer::error::Result;
use crate::layer::tar::{Entry, Reader};

impl Applier<'_> {
    pub(super) fn file<R: BufRead>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        reader: &mut Reader<'_, R>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let fd = self.make(place, "create file", || {
            fs::openat(&place.parent, place.name, flags, mode)
        })?;
        let mut extents = entry.sparse.as_deref().unwrap_or_default().iter();
        let mut extent_left = if entry.sparse.is_some() { 0 } else { u64::MAX };
        loop {
            let chunk = reader.data()?;
            if chunk.is_empty() {
                break;
            }
            while extent_left == 0 {
                let extent = extents
                    .next()
                    .ok_or_else(|| refused(place.path, "data beyond its sparse map"))?;
                fs::seek(&fd, fs::SeekFrom::Start(extent.offset)).map_err(place.failed("seek in"))?;
                extent_left = extent.length;
            }
            let take = usize::try_from(extent_left)
                .unwrap_or(usize::MAX)
                .min(chunk.len());
            let wrote = match rustix::io::write(&fd, &chunk[..take]) {
                Err(Errno::INTR) => continue,
                other => other.map_err(place.failed("write file"))?,
            };
            self.done.size += wrote as u64;
            extent_left -= wrote as u64;
            reader.used(wrote);
        }
        if entry.sparse.is_some() {
            fs::ftruncate(&fd, entry.size).map_err(place.failed("set size of"))?;
        }
        self.attributes(fd.as_fd(), place.path, entry, true)?;
        fs::futimens(&fd, &timestamps(entry.mtime)).map_err(place.failed("set times of"))
    }

    pub(super) fn symlink(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        self.make(place, "create symlink", || {
            fs::symlinkat(&*entry.link, &place.parent, place.name)
        })?;
        self.finish_node(place, entry)
    }

    pub(super) fn node(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        kind: FileType,
        device: u64,
    ) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        self.make(place, "create node", || {
            fs::mknodat(&place.parent, place.name, kind, mode, device)
        })?;
        if self.mode_differs(entry.mode) {
            // Made a moment ago in a private directory: this is no symlink.
            fs::chmodat(
                &place.parent,
                place.name,
                Mode::from_raw_mode(entry.mode),
                AtFlags::empty(),
            )
            .map_err(place.failed("change mode of"))?;
        }
        self.finish_node(place, entry)
    }

    pub(super) fn hard_link(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let target =
            beneath::normalise(&entry.link).map_err(|p| refused(place.path, format!("link target: {p}")))?;
        if target.is_empty() || target == place.path {
            return Err(refused(place.path, "hard link to itself or to the root"));
        }
        let (target_parent, target_name) = beneath::split(&target);
        let linked = match self.dirs.open(target_parent) {
            Ok(from) => match self.make_raw(place, || {
                fs::linkat(&from, target_name, &place.parent, place.name, AtFlags::empty())
            })? {
                Ok(()) => true,
                Err(Errno::NOENT) => false,
                Err(e) => return Err(failed("create hard link", place.path, e)),
            },
            Err(Errno::NOENT | Errno::NOTDIR) => false,
            Err(e) => return Err(failed("open directory", target_parent, e)),
        };
        if !linked {
            self.keep_name(place.path)?;
            self.keep_name(&target)?;
            self.links.insert(place.path.to_vec(), (self.kept_bytes, target));
        }
        Ok(())
    }
}
