//! Parts of a machine without the machine, for who plays the guest, the client or the forger of a snapshot: `fuzz/`.
//!
//! Nothing here decides anything: registers, event loop and readers are those of a machine.

mod client;
mod network;
mod ports;
mod state;
mod virtio;

use std::io;

use crate::error::Error;

pub use client::converse;
pub use network::Network;
pub use ports::Ports;
pub use state::Snapshot;
pub use virtio::{Rings, VirtioDevice};

fn no_device(source: io::Error) -> Error {
    Error::Events {
        operation: "make a device for the fuzzer",
        source,
    }
}
