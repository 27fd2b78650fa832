//! virtio-net (virtio 1.2 §5.1): a TAP of the host as a network card.
//!
//! Frames go between TAP and guest memory without a copy in between. Checksums and segments are left undone wherever both
//! sides agree: the header before each frame says what is missing, and TAP and driver speak the same one.

mod rx;
mod tap;
mod tx;

#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod wire;

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Instant;

use virtio_bindings::virtio_net as net;

use super::chain::Malformed;
use super::device::{Active, Device};
use super::saved::Kept;
use super::throttle::Throttle;
use crate::config::{MacAddress, RateLimiter};
use rx::Rx;
pub(crate) use tap::Tap;
use tx::Tx;

const QUEUE_SIZE: u16 = 256;
const RX: usize = 0;
const TX: usize = 1;

/// Length of `struct virtio_net_hdr`, the same whether buffers are mergeable or not since version 1.
const HEADER_LEN: usize = 12;
/// The longest frame with its header: 64 KiB to be cut later (virtio 1.2 §5.1.6.3.1).
const FRAME_MAX: usize = 65_562;

/// Length of `struct virtio_net_config` up to what we tell: address, status and queue pairs, which nobody is promised, MTU.
const CONFIG_LEN: usize = 12;
const MTU_AT: usize = 10;

/// What the guest's kernel may leave undone: the TAP takes all of it.
const FROM_GUEST: [u32; 5] = [
    net::VIRTIO_NET_F_CSUM,
    net::VIRTIO_NET_F_HOST_TSO4,
    net::VIRTIO_NET_F_HOST_TSO6,
    net::VIRTIO_NET_F_HOST_ECN,
    net::VIRTIO_NET_F_HOST_UFO,
];

/// What the host's kernel may leave undone, and how the TAP is told.
const TO_GUEST: [(u32, libc::c_uint); 5] = [
    (net::VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
    (net::VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
    (net::VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
    (net::VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (net::VIRTIO_NET_F_GUEST_UFO, libc::TUN_F_UFO),
];

/// A network card as the guest sees it.
pub(crate) struct Net {
    tap: Tap,
    rx: Rx,
    tx: Tx,
    features: u64,
    config: [u8; CONFIG_LEN],
}

impl Net {
    /// `address` and `mtu` are told to the guest. `receive` slows what goes to the guest, `send` what comes from it.
    pub(crate) fn new(
        tap: Tap,
        address: Option<MacAddress>,
        mtu: Option<u16>,
        receive: Throttle,
        send: Throttle,
    ) -> Net {
        let mut features = 1 << net::VIRTIO_NET_F_MRG_RXBUF;
        for feature in FROM_GUEST.into_iter().chain(TO_GUEST.map(|(feature, _)| feature)) {
            features |= 1 << feature;
        }
        let mut config = [0; CONFIG_LEN];
        if let Some(MacAddress(octets)) = address {
            config[..octets.len()].copy_from_slice(&octets);
            features |= 1 << net::VIRTIO_NET_F_MAC;
        }
        if let Some(mtu) = mtu {
            config[MTU_AT..].copy_from_slice(&mtu.to_le_bytes());
            features |= 1 << net::VIRTIO_NET_F_MTU;
        }
        Net {
            tap,
            rx: Rx::new(receive),
            tx: Tx { throttle: send },
            features,
            config,
        }
    }
}

impl Net {
    /// Gives it other limits in both directions.
    pub(crate) fn change_limits(&mut self, receive: RateLimiter, send: RateLimiter) {
        let now = Instant::now();
        self.rx.throttle.change(receive, now);
        self.tx.throttle.change(send, now);
    }
}

impl Device for Net {
    fn kind(&self) -> u32 {
        virtio_bindings::virtio_ids::VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn sources(&self) -> Vec<RawFd> {
        vec![
            self.tap.as_fd().as_raw_fd(),
            self.rx.throttle.timer(),
            self.tx.throttle.timer(),
        ]
    }

    fn started(&mut self, active: &mut Active) -> Result<(), Malformed> {
        let agreed = TO_GUEST.iter().filter(|(feature, _)| active.has(*feature));
        let offloads = agreed.fold(0, |all, (_, offload)| all | offload);
        // Refused for segments without checksums alone, which no driver asks for (virtio 1.2 §5.1.3.1); then nothing is left
        // to it.
        let _ = self.tap.set_offloads(offloads);
        self.notified(active, RX)?;
        self.notified(active, TX)
    }

    fn notified(&mut self, active: &mut Active, queue: usize) -> Result<(), Malformed> {
        match queue {
            RX => self.rx.serve(active, &self.tap),
            _ => active.drain(TX, |memory, chain| self.tx.send(memory, chain, &self.tap)),
        }
    }

    fn ready(&mut self, active: Option<&mut Active>, source: usize) -> Result<(), Malformed> {
        // Frames that come while no driver runs the device stay in the TAP: `started` looks there.
        let Some(active) = active else { return Ok(()) };
        let queue = if source < 2 { RX } else { TX };
        self.notified(active, queue)
    }

    fn reset(&mut self) {
        self.rx.reset();
        // None of these was refused when the TAP was opened.
        let _ = self.tap.set_offloads(0);
    }

    fn held(&self, queue: usize) -> u16 {
        if queue == RX { self.rx.held() } else { 0 }
    }

    fn save(&mut self) -> Result<Kept, &'static str> {
        Ok(Kept::Nothing)
    }
}
