//! What a guest does when it was restored from a snapshot: other random numbers than its copies, and the time of day.
//!
//! Linux' `vmgenid` does the first where it is built, which Debian's cloud kernel of 2023 is not, and no driver of that kernel does the
//! second. Both need but a look at two places of memory that the DSDT names: the generation id, 16 random bytes that are others
//! after each restore, and the page of VMClock, a formula for the time. Nothing wakes a program for them, so it is looked once a second, and
//! before a connection is taken: who asks for something after a restore finds it done.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_settime};

use crate::error::{At, Result};

const TABLE: &str = "/sys/firmware/acpi/tables/DSDT";
/// All of it that is no memory of the kernel's can be read there, whatever `CONFIG_STRICT_DEVMEM` says.
const MEMORY: &str = "/dev/mem";
const PERIOD: Duration = Duration::from_secs(1);

type Id = [u8; 16];

/// Knows the machine the guest believes to be.
#[derive(Debug)]
pub struct Watch {
    memory: File,
    places: Places,
    known: Id,
    due: Instant,
}

/// Addresses of memory.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    id: u64,
    clock: Option<u64>,
}

impl Watch {
    /// None on a machine without a generation id. Why it could not be read is told to the console, and not fatal: a host that restores
    /// guests of such a kernel has to send [`Reseed`](crate::protocol::Request::Reseed) and
    /// [`SyncClock`](crate::protocol::Request::SyncClock).
    #[must_use]
    pub fn begin() -> Option<Watch> {
        let places = places(&std::fs::read(TABLE).ok()?)?;
        let begun = File::open(MEMORY).at("open", MEMORY).and_then(|memory| {
            let mut watch = Watch {
                memory,
                places,
                known: Id::default(),
                due: Instant::now() + PERIOD,
            };
            watch.known = watch.id()?;
            Ok(watch)
        });
        begun.map_err(|e| tell("restores will go unnoticed", &e)).ok()
    }

    /// When to look again.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Whether that is now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    /// Looks, and does what there is to do.
    pub fn look(&mut self) {
        self.due = Instant::now() + PERIOD;
        // It could be read before.
        let Ok(id) = self.id() else { return };
        if id == self.known {
            return;
        }
        self.known = id;
        // The id is as random as any key, and nobody but the kernel and the host's knows it.
        let seeded = berth_sys::random::reseed(&id).at("seed", "the kernel's random numbers");
        if let Err(e) = seeded {
            tell("restored, with the random numbers of other guests", &e);
        }
        if let Err(e) = self.set_clock() {
            tell("restored, with the time of the snapshot", &e);
        }
    }

    fn id(&self) -> Result<Id> {
        let mut id = Id::default();
        self.memory
            .read_exact_at(&mut id, self.places.id)
            .at("read", "the generation id")?;
        Ok(id)
    }

    fn set_clock(&self) -> Result<()> {
        let Some(clock) = self.places.clock else {
            return Ok(());
        };
        let mut page = [0; CLOCK_LENGTH];
        self.memory
            .read_exact_at(&mut page, clock)
            .at("read", "the machine's clock")?;
        let Some(time) = time(&page, berth_sys::tsc::now()) else {
            return Ok(());
        };
        set(time)
    }
}

/// Sets the time of day, as seconds since 1970.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_TIME`.
pub fn set(since: Duration) -> Result<()> {
    let time = Timespec {
        tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: since.subsec_nanos().into(),
    };
    clock_settime(ClockId::Realtime, time).at("set", "the clock")
}

fn tell(what: &str, e: &crate::error::Error) {
    eprintln!("berth-guest: {what}: {}", e.chain());
}

/// Finds both in a DSDT like berth-vmm's, whose values are plain numbers: a name `ADDR` with a package of two halves behind the
/// generation id's (`VM_Gen_Counter`), a `Memory32Fixed` behind the clock's.
fn places(table: &[u8]) -> Option<Places> {
    let mut rest = behind(behind(table, b"VM_Gen_Counter")?, b"ADDR\x12")?;
    // The length of the package, which is short, and the number of its elements.
    rest = rest.get(2..)?;
    let low = integer(&mut rest)?;
    let high = integer(&mut rest)?;
    Some(Places {
        id: high << 32 | low,
        clock: behind(table, b"VMCLOCK").and_then(fixed_memory),
    })
}

fn behind<'a>(table: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    let at = table.windows(what.len()).position(|bytes| bytes == what)?;
    Some(&table[at + what.len()..])
}

/// Takes one integer (ACPI 6.5 §20.2.3).
fn integer(rest: &mut &[u8]) -> Option<u64> {
    let (prefix, bytes) = rest.split_first()?;
    let length = match prefix {
        // Zero and One are their own opcodes.
        0x00 | 0x01 => {
            *rest = bytes;
            return Some((*prefix).into());
        }
        0x0a => 1,
        0x0b => 2,
        0x0c => 4,
        0x0e => 8,
        _ => return None,
    };
    let (value, after) = bytes.split_at_checked(length)?;
    *rest = after;
    Some(
        value
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    )
}

/// The base of the first 32-bit fixed memory range (ACPI 6.5 §6.4.3.4): tag, length, access, base.
fn fixed_memory(table: &[u8]) -> Option<u64> {
    let base = behind(table, &[0x86, 0x09, 0x00])?.get(1..5)?;
    Some(u32::from_le_bytes(base.try_into().ok()?).into())
}

/// Of `struct vmclock_abi` (UAPI.13), up to the time.
const CLOCK_LENGTH: usize = 0x58;

/// The time at this time stamp, since 1970; none where the page has no formula for it.
fn time(page: &[u8; CLOCK_LENGTH], counter: u64) -> Option<Duration> {
    const UTC_BY_TSC: [u8; 4] = [1, 0, 1, 0];
    const SYNCHRONIZED_OR_FREERUNNING: [u8; 2] = [2, 3];
    let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"));
    let usable = page.starts_with(b"VCLK")
        && page[8..12] == UTC_BY_TSC
        && SYNCHRONIZED_OR_FREERUNNING.contains(&page[0x22])
        // Nobody is writing it.
        && page[0x0c] & 1 == 0;
    if !usable {
        return None;
    }
    let shift = u32::from(page[0x27]);
    let elapsed = u128::from(counter.checked_sub(word(0x28))?) * u128::from(word(0x30));
    let fraction = elapsed.checked_shr(shift)?.checked_add(word(0x50).into())?;
    let seconds = u64::try_from(fraction >> 64).ok()?.checked_add(word(0x48))?;
    let nanoseconds = ((fraction & u128::from(u64::MAX)) * 1_000_000_000) >> 64;
    Some(Duration::new(seconds, u32::try_from(nanoseconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_a_table_and_not_in_half_of_one() {
        let mut table = b"DSDT..\x08_CID\x0dVM_Gen_Counter\0\x08ADDR\x12\x07\x02\x0c\0\xf0\x0f\0\0".to_vec();
        let id = 0xf_f000;
        assert_eq!(places(&table), Some(Places { id, clock: None }));
        assert!((0..table.len()).all(|end| places(&table[..end]).is_none()));
        table
            .extend(b"\x08_HID\x0dVMCLOCK\0\x08_CRS\x11\x11\x0a\x0e\x86\x09\0\0\0\xe0\x0f\0\0\x10\0\0\x79\0");
        let clock = Some(0xf_e000);
        assert_eq!(places(&table), Some(Places { id, clock }));
    }

    #[test]
    fn a_high_address_has_two_halves() {
        let table = b"VM_Gen_Counter\0ADDR\x12\x0c\x02\x0b\x34\x12\x01";
        assert_eq!(places(table).map(|places| places.id), Some(0x1_0000_1234));
    }

    #[test]
    fn the_time_is_that_of_the_page_and_what_was_counted_since() {
        let mut page = [0; CLOCK_LENGTH];
        page[..4].copy_from_slice(b"VCLK");
        page[8..12].copy_from_slice(&[1, 0, 1, 0]);
        page[0x28..0x30].copy_from_slice(&1000_u64.to_le_bytes());
        // 2 GHz: 2^33 parts of 2^-64 seconds are a tick of 2^31 Hz.
        page[0x30..0x38].copy_from_slice(&(1_u64 << 33).to_le_bytes());
        page[0x48..0x50].copy_from_slice(&5_u64.to_le_bytes());
        page[0x50..0x58].copy_from_slice(&(1_u64 << 63).to_le_bytes());
        assert_eq!(time(&page, 2000), None, "the status is unknown");
        page[0x22] = 3;
        let later = 1000 + 3 * (1 << 30);
        assert_eq!(time(&page, later), Some(Duration::from_secs(7)));
        assert_eq!(time(&page, 999), None, "before it was written");
        page[0x27] = 1;
        assert_eq!(time(&page, later), Some(Duration::from_millis(6250)));
        page[0x0c] = 1;
        assert_eq!(time(&page, later), None, "it is being written");
    }
}
