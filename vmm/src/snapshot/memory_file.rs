//! The file with a machine's memory: its regions, one behind the other, with holes where pages are zeroes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

use super::Error;

const PAGE: usize = 4096;
/// Looked at together.
const CHUNK: usize = 64 << 10;

/// Writes memory that nobody changes meanwhile to an empty file. Blocks until it is durable.
///
/// # Errors
///
/// [`Error::Io`].
pub(super) fn write(file: &File, memory: &GuestMemoryMmap) -> Result<(), Error> {
    let length = memory.iter().map(GuestMemoryRegion::len).sum();
    file.set_len(length).map_err(Error::io("enlarge"))?;
    let mut chunk = vec![0; CHUNK];
    let mut begin = 0;
    for region in memory.iter() {
        let mut at = 0;
        while at < region.len() {
            let length = usize::try_from(region.len() - at).map_or(CHUNK, |left| left.min(CHUNK));
            let slice = region
                .get_slice(MemoryRegionAddress(at), length)
                .expect("a part of the region");
            slice.copy_to(&mut chunk[..length]);
            write_pages(file, &chunk[..length], begin + at).map_err(Error::io("write"))?;
            at += length as u64;
        }
        begin += region.len();
    }
    file.sync_all().map_err(Error::io("sync"))
}

/// Writes those that are not zeroes, in as few calls as they allow.
fn write_pages(file: &File, chunk: &[u8], at: u64) -> std::io::Result<()> {
    const ZEROES: [u8; PAGE] = [0; PAGE];
    let mut done = 0;
    let is_zero = |page: &[u8]| *page == ZEROES[..page.len()];
    for run in chunk
        .chunks(PAGE)
        .collect::<Vec<_>>()
        .chunk_by(|one, next| is_zero(one) == is_zero(next))
    {
        let length: usize = run.iter().map(|page| page.len()).sum();
        if !is_zero(run[0]) {
            file.write_all_at(&chunk[done..done + length], at + done as u64)?;
        }
        done += length;
    }
    Ok(())
}

/// Opens one of exactly so many bytes.
///
/// # Errors
///
/// Those of `open(2)`, [`Error::NoFile`], and [`Error::Memory`].
pub(super) fn open(path: &Path, needed: u64) -> Result<File, Error> {
    let file = open_file(path)?;
    let there = file.metadata().map_err(Error::io("look at"))?.len();
    if there != needed {
        return Err(Error::Memory { there, needed });
    }
    Ok(file)
}

/// Opens a regular file to be read.
///
/// # Errors
///
/// Those of `open(2)`, and [`Error::NoFile`].
pub(super) fn open_file(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new()
        .read(true)
        // A pipe would be waited for.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(Error::io("open"))?;
    let kind = file.metadata().map_err(Error::io("look at"))?;
    if !kind.is_file() {
        return Err(Error::NoFile);
    }
    Ok(file)
}
