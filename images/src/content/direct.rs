//! A file written front to back, past the page cache where the filesystem can.
//!
//! A blob is read again only when its image is pushed: its pages are not worth making, nor the memory they push out. And its
//! bytes reach the disk while the rest is still coming, not all at once when the blob is made durable.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Written at a time: a multiple of every disk's block, and large enough that a disk's latency hardly counts.
const BLOCK_BYTES: usize = 1 << 20;
/// What `O_DIRECT` asks of a buffer's address in open(2), on any disk in use: its largest logical block.
const ALIGNMENT: usize = 4096;
/// Smaller files gain nothing.
const DIRECT_BYTES_MIN: u64 = 4 << 20;

/// Writes a file; what was given is in it only after [`Writer::finish`].
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    /// `None` when bytes go through the page cache.
    block: Option<Block>,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    /// Where the aligned part begins.
    start: usize,
    filled: usize,
}

impl Block {
    fn new() -> Self {
        let bytes = vec![0; BLOCK_BYTES + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self {
            bytes,
            start,
            filled: 0,
        }
    }

    /// Takes as many of `bytes` as fit.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(BLOCK_BYTES - self.filled);
        let at = self.start + self.filled;
        self.bytes[at..at + count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        count
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.filled]
    }
}

impl Writer {
    /// Writes to `file`, which is empty; about `size` bytes are expected.
    pub(super) fn new(file: File, size: u64) -> Self {
        // Set here and not by open(2), which makes the file before it finds that the filesystem knows no direct writes.
        let is_direct = size >= DIRECT_BYTES_MIN && set_direct(&file, true).is_ok();
        Self {
            file,
            block: is_direct.then(Block::new),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Takes the next bytes.
    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(block) = &mut self.block {
            bytes = &bytes[block.take(bytes)..];
            if block.filled < BLOCK_BYTES {
                return Ok(());
            }
            self.write_block()?;
        }
        self.file.write_all(bytes)
    }

    /// Writes what is still held back.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(block) = self.block.take() else {
            return Ok(());
        };
        // The end is no whole number of disk blocks.
        set_direct(&self.file, false)?;
        self.file.write_all(block.filled())
    }

    fn write_block(&mut self) -> io::Result<()> {
        let Some(mut block) = self.block.take() else {
            return Ok(());
        };
        let mut rest = block.filled();
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => {
                    // A disk with larger blocks, or a short write that left an odd offset: the page cache takes the rest.
                    set_direct(&self.file, false)?;
                    return self.file.write_all(rest);
                }
                Err(e) => return Err(e.into()),
            }
        }
        block.filled = 0;
        self.block = Some(block);
        Ok(())
    }
}

fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(directory: &std::path::Path, size: u64, parts: &[Vec<u8>]) -> Vec<u8> {
        let path = tempfile::NamedTempFile::new_in(directory).unwrap();
        let mut writer = Writer::new(path.reopen().unwrap(), size);
        for part in parts {
            writer.write_all(part).unwrap();
        }
        writer.finish().unwrap();
        std::fs::read(path.path()).unwrap()
    }

    #[test]
    fn large_files_are_written_past_the_page_cache_where_the_filesystem_can() {
        let probe = tempfile::NamedTempFile::new().unwrap();
        let can = rustix::fs::open(probe.path(), OFlags::DIRECT, rustix::fs::Mode::empty()).is_ok();
        let mut writer = Writer::new(tempfile::tempfile().unwrap(), DIRECT_BYTES_MIN);
        let is_direct = |writer: &Writer| fcntl_getfl(writer.file()).unwrap().contains(OFlags::DIRECT);
        assert_eq!(is_direct(&writer), can);
        assert_eq!(writer.block.is_some(), can);
        writer.write_all(&[7; 100]).unwrap();
        writer.finish().unwrap();
        assert!(!is_direct(&writer));
        assert_eq!(writer.file().metadata().unwrap().len(), 100);
        let small = Writer::new(tempfile::tempfile().unwrap(), DIRECT_BYTES_MIN - 1);
        assert!(!is_direct(&small));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        // A tmpfs takes direct writes only since Linux 6.6.
        #[test]
        fn parts_of_any_length_come_out_in_order(lengths in proptest::collection::vec(0usize..3 << 20, 0..5), tmpfs: bool) {
            let parts: Vec<Vec<u8>> = lengths
                .iter()
                .enumerate()
                .map(|(i, &n)| (0..n).map(|j| ((i * 7919 + j * 31) >> 7).to_le_bytes()[0]).collect())
                .collect();
            let directory = if tmpfs { "/dev/shm".into() } else { std::env::temp_dir() };
            prop_assert!(written(&directory, u64::MAX, &parts) == parts.concat());
        }
    }
}
