//! The timer of a PC (i8254) and the port beside it, before there is one.
//!
//! KVM has a PIT, but a thread of the kernel comes with it, and five grace periods for which the machine's end waits. Linux needs none
//! where it has KVM's clock and ACPI's hardware is reduced; kernels that do calibrate with it come here with their first access, and
//! meet KVM's with the next.
//!
//! ```text
//! guest ──► KVM: no PIT ──► exit ──► Pit: makes KVM's, and does to it what the guest did ──► guest ──► KVM: its PIT
//! ```

use std::sync::Arc;

use kvm_bindings::{KVM_PIT_FLAGS_SPEAKER_DATA_ON, kvm_pit_state2};

use crate::bus::Registers;
use crate::exit::Exit;
use crate::vm::Vm;

/// Its three counters and their control word.
pub(crate) const PIT_LEN: u64 = 4;
/// Where the speaker's port, with the gate of the third counter, lies behind the first counter's.
pub(crate) const SPEAKER: u64 = 0x61 - 0x40;

const CONTROL: u64 = 3;
/// Bits of a control word: which counter, which of its bytes, its mode, decimal digits.
const COUNTER_SHIFT: u8 = 6;
const BYTES_SHIFT: u8 = 4;
const MODE_SHIFT: u8 = 1;
const DECIMAL: u8 = 1;

const SPEAKER_GATE: u8 = 1;
const SPEAKER_DATA: u8 = 2;

/// Stands in for KVM's.
pub(crate) struct Pit {
    vm: Arc<Vm>,
    /// There is none to be had, which has been said.
    failed: bool,
}

impl Pit {
    pub(crate) fn new(vm: Arc<Vm>) -> Pit {
        Pit { vm, failed: false }
    }

    /// Makes KVM's, which then knows of `change`.
    fn create(&mut self, change: impl FnOnce(&mut kvm_pit_state2)) {
        if self.failed {
            return;
        }
        if let Err(e) = self.vm.create_pit().and_then(|()| self.vm.change_pit(change)) {
            self.failed = true;
            log::error!("{:?}", e.told());
        }
    }
}

impl Registers for Pit {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        self.create(|_| {});
        // Nothing counts yet, and the speaker is silent.
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Exit> {
        if let [value] = data {
            self.create(|pit| write(pit, offset, *value));
        }
        None
    }
}

/// What a write does to a PIT of which nothing else is known: commands that read have nothing to keep for later, and a count goes to
/// nowhere before a control word says how (Intel 8254, "programming").
fn write(pit: &mut kvm_pit_state2, offset: u64, value: u8) {
    match offset {
        CONTROL => {
            let bytes = value >> BYTES_SHIFT & 3;
            let Some(channel) = pit.channels.get_mut(usize::from(value >> COUNTER_SHIFT)) else {
                return;
            };
            if bytes == 0 {
                return;
            }
            (channel.rw_mode, channel.read_state, channel.write_state) = (bytes, bytes, bytes);
            let mode = value >> MODE_SHIFT & 7;
            // The highest bit of modes 2 and 3 does not matter.
            channel.mode = if mode > 5 { mode - 4 } else { mode };
            channel.bcd = value & DECIMAL;
        }
        SPEAKER => {
            pit.channels[2].gate = value & SPEAKER_GATE;
            if value & SPEAKER_DATA != 0 {
                pit.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_word_is_for_its_counter() {
        let mut pit = kvm_pit_state2::default();
        // The third counter, both bytes, mode 0; the first, both bytes, mode 2, as some write it, in decimal.
        write(&mut pit, CONTROL, 0xb0);
        write(&mut pit, CONTROL, 0x3d);
        let said = pit
            .channels
            .map(|channel| (channel.rw_mode, channel.write_state, channel.mode, channel.bcd));
        assert_eq!(said, [(3, 3, 2, 1), (0, 0, 0, 0), (3, 3, 0, 0)]);
    }

    #[test]
    fn commands_that_read_change_nothing() {
        let fresh = kvm_pit_state2::default();
        // Keep the first counter's count; keep all counts and states; a count.
        for (offset, value) in [(CONTROL, 0x00), (CONTROL, 0xce), (0, 0x55)] {
            let mut pit = fresh;
            write(&mut pit, offset, value);
            assert_eq!(pit, fresh, "{value:#x}");
        }
    }

    #[test]
    fn the_speakers_port_opens_the_third_counters_gate() {
        let mut pit = kvm_pit_state2::default();
        write(&mut pit, SPEAKER, 0x03);
        assert_eq!(
            (pit.channels[2].gate, pit.flags),
            (1, KVM_PIT_FLAGS_SPEAKER_DATA_ON)
        );
    }
}
