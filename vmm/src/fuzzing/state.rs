//! A snapshot's state, without a machine.

use std::io;
use std::sync::PoisonError;

use super::ports::Ports;
use crate::config::{Config, Settings};
use crate::snapshot::{self, State};

/// What a state file says, as far as it can be looked at without a machine.
pub struct Snapshot(State);

impl Snapshot {
    /// Reads a whole state file.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Snapshot, snapshot::Error> {
        snapshot::decode(bytes).map(Snapshot)
    }

    /// The configuration it has, when it is a complete one that the rest of the state fits.
    #[must_use]
    pub fn config(&self) -> Option<Config> {
        let saved = self.0.settings().ok()?;
        let mut settings = Settings::default();
        settings.change(|new| *new = saved).ok()?;
        let config = settings.complete().ok()?;
        self.0.fits(config.vcpus, config.memory_mib).ok()?;
        Some(config)
    }

    /// COM1 and keyboard as they were, when such chips can be.
    #[must_use]
    pub fn ports(&self) -> Option<Ports> {
        let ports = Ports::of(Box::new(io::sink()), &self.0.serial).ok()?;
        let mut keyboard = ports.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        keyboard.restore(&self.0.keyboard);
        drop(keyboard);
        Some(ports)
    }

    /// What it says of each virtio device, for [`super::VirtioDevice::restore`], with the number of the device's kind.
    #[must_use]
    pub fn devices(&self) -> Vec<(u32, Vec<u8>)> {
        let devices = self.0.devices.iter();
        let written = |device| postcard::to_stdvec(device).expect("what was read can be written");
        devices.map(|device| (device.kind(), written(device))).collect()
    }
}
