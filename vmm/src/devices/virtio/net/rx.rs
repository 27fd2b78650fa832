//! Frames from the TAP to the guest.
//!
//! ```text
//! queue ─► buffers, held until there is room for the longest frame ─► one readv ─► as many as it took ─► used ring
//! ```
//!
//! Two can be waited for, a frame and a buffer, and whichever comes last must set things going again, or the guest hears
//! nothing for ever (CVE-2020-16843). The TAP tells of a frame once; so frames are read until there is none, and when there
//! is no buffer for the next the driver is asked to say when it adds one, and that makes the TAP be read again.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use virtio_bindings::virtio_net as net;
use virtio_queue::QueueT;

use super::tap::Tap;
use super::{FRAME_MAX, HEADER_LEN, RX};
use crate::devices::virtio::chain::{Chain, Malformed, Slice};
use crate::devices::virtio::device::Active;
use crate::devices::virtio::throttle::Throttle;
use crate::devices::virtio::transfer;

/// Where the header says over how many buffers a frame is spread.
const NUM_BUFFERS_AT: usize = 10;
/// The longest frame, with its header, that a driver has to have room for when it left all cutting to the device (virtio 1.2
/// §5.1.6.3.1).
const WHOLE_FRAME: usize = 1526;

/// The guest's ear.
pub(super) struct Rx {
    pub(super) throttle: Throttle,
    /// Taken from the queue, in order.
    buffers: VecDeque<Chain>,
    /// Bytes of all buffers together.
    room: usize,
    /// Ranges of all buffers together.
    parts: usize,
    /// Lies in the guest's memory, and waits for the throttle.
    arrived: Option<Frame>,
}

/// A frame the guest does not know of yet.
struct Frame {
    /// What holds it, and how much of it.
    chains: Vec<(u16, usize)>,
    /// Its length without its header.
    length: usize,
}

impl Rx {
    pub(super) fn new(throttle: Throttle) -> Rx {
        Rx {
            throttle,
            buffers: VecDeque::new(),
            room: 0,
            parts: 0,
            arrived: None,
        }
    }

    /// Chains that were taken and not given back. A frame in some of them is not remembered with them.
    pub(super) fn held(&self) -> u16 {
        let arrived = self.arrived.as_ref().map_or(0, |frame| frame.chains.len());
        u16::try_from(self.buffers.len() + arrived).expect("no more than the queue has")
    }

    /// Forgets what belonged to the driver.
    pub(super) fn reset(&mut self) {
        self.buffers.clear();
        (self.room, self.parts) = (0, 0);
        self.arrived = None;
    }

    /// Moves frames until there are none, or no buffers, or too many for now.
    pub(super) fn serve(&mut self, active: &mut Active, tap: &Tap) -> Result<(), Malformed> {
        if !active.queues[RX].ready() {
            return Ok(());
        }
        active.listen_not(RX)?;
        let mut left = active.queues[RX].size();
        loop {
            if let Some(frame) = self.arrived.take() {
                if !self.throttle.allows(frame.length as u64, Instant::now()) {
                    self.arrived = Some(frame);
                    break;
                }
                active.used_together(RX, &frame.chains)?;
            }
            if left == 0 {
                active.ring(RX);
                break;
            }
            if !self.collect(active)? {
                if active.listen(RX)? {
                    continue;
                }
                break;
            }
            left -= 1;
            match self.receive(active, tap) {
                Ok(frame) => self.arrived = frame?,
                // There is none, or the TAP was removed.
                Err(_) => break,
            }
        }
        active.tell(RX)
    }

    /// Takes buffers from the queue until they have room for every frame that may come. Whether a frame can be read now.
    fn collect(&mut self, active: &mut Active) -> Result<bool, Malformed> {
        let mergeable = active.has(net::VIRTIO_NET_F_MRG_RXBUF);
        while self.room < FRAME_MAX && (mergeable || self.buffers.is_empty()) {
            let Some(chain) = active.pop(RX)? else { break };
            if chain.readable() > 0 || chain.writable() < HEADER_LEN {
                return Err(Malformed("a buffer has no room for a frame's header"));
            }
            if self.parts + chain.writable_parts() > transfer::SLICES_MAX {
                active.unpop(RX);
                return Ok(true);
            }
            self.room += chain.writable();
            self.parts += chain.writable_parts();
            self.buffers.push_back(chain);
        }
        let segments = [
            net::VIRTIO_NET_F_GUEST_TSO4,
            net::VIRTIO_NET_F_GUEST_TSO6,
            net::VIRTIO_NET_F_GUEST_UFO,
        ];
        let needed = match mergeable {
            false => 1,
            true if segments.iter().any(|feature| active.has(*feature)) => FRAME_MAX,
            true => WHOLE_FRAME,
        };
        // A driver that has no more to give is not waited for.
        let all = self.buffers.len() == usize::from(active.queues[RX].size());
        Ok(self.room >= needed || all)
    }

    /// Reads a frame into the buffers; `None` for one that they have no room for.
    fn receive(&mut self, active: &Active, tap: &Tap) -> io::Result<Result<Option<Frame>, Malformed>> {
        let memory = &active.memory;
        let mut slices: Vec<Slice<'_>> = Vec::with_capacity(self.parts);
        for chain in &self.buffers {
            if let Err(malformed) = chain.writable_slices(memory, &mut slices) {
                return Ok(Err(malformed));
            }
        }
        let length = transfer::receive(tap.as_fd(), &slices)?;
        Ok(match length {
            Some(length) if length >= HEADER_LEN => self.spread(active, length).map(Some),
            _ => Ok(None),
        })
    }

    /// Takes the buffers that hold a frame of `length` bytes, and writes into its header how many there are.
    fn spread(&mut self, active: &Active, length: usize) -> Result<Frame, Malformed> {
        let mut chains = Vec::new();
        let mut first = None;
        let mut left = length;
        while left > 0 {
            let chain = self.buffers.pop_front().expect("they have room for the frame");
            let part = chain.writable().min(left);
            self.room -= chain.writable();
            self.parts -= chain.writable_parts();
            left -= part;
            chains.push((chain.head, part));
            first.get_or_insert(chain);
        }
        let mut first = first.expect("a frame is not empty");
        let count = u16::try_from(chains.len()).expect("no more than the queue has");
        first.take_writable(&active.memory, NUM_BUFFERS_AT)?;
        first.write(&active.memory, &count.to_le_bytes())?;
        Ok(Frame {
            chains,
            length: length - HEADER_LEN,
        })
    }
}
