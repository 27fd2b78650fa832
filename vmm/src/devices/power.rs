//! The ways a guest ends itself by ACPI: its sleep and reset registers.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_words_end_the_guest() {
        assert_eq!(AcpiPower.write(0, &[0x34]), Some(Exit::PoweredOff));
        assert_eq!(AcpiPower.write(0, &[0x14]), None, "not enabled");
        assert_eq!(AcpiPower.write(0, &[0x24]), None, "another state");
        assert_eq!(AcpiPower.write(2, &[1]), Some(Exit::Reset));
    }
}
