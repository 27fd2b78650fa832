//! A part of the image that is written front to back.

use std::os::unix::fs::FileExt;

use super::BLOCK_LEN;
use super::write::Image;
use crate::layer::Result;

/// Bytes gathered before they are written.
const BUFFER: usize = 256 << 10;

/// A buffered writer with a position of its own. What is passed over is a hole or zeros, which is the same to a reader.
pub(super) struct Region<'i> {
    image: Image<'i>,
    /// Where the buffer begins in the image.
    start: u64,
    buffer: Vec<u8>,
}

impl<'i> Region<'i> {
    pub(super) fn new(image: Image<'i>, start: u64) -> Self {
        Self {
            image,
            start,
            buffer: Vec::with_capacity(BUFFER),
        }
    }

    /// Goes on at `offset`, which is not before what has been written.
    pub(super) fn advance(&mut self, offset: u64) -> Result<()> {
        let gap = offset - self.position();
        if let Ok(gap) = usize::try_from(gap)
            && gap < BLOCK_LEN
            && self.buffer.len() + gap <= BUFFER
        {
            self.buffer.resize(self.buffer.len() + gap, 0);
            return Ok(());
        }
        self.flush()?;
        self.start = offset;
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds `len` bytes, few of them, that `fill` writes into the buffer.
    pub(super) fn fill(&mut self, len: u64, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let len = usize::try_from(len).expect("it fits the buffer");
        if self.buffer.len() + len > BUFFER {
            self.flush()?;
        }
        let at = self.buffer.len();
        self.buffer.resize(at + len, 0);
        fill(&mut self.buffer[at..])
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.image
            .file
            .write_all_at(&self.buffer, self.start)
            .map_err(|e| self.image.error("write", e))?;
        self.start = self.position();
        self.buffer.clear();
        Ok(())
    }

    fn position(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }
}
