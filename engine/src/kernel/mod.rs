//! Kernels of microVMs: which there are, which one is used, and the initial file system each boots with.
//!
//! ```text
//! kernel file, modules directory ─ add ─► ROOT/kernels/<name>/{kernel,kernel.json,modules/*.ko}
//! /boot/vmlinuz-*, /lib/modules/<release> ─ default ─► the same, under its release, when nobody chose another
//! modules, guest program ─ initramfs ─► ROOT/kernels/<name>/initramfs-<digest of the guest program>
//! ```
//!
//! A stored kernel is whole by itself: the kernel file and of its modules those a guest needs, unpacked, in the order they
//! are loaded. What becomes of `/boot` afterwards does not matter to it.

mod cpio;
mod error;
mod host;
mod image;
mod initramfs;
mod modinfo;
mod modules;
mod packed;
mod store;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use host::Host;
pub use initramfs::{check_guest, guest_program};
pub use store::{Kernel, Kernels, Record, Source};
