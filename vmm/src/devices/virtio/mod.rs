//! virtio 1.2 devices over memory-mapped registers.
//!
//! ```text
//! processor ─ register exit ─► mmio.rs: Transport ─┐
//!     │                                            ├─► endpoint.rs: Shared ─► device.rs: a Device over an Active
//!     └─ QueueNotify ─ ioeventfd ─► event loop ─► Endpoint ─┘                          │
//! processor ◄─ irqfd ◄─ interrupt.rs ◄─────────────────────── used ring ◄──────────────┘
//! ```
//!
//! A device sees chains that were checked ([`chain`]) and queues whose rings lie in guest memory; rings are
//! virtio-queue's. See docs/vmm.md.

pub(crate) mod balloon;
pub(crate) mod block;
pub(crate) mod chain;
pub(crate) mod device;
pub(crate) mod endpoint;
pub(crate) mod fs;
pub(crate) mod interrupt;
pub(crate) mod mmio;
pub(crate) mod net;
pub(crate) mod rng;
pub(crate) mod saved;
pub(crate) mod slots;
pub(crate) mod throttle;
mod transfer;
mod used;
pub(crate) mod vsock;

#[cfg(test)]
pub(crate) mod driver;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod resumed;
