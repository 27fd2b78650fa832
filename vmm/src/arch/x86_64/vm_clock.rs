//! The time of day as a page of the guest's memory: VMClock (UAPI.13, uapi-group.org/specifications), a formula from time stamps to
//! seconds. A guest that was restored has no other way to ask for it that every host can answer.
//!
//! The page is written when a machine is made and when it goes on from a snapshot, and at no other time: good for setting a clock
//! that has stood, not for keeping one right.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::layout;
use crate::error::{Error, Result};

/// Bytes of the structure up to its last field that is used here.
const LENGTH: usize = 0x68;
/// Length of the area, the whole page.
pub(super) const SIZE: u32 = 0x1000;
const COUNTER_X86_TSC: u8 = 1;
/// What the host's clock says; of leap seconds it is not asked.
const TIME_UTC: u8 = 0;
/// The formula says nothing yet.
const STATUS_UNKNOWN: u8 = 0;
/// It holds, and nobody corrects it.
const STATUS_FREERUNNING: u8 = 3;
const MSR_TSC: u32 = 0x10;

/// A time stamp counter, what time it is, and how fast it counts.
struct Reading {
    counter: u64,
    /// Since 1970.
    time: Duration,
    hertz: u64,
}

/// For a machine that begins, whose guest asks KVM's clock: the page is there, without a formula.
///
/// # Errors
///
/// [`Error::Memory`].
pub(crate) fn write(memory: &GuestMemoryMmap) -> Result<()> {
    put(memory, 0, None)
}

/// For one that goes on, by the counter of one of its processors, which has its registers.
///
/// # Errors
///
/// [`Error::Kvm`], and as [`write()`].
pub(crate) fn set(memory: &GuestMemoryMmap, vcpu: &VcpuFd) -> Result<()> {
    let entry = kvm_msr_entry {
        index: MSR_TSC,
        ..kvm_msr_entry::default()
    };
    let mut registers = Msrs::from_entries(&[entry]).expect("there is room for one");
    vcpu.get_msrs(&mut registers)
        .map_err(Error::kvm("read a processor's time stamp counter"))?;
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let reading = Reading {
        counter: registers.as_slice()[0].data,
        time,
        // Where KVM does not know there is no formula.
        hertz: vcpu.get_tsc_khz().map_or(0, |khz| u64::from(khz) * 1000),
    };
    // Any number that was not there before.
    let marker = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    put(memory, marker, Some(&reading))
}

fn put(memory: &GuestMemoryMmap, marker: u64, reading: Option<&Reading>) -> Result<()> {
    memory
        .write_slice(&structure(marker, reading), GuestAddress(layout::VM_CLOCK))
        .map_err(Error::write("the guest's clock"))
}

/// `struct vmclock_abi`. The guest does not run: its sequence count, at 0x0c, stays even.
fn structure(marker: u64, reading: Option<&Reading>) -> [u8; LENGTH] {
    let mut page = [0; LENGTH];
    let mut at = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
    at(0x00, b"VCLK");
    at(0x04, &SIZE.to_le_bytes());
    at(0x08, &1_u16.to_le_bytes());
    at(0x0a, &[COUNTER_X86_TSC, TIME_UTC]);
    at(0x10, &marker.to_le_bytes());
    at(0x22, &[STATUS_UNKNOWN]);
    if let Some(reading) = reading.filter(|reading| reading.hertz > 0) {
        let fraction = (u128::from(reading.time.subsec_nanos()) << 64) / 1_000_000_000;
        let period = (1_u128 << 64) / u128::from(reading.hertz);
        at(0x22, &[STATUS_FREERUNNING]);
        at(0x28, &reading.counter.to_le_bytes());
        at(0x30, &period.to_le_bytes()[..8]);
        at(0x48, &reading.time.as_secs().to_le_bytes());
        at(0x50, &fraction.to_le_bytes()[..8]);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_is_in_the_units_of_the_structure() {
        let reading = Reading {
            counter: 7,
            time: Duration::from_millis(1_500),
            hertz: 1 << 31,
        };
        let page = structure(9, Some(&reading));
        let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        assert_eq!(&page[..12], b"VCLK\0\x10\0\0\x01\0\x01\0");
        assert_eq!(page[0x22], STATUS_FREERUNNING);
        assert_eq!((word(0x28), word(0x30)), (7, 1 << 33));
        assert_eq!((word(0x48), word(0x50)), (1, 1 << 63));
        let page = structure(9, None);
        assert_eq!((page[0x10], page[0x22]), (9, STATUS_UNKNOWN));
    }
}
