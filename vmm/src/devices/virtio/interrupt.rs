//! A device's interrupt: what happened, for the driver to read, and the line that tells it to.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

use super::saved;

/// Shared by the thread that serves the device, which raises, and the processors, which read and acknowledge.
#[derive(Debug)]
pub(crate) struct Interrupt {
    line: EventFd,
    /// `InterruptStatus` (virtio 1.2 §4.2.2.2).
    status: AtomicU32,
    /// The device found something it cannot go on from; `DEVICE_NEEDS_RESET` until the driver resets it.
    broken: AtomicBool,
    /// `ConfigGeneration` (virtio 1.2 §4.2.2.2).
    generation: AtomicU32,
}

impl Interrupt {
    /// # Errors
    ///
    /// Those of `eventfd(2)`.
    pub(crate) fn new() -> std::io::Result<Interrupt> {
        Ok(Interrupt {
            line: EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?,
            status: AtomicU32::new(0),
            broken: AtomicBool::new(false),
            generation: AtomicU32::new(0),
        })
    }

    /// Written to whenever there is something to say.
    pub(crate) fn line(&self) -> &EventFd {
        &self.line
    }

    /// Buffers were used.
    pub(crate) fn used(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// The configuration space reads otherwise than before; a driver that is there is told.
    pub(super) fn config_changed(&self, driven: bool) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        if driven {
            self.raise(VIRTIO_MMIO_INT_CONFIG);
        }
    }

    /// Which configuration space the driver reads from; it reads again when this has changed meanwhile.
    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The device serves no more until it is reset (virtio 1.2 §2.1.2).
    pub(crate) fn needs_reset(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn raise(&self, what: u32) {
        self.status.fetch_or(what, Ordering::SeqCst);
        // Fails only when the counter is full: then the line is raised already.
        let _ = self.line.write(1);
    }

    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    pub(super) fn acknowledge(&self, what: u32) {
        self.status.fetch_and(!what, Ordering::SeqCst);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    pub(super) fn save(&self) -> saved::Interrupt {
        saved::Interrupt {
            status: self.status(),
            broken: self.is_broken(),
            generation: self.generation(),
        }
    }

    /// Goes on from what was saved.
    pub(super) fn restore(&self, saved: saved::Interrupt) {
        self.generation.store(saved.generation, Ordering::SeqCst);
        self.broken.store(saved.broken, Ordering::SeqCst);
        self.status.store(saved.status, Ordering::SeqCst);
    }

    /// Says again what the driver has not acknowledged.
    pub(super) fn say_again(&self) {
        let unheard = self.status();
        if unheard != 0 {
            self.raise(unheard);
        }
    }

    pub(super) fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.broken.store(false, Ordering::SeqCst);
    }
}
