//! What is behind a network card.

use std::io;

use crate::devices::virtio::net::Tap;
use crate::devices::virtio::net::wire::{self, Wire};

/// A TAP in a network namespace of its own, and the other end of it.
pub struct Network {
    pub(super) tap: Tap,
    wire: Wire,
}

impl Network {
    /// Takes this thread into such a namespace.
    ///
    /// # Errors
    ///
    /// Those of making namespace and TAP: `EPERM` without root.
    pub fn alone() -> io::Result<Network> {
        let (tap, wire) = wire::alone()?;
        Ok(Network { tap, wire })
    }

    /// Sends a frame to the guest, with a `struct virtio_net_hdr` before it; whether the kernel took it.
    pub fn send(&self, header: [u8; 10], frame: &[u8]) -> bool {
        self.wire.offer(header, frame).is_ok()
    }

    /// The next frame the guest sent, with such a header.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.wire.receive_now()
    }

    /// Takes what is on its way in either direction.
    pub fn drain(&self) {
        while self.receive().is_some() {}
        while rustix::io::read(&self.tap, &mut [0_u8; 64]).is_ok() {}
    }
}
