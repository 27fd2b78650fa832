//! Frames from the guest to the TAP.

use std::os::fd::AsFd;
use std::time::Instant;

use vm_memory::GuestMemoryMmap;

use super::tap::Tap;
use super::{FRAME_MAX, HEADER_LEN};
use crate::devices::virtio::chain::{Chain, Malformed};
use crate::devices::virtio::throttle::Throttle;
use crate::devices::virtio::transfer;

/// The guest's mouth.
pub(super) struct Tx {
    pub(super) throttle: Throttle,
}

impl Tx {
    /// Sends one frame. Whether it arrives is not the guest's to know: what the kernel refuses (no frame at all, a header
    /// that cannot be, a TAP that is down or full) is lost as on a wire.
    pub(super) fn send(
        &mut self,
        memory: &GuestMemoryMmap,
        mut chain: Chain,
        tap: &Tap,
    ) -> Result<Option<usize>, Malformed> {
        let length = chain.readable();
        let Some(frame) = length.checked_sub(HEADER_LEN) else {
            return Err(Malformed("a frame is shorter than its header"));
        };
        if length > FRAME_MAX {
            return Ok(Some(0));
        }
        if !self.throttle.allows(frame as u64, Instant::now()) {
            return Ok(None);
        }
        let slices = chain.take_readable(memory, length)?;
        let _ = transfer::send(tap.as_fd(), &slices);
        Ok(Some(0))
    }
}
