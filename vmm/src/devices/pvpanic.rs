//! Where a guest's kernel tells that it has panicked: QEMU's pvpanic (docs/specs/pvpanic.rst there), one port.
//!
//! The kernel's driver (`pvpanic-mmio`) tells once the panic's words are on the console. Without the driver a panic is what the
//! command line makes of it: with `panic=` a reset.

use crate::bus::Registers;
use crate::exit::Exit;

/// One port.
pub(crate) const PVPANIC_LEN: u64 = 1;

/// The kernel has panicked. It is read as what can be told, and written to tell it; that a crash kernel takes over instead, which
/// is the next bit, is nothing for a monitor to act on.
const PANICKED: u8 = 1;

/// Has nothing to remember.
#[derive(Debug, Default)]
pub(crate) struct PvPanic;

impl Registers for PvPanic {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let [first, ..] = data {
            *first = PANICKED;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Option<Exit> {
        matches!(data, [told] if told & PANICKED != 0).then_some(Exit::Panicked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_guest_and_a_crash_kernel_does_not() {
        let mut capabilities = [0xff];
        PvPanic.read(0, &mut capabilities);
        assert_eq!(capabilities, [PANICKED]);
        assert_eq!(PvPanic.write(0, &[1]), Some(Exit::Panicked));
        assert_eq!(PvPanic.write(0, &[2]), None);
    }
}
