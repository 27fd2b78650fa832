//! Kernels and initial file systems into guest memory.
//!
//! ```text
//! file ─► vmlinux (ELF)  ──────────────────────────────► segments at their physical addresses
//!      └► bzImage ─ setup header ─► payload ─ unpack ─► vmlinux
//! ```
//!
//! The host unpacks a bzImage: it does so several times faster than the guest, which would do it on one cold processor.

mod bzimage;
mod segments;

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use linux_loader::loader::{self as rust_vmm, KernelLoader, PvhBootCapability};
use rustix::fs::{Mode, OFlags};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::arch::x86_64::layout;

/// Larger files are no kernels.
const IMAGE_MAX: u64 = 512 << 20;

/// Why an image is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Larger than any kernel.
    #[error("it has more than {IMAGE_MAX} bytes")]
    Large,
    /// Neither kind of image.
    #[error("it is neither an ELF file nor a bzImage")]
    Unknown,
    /// A bzImage older than the 64-bit protocol, or without a payload to unpack.
    #[error("its boot protocol is {}.{:02}; 2.08 or later is needed", version >> 8, version & 0xff)]
    OldProtocol {
        /// As the header says.
        version: u16,
    },
    /// The header points outside of the file.
    #[error(
        "its header says that the payload is at byte {offset} and {length} long, but it has {size} bytes"
    )]
    Truncated {
        /// Where the payload should begin.
        offset: u64,
        /// How long it should be.
        length: u64,
        /// Of the whole file.
        size: u64,
    },
    /// A compression no code here can undo.
    #[error("its payload is packed in a way that is not supported (first bytes {0:02x?})")]
    UnknownPacking([u8; 6]),
    /// The payload does not unpack.
    #[error("its payload is damaged")]
    Damaged(#[source] io::Error),
    /// The payload unpacks to more than a kernel.
    #[error("its payload unpacks to more than {IMAGE_MAX} bytes")]
    Bomb,
    /// A pipe, a device, a directory.
    #[error("it is no regular file")]
    NoFile,
    /// The ELF file is not one that can be loaded.
    #[error("its ELF headers are refused: {0}")]
    Elf(String),
    /// A part of the kernel where none may be.
    #[error("its segment at {at:#x} {why}")]
    Segment {
        /// Its physical address.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Its first instruction is none of its own.
    #[error("it begins at {0:#x}, where nothing of it is loaded")]
    NoEntry(u64),
    /// It does not fit.
    #[error("it needs {needed} bytes of memory and the machine has {there} below 3 GiB")]
    NoRoom {
        /// What it takes, with what lies before it.
        needed: u64,
        /// What there is.
        there: u64,
    },
}

/// The way into a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Linux's 64-bit boot protocol.
    Long(u64),
    /// PVH: 32-bit protected mode.
    Pvh(u64),
}

/// Where a kernel was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Where it begins, and how.
    pub entry: Entry,
    /// First byte after it.
    pub end: u64,
}

/// Loads a kernel: an ELF file is entered by its PVH note if it has one, as Firecracker does, and anything else by the 64-bit boot
/// protocol. Reads the whole file; unpacking a Debian kernel takes a third of a second.
///
/// # Errors
///
/// Any [`Error`]. Guest memory may have been written to.
pub fn kernel(memory: &GuestMemoryMmap, path: &Path) -> Result<Loaded, Error> {
    let image = read(path)?;
    if image.starts_with(b"\x7fELF") {
        return elf(memory, &image, true);
    }
    elf(memory, &bzimage::unpack(&image)?, false)
}

fn elf(memory: &GuestMemoryMmap, image: &[u8], by_note: bool) -> Result<Loaded, Error> {
    let end = segments::check(image, room(memory))?;
    let mut image = Cursor::new(image);
    let high = Some(GuestAddress(layout::HIGH_RAM));
    let loaded =
        rust_vmm::Elf::load(memory, None, &mut image, high).map_err(|e| Error::Elf(e.to_string()))?;
    let entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(at) if by_note => Entry::Pvh(at.0),
        _ => Entry::Long(loaded.kernel_load.0),
    };
    let (Entry::Long(at) | Entry::Pvh(at)) = entry;
    if !(layout::HIGH_RAM..end).contains(&at) {
        return Err(Error::NoEntry(at));
    }
    // Not the loader's, which passes over segments that have no bytes in the file.
    Ok(Loaded { entry, end })
}

/// Bytes of memory below the hole.
fn room(memory: &GuestMemoryMmap) -> u64 {
    memory
        .iter()
        .map(vm_memory::GuestMemoryRegion::len)
        .next()
        .unwrap_or_default()
}

/// Puts an initial file system at the end of the memory below the hole, behind `after`. Returns where it begins and its
/// length.
///
/// # Errors
///
/// [`Error::Read`], [`Error::Large`] and [`Error::NoRoom`].
pub fn initrd(memory: &GuestMemoryMmap, path: &Path, after: u64) -> Result<(u64, u64), Error> {
    let image = read(path)?;
    let length = image.len() as u64;
    let there = room(memory);
    let no_room = Error::NoRoom {
        needed: after.saturating_add(length),
        there,
    };
    let Some(at) = there
        .checked_sub(length)
        .map(|at| at & !0xfff)
        .filter(|at| *at >= after)
    else {
        return Err(no_room);
    };
    memory
        .write_slice(&image, GuestAddress(at))
        .map_err(|_| no_room)?;
    Ok((at, length))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    // Opening a pipe would wait for somebody to write to it, and the API with it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::Read(e.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(Error::Read)?.is_file() {
        return Err(Error::NoFile);
    }
    let mut image = Vec::new();
    file.take(IMAGE_MAX + 1)
        .read_to_end(&mut image)
        .map_err(Error::Read)?;
    if image.len() as u64 > IMAGE_MAX {
        return Err(Error::Large);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn what_is_no_kernel_is_told_apart() {
        let memory = crate::memory::map(16).unwrap();
        let load = |bytes: &[u8]| kernel(&memory, file(bytes).path()).unwrap_err();
        assert!(matches!(load(b""), Error::Unknown));
        assert!(matches!(load(&[0; 4096]), Error::Unknown));
        assert!(matches!(load(b"\x7fELF and no more"), Error::Elf(_)));
        let pipe = tempfile::tempdir().unwrap();
        let pipe = pipe.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RWXU).unwrap();
        for path in [&pipe, Path::new("/dev/zero"), Path::new("/")] {
            let error = kernel(&memory, path).unwrap_err();
            assert!(matches!(error, Error::NoFile), "{error}");
        }
        let error = kernel(&memory, Path::new("/nowhere")).unwrap_err();
        assert!(matches!(error, Error::Read(_)));
    }

    /// An ELF file of two segments, 64 bytes at 1 MiB and as many zeroes behind them, that begins at `entry`.
    fn segments(entry: u64) -> Vec<u8> {
        let at = layout::HIGH_RAM;
        let mut image = b"\x7fELF\x02\x01\x01".to_vec();
        image.resize(16, 0);
        image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        // Where it begins, its program headers, and no sections.
        image.extend([entry, 64, 0].into_iter().flat_map(u64::to_le_bytes));
        image.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        for header in [[176, at, at, 64, 64, 0], [176, at + 64, at + 64, 0, 64, 0]] {
            image.extend([1, 0, 0, 0, 5, 0, 0, 0]);
            image.extend(header.into_iter().flat_map(u64::to_le_bytes));
        }
        image.resize(image.len() + 64, 0xf4);
        image
    }

    #[test]
    fn a_kernel_begins_where_it_is_and_ends_with_its_zeroes() {
        let memory = crate::memory::map(16).unwrap();
        let load = |entry| kernel(&memory, file(&segments(entry)).path());
        let at = layout::HIGH_RAM;
        let good = load(at).unwrap();
        assert_eq!((good.entry, good.end), (Entry::Long(at), at + 128));
        for entry in [at + 128, u64::MAX] {
            let error = load(entry).unwrap_err();
            assert!(matches!(error, Error::NoEntry(at) if at == entry), "{error}");
        }
    }

    #[test]
    fn an_initrd_goes_to_the_end_or_is_refused() {
        let memory = crate::memory::map(16).unwrap();
        let small = file(&[7; 5000]);
        let (at, length) = initrd(&memory, small.path(), 1 << 20).unwrap();
        assert_eq!((at, length), ((16 << 20) - 8192, 5000));
        let error = initrd(&memory, small.path(), (16 << 20) - 4096).unwrap_err();
        assert!(matches!(error, Error::NoRoom { .. }));
        let large = file(&vec![0; 17 << 20]);
        let error = initrd(&memory, large.path(), 0).unwrap_err();
        assert!(error.to_string().contains("17825792"), "{error}");
    }
}
