//! Devices: what a PC's kernel cannot do without, and virtio for everything else.

pub(crate) mod keyboard;
pub(crate) mod pit;
pub(crate) mod power;
pub(crate) mod pvpanic;
pub(crate) mod serial;
pub(crate) mod virtio;
