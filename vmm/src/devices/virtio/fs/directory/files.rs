//! What is open: reading, writing, listing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, MutexGuard, PoisonError};

use fuse_backend_rs::api::filesystem::{DirEntry, ZeroCopyReader, ZeroCopyWriter};
use rustix::fs::{FallocateFlags, FileType, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::known::{Handle, Object};
use super::{Directory, ROOT};

/// Flags of open(2) that are the guest's to choose; the others are its own affair, or do something here that it must not.
const CHOSEN: OFlags = OFlags::RDWR
    .union(OFlags::WRONLY)
    .union(OFlags::APPEND)
    .union(OFlags::TRUNC)
    .union(OFlags::SYNC)
    .union(OFlags::DSYNC);
/// Bytes of names read from the host at once.
const NAMES_MAX: usize = 32 << 10;

/// What of a guest's flags is heard.
pub(super) fn chosen(flags: u32) -> OFlags {
    OFlags::from_bits_retain(flags) & CHOSEN
}

impl Handle {
    /// The file or directory of the host's.
    fn file(&self) -> io::Result<MutexGuard<'_, File>> {
        let file = self.file.as_ref().ok_or(Errno::BADF)?;
        Ok(file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        work(&mut *self.file()?)
    }
}

impl Directory {
    /// Opens a file or a directory. Opening anything else would do something: a pipe waits, a device is a device.
    pub(super) fn open_object(&self, object: &Object, flags: OFlags) -> io::Result<File> {
        let flags = match object.kind {
            FileType::RegularFile => flags,
            FileType::Directory => flags | OFlags::DIRECTORY,
            _ => return Err(Errno::NXIO.into()),
        };
        Ok(File::from(self.open_again(&object.named, flags)?))
    }

    /// Opens for the guest; its handle.
    pub(super) fn open_file(&self, number: u64, flags: u32) -> io::Result<u64> {
        let object = self.object(number)?;
        if object.kind == FileType::Directory {
            return Err(Errno::ISDIR.into());
        }
        let file = self.open_object(&object, chosen(flags))?;
        self.known().open(number, Some(file))
    }

    pub(super) fn open_directory(&self, number: u64) -> io::Result<u64> {
        let object = self.object(number)?;
        let file = match (object.kind, &object.only) {
            (FileType::Directory, None) => Some(self.open_object(&object, OFlags::RDONLY)?),
            (FileType::Directory, Some(_)) => None,
            _ => return Err(Errno::NOTDIR.into()),
        };
        self.known().open(number, file)
    }

    pub(super) fn read_file(
        &self,
        handle: &Arc<Handle>,
        to: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
    ) -> io::Result<usize> {
        let size = usize::try_from(size)
            .expect("a 64-bit host")
            .min(to.available_bytes());
        handle.with(|file| again(|| to.write_from(file, size, offset)))
    }

    pub(super) fn write_file(
        &self,
        handle: &Arc<Handle>,
        from: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
    ) -> io::Result<usize> {
        let size = usize::try_from(size).expect("a 64-bit host");
        handle.with(|file| again(|| from.read_to(file, size, offset)))
    }

    /// Tells `add` of names from `offset` on, until it has no room.
    pub(super) fn list(
        &self,
        number: u64,
        handle: &Arc<Handle>,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        let object = self.object(number)?;
        if let Some(only) = &object.only {
            let names: [(&[u8], FileType); 3] = [
                (b".", FileType::Directory),
                (b"..", FileType::Directory),
                (only.to_bytes(), FileType::RegularFile),
            ];
            let first = usize::try_from(offset).unwrap_or(names.len()).min(names.len());
            for (place, (name, kind)) in (offset + 1..).zip(&names[first..]) {
                if add(entry(name, ROOT, *kind, place))? == 0 {
                    break;
                }
            }
            return Ok(());
        }
        let own = object.look()?.st_ino;
        let room = usize::try_from(size)
            .expect("a 64-bit host")
            .clamp(1024, NAMES_MAX);
        handle.with(|file| {
            rustix::fs::seek(&*file, SeekFrom::Start(offset))?;
            let mut buffer = Vec::with_capacity(room);
            let mut names = RawDir::new(file.as_fd(), buffer.spare_capacity_mut());
            while let Some(found) = names.next() {
                let found = found?;
                let name = found.file_name().to_bytes();
                // What is above the share is nothing of the guest's.
                let ino = if name == b".." && number == ROOT {
                    own
                } else {
                    found.ino()
                };
                if add(entry(name, ino, found.file_type(), found.next_entry_cookie()))? == 0 {
                    break;
                }
            }
            Ok(())
        })
    }
}

fn entry(name: &[u8], ino: u64, kind: FileType, offset: u64) -> DirEntry<'_> {
    DirEntry {
        ino,
        offset,
        // As readdir(3) has it (`DT_…`).
        type_: kind.as_raw_mode() >> 12,
        name,
    }
}

/// Calls again when a signal came first.
fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What fallocate(2) may be asked for: room, holes and zeroes. Not to move what is in a file.
pub(super) fn allocation(mode: u32) -> io::Result<FallocateFlags> {
    let allowed = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
    FallocateFlags::from_bits(mode)
        .filter(|mode| allowed.contains(*mode))
        .ok_or_else(|| Errno::OPNOTSUPP.into())
}
