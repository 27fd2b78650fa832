//! Devices that are not virtio: what a PC's kernel cannot do without.

pub(crate) mod power;
pub(crate) mod serial;
