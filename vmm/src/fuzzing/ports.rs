//! What answers at I/O ports.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::no_device;
use crate::arch::x86_64::layout;
use crate::bus::Bus;
use crate::devices::keyboard::{I8042_PARTS, Keyboard};
use crate::devices::power::{AcpiPower, POWER_LEN};
use crate::devices::serial::{self, Line, SERIAL_LEN, SerialPort};
use crate::error::Result;
use crate::exit::Exit;

/// COM1, the keyboard's controller and the power registers, where a guest finds them.
pub struct Ports {
    bus: Bus,
    serial: Arc<Mutex<SerialPort>>,
    pub(super) keyboard: Arc<Mutex<Keyboard>>,
}

impl Ports {
    /// What the guest writes to COM1 goes to `output`.
    ///
    /// # Errors
    ///
    /// Those of descriptors.
    pub fn new(output: Box<dyn Write + Send>) -> Result<Ports> {
        Ports::of(output, &serial::Saved::default())
    }

    pub(super) fn of(output: Box<dyn Write + Send>, saved: &serial::Saved) -> Result<Ports> {
        let line = || EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).map_err(no_device);
        let serial = SerialPort::new(Line(line()?), output, saved).map_err(no_device)?;
        let ports = Ports {
            bus: Bus::default(),
            serial: Arc::new(Mutex::new(serial)),
            keyboard: Arc::new(Mutex::new(Keyboard::new(line()?))),
        };
        let mut bus = Bus::default();
        bus.attach(layout::SERIAL_PORT.into(), SERIAL_LEN, ports.serial.clone());
        for part in I8042_PARTS {
            bus.attach_part(layout::I8042_PORT.into(), part, ports.keyboard.clone());
        }
        bus.attach(
            layout::POWER_PORT.into(),
            POWER_LEN,
            Arc::new(Mutex::new(AcpiPower)),
        );
        Ok(Ports { bus, ..ports })
    }

    /// A guest's read from a port.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        self.bus.read(port.into(), data);
    }

    /// A guest's write to a port.
    pub fn write(&self, port: u16, data: &[u8]) -> Option<Exit> {
        self.bus.write(port.into(), data)
    }

    /// Somebody types: takes as much of `bytes` as COM1 has room for, and says how much that is.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bytes.len().min(serial.room());
        serial.input(&bytes[..taken]);
        taken
    }

    /// Somebody presses the three keys; whether the guest has room for them.
    pub fn ctrl_alt_del(&self) -> bool {
        let mut keyboard = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        keyboard.ctrl_alt_del().is_ok()
    }

    /// What a snapshot holds of COM1 and of the keyboard.
    #[must_use]
    pub fn save(&self) -> [Vec<u8>; 2] {
        let serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner).save();
        let keyboard = self
            .keyboard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .save();
        let written = "a state can be written";
        [
            postcard::to_stdvec(&serial).expect(written),
            postcard::to_stdvec(&keyboard).expect(written),
        ]
    }
}
