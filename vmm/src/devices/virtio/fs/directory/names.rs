//! Names in directories: looking them up, making, moving and removing them.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_sys::open_beneath::open_resolved;
use fuse_backend_rs::api::filesystem::{Context, Entry};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::known::Object;
use super::{Directory, link};

/// The host's programs change the directory too, and the guest is to see that at once: it asks each time.
pub(super) const REMEMBERED: Duration = Duration::ZERO;

/// One component. The kernel of a guest asks for nothing else, and would not like `..` to be answered.
fn component(name: &CStr) -> io::Result<&Path> {
    let bytes = name.to_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    Ok(Path::new(
        <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes),
    ))
}

/// Opens a name in a directory without following anything.
fn open_name(directory: BorrowedFd<'_>, name: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(open_resolved(
        directory,
        name,
        flags | OFlags::NOFOLLOW,
        mode,
        resolve,
    )?)
}

impl Directory {
    /// A directory of the host's. The one that holds a single file does not change.
    fn parent(&self, number: u64) -> io::Result<Arc<Object>> {
        let object = self.object(number)?;
        match (object.kind, &object.only) {
            (FileType::Directory, None) => Ok(object),
            (FileType::Directory, Some(_)) => Err(Errno::ROFS.into()),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    pub(super) fn look_up(&self, parent: u64, name: &CStr) -> io::Result<Entry> {
        let named = self.object(parent)?;
        if let Some(only) = &named.only {
            if only.as_c_str() != name {
                return Err(Errno::NOENT.into());
            }
            return self.entry(named.named.try_clone()?);
        }
        let directory = self.parent(parent)?;
        let found = open_name(
            directory.named.as_fd(),
            component(name)?,
            OFlags::PATH,
            Mode::empty(),
        )?;
        self.entry(found)
    }

    /// What the guest is told of something it looked up or made.
    fn entry(&self, named: OwnedFd) -> io::Result<Entry> {
        let object = Object::of(named)?;
        let attr = object.look()?;
        Ok(Entry {
            inode: self.known().look_up(object)?,
            attr,
            attr_timeout: REMEMBERED,
            entry_timeout: REMEMBERED,
            ..Entry::default()
        })
    }

    pub(super) fn make_directory(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
    ) -> io::Result<Entry> {
        let (directory, name) = (self.parent(parent)?, component(name)?);
        rustix::fs::mkdirat(&directory.named, name, Mode::RWXU)?;
        let made = open_name(
            directory.named.as_fd(),
            name,
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )?;
        let done = self.give_away(&made, context, &directory, mode, FileType::Directory);
        if let Err(e) = done {
            let _ = rustix::fs::unlinkat(&directory.named, name, AtFlags::REMOVEDIR);
            return Err(e);
        }
        self.entry(made)
    }

    /// Files, pipes and sockets. A device would be one of the host's.
    pub(super) fn make_node(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
    ) -> io::Result<Entry> {
        let (directory, name) = (self.parent(parent)?, component(name)?);
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
            return Err(Errno::PERM.into());
        }
        rustix::fs::mknodat(&directory.named, name, kind, Mode::RUSR | Mode::WUSR, 0)?;
        let made = open_name(directory.named.as_fd(), name, OFlags::PATH, Mode::empty())?;
        self.finish(made, context, &directory, name, mode, kind)
    }

    pub(super) fn make_link(
        &self,
        context: &Context,
        target: &CStr,
        parent: u64,
        name: &CStr,
    ) -> io::Result<Entry> {
        let (directory, name) = (self.parent(parent)?, component(name)?);
        rustix::fs::symlinkat(target, &directory.named, name)?;
        let made = open_name(directory.named.as_fd(), name, OFlags::PATH, Mode::empty())?;
        self.finish(made, context, &directory, name, 0, FileType::Symlink)
    }

    /// Makes a file and opens it, or opens the one that is there: what is open, and what the guest is told of it.
    pub(super) fn make_file(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        flags: OFlags,
        exclusive: bool,
    ) -> io::Result<(Entry, File)> {
        let (directory, path) = (self.parent(parent)?, component(name)?);
        let new = flags | OFlags::CREATE | OFlags::EXCL;
        let made = match open_name(directory.named.as_fd(), path, new, Mode::RUSR | Mode::WUSR) {
            Ok(made) => made,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !exclusive => {
                let entry = self.look_up(parent, name)?;
                let file = self
                    .object(entry.inode)
                    .and_then(|object| self.open_object(&object, flags));
                return match file {
                    Ok(file) => Ok((entry, file)),
                    Err(e) => {
                        // The guest does not hear of it.
                        self.known().forget(entry.inode, 1);
                        Err(e)
                    }
                };
            }
            Err(e) => return Err(e),
        };
        let named = self.open_again(&made, OFlags::PATH)?;
        let entry = self.finish(named, context, &directory, path, mode, FileType::RegularFile)?;
        Ok((entry, File::from(made)))
    }

    /// Tells of what was just made, once it belongs to who asked; otherwise it goes again.
    fn finish(
        &self,
        made: OwnedFd,
        context: &Context,
        directory: &Object,
        name: &Path,
        mode: u32,
        kind: FileType,
    ) -> io::Result<Entry> {
        let done = self.give_away(&made, context, directory, mode, kind);
        match done.and_then(|()| self.entry(made)) {
            Ok(entry) => Ok(entry),
            Err(e) => {
                let _ = rustix::fs::unlinkat(&directory.named, name, AtFlags::empty());
                Err(e)
            }
        }
    }

    /// Owner first, for a change of owner takes bits of the mode away. In a directory with the set-group bit the group is the
    /// directory's, as the kernel has made it.
    fn give_away(
        &self,
        made: &OwnedFd,
        context: &Context,
        directory: &Object,
        mode: u32,
        kind: FileType,
    ) -> io::Result<()> {
        let above = directory.look()?.st_mode;
        let inherits = above & libc::S_ISGID != 0;
        let now = super::stat::file(made.as_fd())?;
        let group = if inherits { now.st_gid } else { context.gid };
        if (now.st_uid, now.st_gid) != (context.uid, group) {
            let (user, group) = (Uid::from_raw(context.uid), Gid::from_raw(group));
            let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(made, "", Some(user), Some(group), flags)?;
        }
        if kind == FileType::Symlink {
            return Ok(());
        }
        let passed_on = if inherits && kind == FileType::Directory {
            libc::S_ISGID
        } else {
            0
        };
        let mode = Mode::from_raw_mode(mode & 0o7777 | passed_on);
        Ok(rustix::fs::chmodat(
            &self.links,
            link(made),
            mode,
            AtFlags::empty(),
        )?)
    }

    pub(super) fn remove(&self, parent: u64, name: &CStr, directory: bool) -> io::Result<()> {
        let flags = if directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        Ok(rustix::fs::unlinkat(
            &self.parent(parent)?.named,
            component(name)?,
            flags,
        )?)
    }

    pub(super) fn rename(&self, from: (u64, &CStr), to: (u64, &CStr), flags: u32) -> io::Result<()> {
        let flags = RenameFlags::from_bits(flags)
            .filter(|flags| !flags.contains(RenameFlags::WHITEOUT))
            .ok_or(Errno::INVAL)?;
        let (old, new) = (self.parent(from.0)?, self.parent(to.0)?);
        let (old_name, new_name) = (component(from.1)?, component(to.1)?);
        Ok(rustix::fs::renameat_with(
            &old.named, old_name, &new.named, new_name, flags,
        )?)
    }

    /// One more name for an object.
    pub(super) fn name_again(&self, number: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        let (object, directory, name) = (self.object(number)?, self.parent(parent)?, component(name)?);
        if object.kind == FileType::Directory {
            return Err(Errno::PERM.into());
        }
        let flags = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(&self.links, link(&object.named), &directory.named, name, flags)?;
        self.entry(open_name(
            directory.named.as_fd(),
            name,
            OFlags::PATH,
            Mode::empty(),
        )?)
    }
}
