//! The ways a guest ends itself: ACPI's sleep and reset registers, and the keyboard controller's reset line.

use crate::bus::Registers;
use crate::exit::Exit;

/// ACPI's registers in one block (ACPI 6.5 §4.8.3.7): sleep control at 0, sleep status at 1, reset at 2.
#[derive(Debug, Default)]
pub(crate) struct AcpiPower;

/// Offset of the reset register.
pub(crate) const RESET_AT: u8 = 2;
/// What the guest writes there.
pub(crate) const RESET_VALUE: u8 = 1;
/// `SLP_TYP` of S5 in the DSDT.
pub(crate) const S5: u8 = 5;
/// Length of the block.
pub(crate) const POWER_LEN: u64 = 3;

const SLEEP_ENABLE: u8 = 1 << 5;

impl Registers for AcpiPower {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // Never asleep: the wake bit is never set.
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Exit> {
        match (offset, data) {
            (0, [value]) if *value == SLEEP_ENABLE | S5 << 2 => Some(Exit::PoweredOff),
            (offset, [RESET_VALUE]) if offset == u64::from(RESET_AT) => Some(Exit::Reset),
            _ => None,
        }
    }
}

/// The i8042 keyboard controller without a keyboard; ports 0x60 to 0x64.
#[derive(Debug, Default)]
pub(crate) struct KeyboardController;

/// Length of its block of ports.
pub(crate) const I8042_LEN: u64 = 5;

const COMMAND_AT: u64 = 4;
const PULSE_RESET: u8 = 0xfe;

impl Registers for KeyboardController {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // Neither buffer full: a driver that wants to write a command need not wait.
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Exit> {
        (offset == COMMAND_AT && data == [PULSE_RESET]).then_some(Exit::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_words_end_the_guest() {
        assert_eq!(AcpiPower.write(0, &[0x34]), Some(Exit::PoweredOff));
        assert_eq!(AcpiPower.write(0, &[0x14]), None, "not enabled");
        assert_eq!(AcpiPower.write(0, &[0x24]), None, "another state");
        assert_eq!(AcpiPower.write(2, &[1]), Some(Exit::Reset));
        assert_eq!(KeyboardController.write(4, &[0xfe]), Some(Exit::Reset));
        assert_eq!(KeyboardController.write(0, &[0xfe]), None);
        assert_eq!(KeyboardController.write(4, &[0xfe, 0]), None);
    }
}
