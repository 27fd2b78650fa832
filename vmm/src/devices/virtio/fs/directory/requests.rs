//! Each request of the FUSE server (`Documentation/filesystems/fuse`), and what is done about it. What is not here is answered
//! with `ENOSYS`: locks, which the guest's kernel then keeps itself, and permissions, which it checks itself.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{CreateIn, FsOptions, OpenOptions, SetattrValid, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, GetxattrReply, ListxattrReply, ZeroCopyReader, ZeroCopyWriter,
};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::files::{allocation, chosen};
use super::names::REMEMBERED;
use super::{Directory, stat};

impl FileSystem for Directory {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, _capable: FsOptions) -> io::Result<FsOptions> {
        Ok(FsOptions::ASYNC_READ
            | FsOptions::BIG_WRITES
            | FsOptions::MAX_PAGES
            | FsOptions::ATOMIC_O_TRUNC
            | FsOptions::PARALLEL_DIROPS
            // What the host writes makes the guest's copy of it old.
            | FsOptions::AUTO_INVAL_DATA)
    }

    fn destroy(&self) {
        self.forget_all();
    }

    fn lookup(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.look_up(parent, name)
    }

    fn forget(&self, _: &Context, inode: u64, count: u64) {
        self.known().forget(inode, count);
    }

    fn getattr(&self, _: &Context, inode: u64, _: Option<u64>) -> io::Result<(stat64, Duration)> {
        Ok((self.object(inode)?.look()?, REMEMBERED))
    }

    fn setattr(
        &self,
        _: &Context,
        inode: u64,
        attr: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        Ok((self.change(inode, handle, &attr, valid)?, REMEMBERED))
    }

    fn readlink(&self, _: &Context, inode: u64) -> io::Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&self.object(inode)?.named, "", Vec::new())?;
        Ok(target.into_bytes())
    }

    fn symlink(&self, context: &Context, linkname: &CStr, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.make_link(context, linkname, parent, name)
    }

    fn mknod(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        _: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.make_node(context, parent, name, mode & !(umask & 0o777))
    }

    fn mkdir(&self, context: &Context, parent: u64, name: &CStr, mode: u32, umask: u32) -> io::Result<Entry> {
        self.make_directory(context, parent, name, mode & !(umask & 0o777))
    }

    fn unlink(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.remove(parent, name, false)
    }

    fn rmdir(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.remove(parent, name, true)
    }

    fn rename(
        &self,
        _: &Context,
        olddir: u64,
        oldname: &CStr,
        newdir: u64,
        newname: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        Directory::rename(self, (olddir, oldname), (newdir, newname), flags)
    }

    fn link(&self, _: &Context, inode: u64, newparent: u64, newname: &CStr) -> io::Result<Entry> {
        self.name_again(inode, newparent, newname)
    }

    fn open(
        &self,
        _: &Context,
        inode: u64,
        flags: u32,
        _: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        Ok((Some(self.open_file(inode, flags)?), OpenOptions::empty(), None))
    }

    fn create(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        args: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        let mode = args.mode & !(args.umask & 0o777);
        let exclusive = args.flags & libc::O_EXCL.cast_unsigned() != 0;
        let (entry, file) = self.make_file(context, parent, name, mode, chosen(args.flags), exclusive)?;
        let opened = self.known().open(entry.inode, Some(file));
        match opened {
            Ok(handle) => Ok((entry, Some(handle), OpenOptions::empty(), None)),
            Err(e) => {
                // The guest does not hear of it.
                self.known().forget(entry.inode, 1);
                Err(e)
            }
        }
    }

    fn read(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        w: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        _: Option<u64>,
        _: u32,
    ) -> io::Result<usize> {
        self.read_file(&self.handle(handle, inode)?, w, size, offset)
    }

    fn write(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        r: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        _: Option<u64>,
        _: bool,
        _: u32,
        _: u32,
    ) -> io::Result<usize> {
        self.write_file(&self.handle(handle, inode)?, r, size, offset)
    }

    fn fsync(&self, _: &Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.handle(handle, inode)?.with(|file| match datasync {
            true => file.sync_data(),
            false => file.sync_all(),
        })
    }

    fn fallocate(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let mode = allocation(mode)?;
        self.handle(handle, inode)?
            .with(|file| Ok(rustix::fs::fallocate(&*file, mode, offset, length)?))
    }

    fn release(
        &self,
        _: &Context,
        inode: u64,
        _: u32,
        handle: u64,
        _: bool,
        _: bool,
        _: Option<u64>,
    ) -> io::Result<()> {
        self.known().close(handle, inode)
    }

    fn statfs(&self, _: &Context, inode: u64) -> io::Result<statvfs64> {
        stat::file_system(self.object(inode)?.named.as_fd())
    }

    fn setxattr(&self, _: &Context, inode: u64, name: &CStr, value: &[u8], flags: u32) -> io::Result<()> {
        self.set_attribute(inode, name, value, flags)
    }

    fn getxattr(&self, _: &Context, inode: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        self.attribute(inode, name, size)
    }

    fn listxattr(&self, _: &Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        self.attributes(inode, size)
    }

    fn removexattr(&self, _: &Context, inode: u64, name: &CStr) -> io::Result<()> {
        self.remove_attribute(inode, name)
    }

    fn opendir(&self, _: &Context, inode: u64, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        Ok((Some(self.open_directory(inode)?), OpenOptions::empty()))
    }

    fn readdir(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.list(inode, &self.handle(handle, inode)?, size, offset, add_entry)
    }

    fn fsyncdir(&self, context: &Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        self.fsync(context, inode, datasync, handle)
    }

    fn releasedir(&self, _: &Context, inode: u64, _: u32, handle: u64) -> io::Result<()> {
        self.known().close(handle, inode)
    }

    fn lseek(&self, _: &Context, inode: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        let to = match libc::c_int::try_from(whence) {
            Ok(libc::SEEK_DATA) => SeekFrom::Data(offset),
            Ok(libc::SEEK_HOLE) => SeekFrom::Hole(offset),
            // The guest knows where it is.
            _ => return Err(Errno::INVAL.into()),
        };
        self.handle(handle, inode)?
            .with(|file| Ok(rustix::fs::seek(&*file, to)?))
    }
}
