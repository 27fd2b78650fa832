//! virtio-blk (virtio 1.2 §5.2): a raw file or block device of the host as a disk.
//!
//! Raw alone: an image format is a parser of what a guest may have written, and formats name other files.

mod disk;
mod request;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::time::Instant;

use virtio_bindings::virtio_blk as blk;
use vm_memory::GuestMemoryMmap;

pub(crate) use disk::{Disk, open_file};
use request::Request;

use super::chain::{Chain, Malformed};
use super::device::{Active, Device};
use super::saved::Kept;
use super::throttle::Throttle;
use crate::config::RateLimiter;

/// One queue is what one event loop can serve.
const QUEUE_SIZE: u16 = 256;
/// Segments of one request: its header and status take a descriptor each.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Ranges in one request to discard or to zero.
const RANGES_MAX: u32 = 32;
/// The longest such range: 2 GiB.
const RANGE_SECTORS_MAX: u32 = 1 << 22;

/// Length of `struct virtio_blk_config` up to what we tell.
const CONFIG_LEN: usize = 60;

/// A disk as the guest sees it.
pub(crate) struct Block {
    disk: Disk,
    throttle: Throttle,
    config: [u8; CONFIG_LEN],
}

impl Block {
    pub(crate) fn new(disk: Disk, throttle: Throttle) -> Block {
        let config = config(&disk);
        Block {
            disk,
            throttle,
            config,
        }
    }

    /// Puts another file in the disk's place. What the guest has not flushed is written to the old one.
    ///
    /// # Errors
    ///
    /// Those of [`Disk::on`]; then the disk is as before.
    pub(crate) fn change_file(&mut self, file: File) -> io::Result<()> {
        self.disk = self.disk.moved_to(file)?;
        self.config = config(&self.disk);
        Ok(())
    }

    /// Gives it other limits.
    pub(crate) fn change_limits(&mut self, change: RateLimiter) {
        self.throttle.change(change, Instant::now());
    }

    fn serve(&mut self, memory: &GuestMemoryMmap, chain: Chain) -> Result<Option<usize>, Malformed> {
        let request = Request::parse(memory, chain)?;
        if !self.throttle.allows(request.bytes(), Instant::now()) {
            return Ok(None);
        }
        request.perform(memory, &self.disk).map(Some)
    }
}

fn config(disk: &Disk) -> [u8; CONFIG_LEN] {
    let mut config = [0; CONFIG_LEN];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &disk.sectors().to_le_bytes());
    put(12, &SEGMENTS_MAX.to_le_bytes());
    put(36, &RANGE_SECTORS_MAX.to_le_bytes());
    put(40, &RANGES_MAX.to_le_bytes());
    // Discards are aligned to what a file system of the host can drop.
    put(44, &8_u32.to_le_bytes());
    put(48, &RANGE_SECTORS_MAX.to_le_bytes());
    put(52, &RANGES_MAX.to_le_bytes());
    put(56, &[1]);
    config
}

impl Device for Block {
    fn kind(&self) -> u32 {
        virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let mut features = 1 << blk::VIRTIO_BLK_F_SEG_MAX;
        if self.disk.flushes() {
            features |= 1 << blk::VIRTIO_BLK_F_FLUSH;
        }
        if self.disk.is_read_only() {
            features | 1 << blk::VIRTIO_BLK_F_RO
        } else {
            features | 1 << blk::VIRTIO_BLK_F_DISCARD | 1 << blk::VIRTIO_BLK_F_WRITE_ZEROES
        }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn sources(&self) -> Vec<std::os::fd::RawFd> {
        vec![self.throttle.timer()]
    }

    fn notified(&mut self, active: &mut Active, queue: usize) -> Result<(), Malformed> {
        active.drain(queue, |memory, chain| self.serve(memory, chain))
    }

    fn ready(&mut self, active: Option<&mut Active>, _timer: usize) -> Result<(), Malformed> {
        match active {
            Some(active) => self.notified(active, 0),
            None => Ok(()),
        }
    }

    fn save(&mut self) -> Result<Kept, &'static str> {
        // A device that cannot be flushed says so to the guest when it asks.
        if !self.disk.is_read_only() {
            let _ = self.disk.flush();
        }
        Ok(Kept::Disk {
            sectors: self.disk.sectors(),
        })
    }

    fn restore(&mut self, kept: Kept, _driven: bool) -> Result<(), Malformed> {
        match kept {
            Kept::Disk { sectors } if sectors == self.disk.sectors() => Ok(()),
            Kept::Disk { .. } => Err(Malformed("its file has another size than it had")),
            _ => Err(Malformed("it was another kind of device")),
        }
    }
}
