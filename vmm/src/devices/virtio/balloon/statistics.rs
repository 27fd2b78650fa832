//! What the guest's kernel says of its memory, asked for at intervals.
//!
//! The driver hands over a buffer of numbers; giving it back asks for the next (virtio 1.2 §5.5.6.3).

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use serde::Serialize;
use vm_memory::GuestMemoryMmap;

use crate::devices::virtio::chain::{Chain, Malformed};

/// The numbers by their tags (virtio 1.2 §5.5.6.4 and Linux' `virtio_balloon.h`), under Firecracker's names.
const NAMES: [&str; 16] = [
    "swap_in",
    "swap_out",
    "major_faults",
    "minor_faults",
    "free_memory",
    "total_memory",
    "available_memory",
    "disk_caches",
    "hugetlb_allocations",
    "hugetlb_failures",
    "oom_kill",
    "alloc_stall",
    "async_scan",
    "direct_scan",
    "async_reclaim",
    "direct_reclaim",
];

/// Bytes of a number with its tag before it.
const NUMBER_LEN: usize = 10;
/// So many numbers of one buffer are read. Drivers have as many as there are tags.
const NUMBERS_MAX: usize = 64;

/// What is told of a balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Statistics {
    pub(super) target_pages: u32,
    pub(super) actual_pages: u32,
    pub(super) target_mib: u32,
    pub(super) actual_mib: u32,
    /// What the guest said the last time.
    #[serde(flatten)]
    pub(super) guest: BTreeMap<&'static str, u64>,
}

/// Asks the guest again and again.
pub(super) struct Poll {
    timer: OwnedFd,
    /// The buffer that asks when it is given back.
    pub(super) buffer: Option<u16>,
    /// The last answer.
    pub(super) latest: BTreeMap<&'static str, u64>,
}

impl Poll {
    /// Asks every `interval_s` seconds, at least one.
    ///
    /// # Errors
    ///
    /// Those of `timerfd_create(2)`.
    pub(super) fn new(interval_s: u16) -> std::io::Result<Poll> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let poll = Poll {
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            buffer: None,
            latest: BTreeMap::new(),
        };
        poll.set_interval(interval_s);
        Ok(poll)
    }

    /// Asks now, and every so many seconds.
    pub(super) fn set_interval(&self, interval_s: u16) {
        let times = Itimerspec {
            it_interval: Timespec {
                tv_sec: interval_s.into(),
                tv_nsec: 0,
            },
            // The least there is; nothing would stop the timer.
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: 1,
            },
        };
        // Fails for times that are none alone.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times);
    }

    /// Readable when it is time to ask.
    pub(super) fn timer(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// It is time; the timer goes on.
    pub(super) fn is_due(&self) {
        // How often it was time does not matter. Without this it would be so once: the kernel sets a timer again when it is
        // read (timerfd_create(2)).
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
    }

    /// Reads an answer. Tags nobody knows are passed over.
    pub(super) fn take(&mut self, memory: &GuestMemoryMmap, chain: &mut Chain) -> Result<(), Malformed> {
        self.latest.clear();
        let count = (chain.readable() / NUMBER_LEN).min(NUMBERS_MAX);
        for _ in 0..count {
            let mut bytes = [0; NUMBER_LEN];
            chain.read(memory, &mut bytes)?;
            let (tag, value) = bytes.split_at(2);
            let tag = u16::from_le_bytes(tag.try_into().expect("2 bytes"));
            if let Some(name) = NAMES.get(usize::from(tag)) {
                let value = u64::from_le_bytes(value.try_into().expect("8 bytes"));
                self.latest.insert(name, value);
            }
        }
        Ok(())
    }
}
