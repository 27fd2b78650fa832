//! virtio-balloon (virtio 1.2 §5.5): memory that the host takes back from a running guest.
//!
//! ```text
//! target (API) ─► configuration space ─► driver takes pages from its kernel ─► inflate ─► the host has them
//!                                        driver gives pages to its kernel   ─► deflate ─► they come back when touched
//! kernel's free pages ─► reporting ─► the host has them until they are touched        answers ◄─ statistics ◄─ timer
//! ```

mod pages;
mod statistics;

#[cfg(test)]
mod tests;

use std::os::fd::RawFd;

use virtio_queue::QueueT;
use vm_memory::GuestMemoryMmap;

use super::chain::{Chain, Malformed};
use super::device::{Active, Device};
use super::saved::Kept;
use crate::config;
use pages::Reclaim;
use statistics::Poll;
pub(crate) use statistics::Statistics;

/// Feature bits (virtio 1.2 §5.5.3), which virtio-bindings lacks.
const F_STATS_VQ: u32 = 1;
const F_DEFLATE_ON_OOM: u32 = 2;
const F_REPORTING: u32 = 5;

/// Linux wants room for 32 free ranges in a report.
const QUEUE_SIZES: [u16; 5] = [64; 5];
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
const REPORTING: usize = 4;

/// Pages that one request may name. Linux names 256 and FreeBSD 1024; each may cost a system call.
const PAGES_MAX: usize = 1024;
/// Bytes of a page's number.
const NUMBER_LEN: usize = 4;

/// Pages in a MiB.
const PER_MIB: u32 = 256;
/// Length of `struct virtio_balloon_config` up to what we tell: target and actual size in pages.
const CONFIG_LEN: usize = 8;
const ACTUAL_AT: usize = 4;

/// A balloon as the guest sees it.
pub(crate) struct Balloon {
    deflates_on_oom: bool,
    reports: bool,
    statistics: Option<Poll>,
    reclaim: Reclaim,
    config: [u8; CONFIG_LEN],
}

impl Balloon {
    /// # Errors
    ///
    /// Those of `timerfd_create(2)`.
    pub(crate) fn new(config: &config::Balloon) -> std::io::Result<Balloon> {
        let interval_s = config.stats_polling_interval_s;
        let mut balloon = Balloon {
            deflates_on_oom: config.deflate_on_oom,
            reports: config.free_page_reporting,
            statistics: (interval_s > 0).then(|| Poll::new(interval_s)).transpose()?,
            reclaim: Reclaim::default(),
            config: [0; CONFIG_LEN],
        };
        balloon.resize(config.amount_mib);
        Ok(balloon)
    }

    /// How much it should hold from now on. Checked to be less than what pages can be counted.
    pub(crate) fn resize(&mut self, amount_mib: u32) {
        let pages = amount_mib * PER_MIB;
        self.config[..ACTUAL_AT].copy_from_slice(&pages.to_le_bytes());
    }

    /// Asks for statistics now and every so many seconds; whether it may, which is settled at the start.
    pub(crate) fn poll_every(&mut self, interval_s: u16) -> bool {
        match &self.statistics {
            Some(poll) if interval_s > 0 => poll.set_interval(interval_s),
            None if interval_s == 0 => {}
            _ => return false,
        }
        true
    }

    /// What is known of it, when statistics are asked for at all.
    pub(crate) fn statistics(&self) -> Option<Statistics> {
        let poll = self.statistics.as_ref()?;
        let word = |at: usize| u32::from_le_bytes(self.config[at..at + 4].try_into().expect("4 bytes"));
        let (target, actual) = (word(0), word(ACTUAL_AT));
        Some(Statistics {
            target_pages: target,
            actual_pages: actual,
            target_mib: target / PER_MIB,
            actual_mib: actual / PER_MIB,
            guest: poll.latest.clone(),
        })
    }

    /// The queue of free pages. The specification gives each queue its number; Linux before 6.11 numbers those it uses.
    fn reporting_queue(active: &Active) -> usize {
        if active.queues.get(REPORTING).is_some_and(QueueT::ready) {
            REPORTING
        } else {
            STATISTICS + usize::from(active.has(F_STATS_VQ))
        }
    }

    /// Takes the guest's answers, of which there should be one.
    fn hear(poll: &mut Poll, active: &mut Active) -> Result<(), Malformed> {
        if !active.queues[STATISTICS].ready() {
            return Ok(());
        }
        let mut left = active.queues[STATISTICS].size();
        loop {
            while left > 0 {
                let Some(mut chain) = active.pop(STATISTICS)? else {
                    break;
                };
                poll.take(&active.memory, &mut chain)?;
                if let Some(before) = poll.buffer.replace(chain.head) {
                    active.used(STATISTICS, before, 0)?;
                }
                left -= 1;
            }
            active.tell(STATISTICS)?;
            if !active.listen(STATISTICS)? {
                return Ok(());
            }
            if left == 0 {
                active.ring(STATISTICS);
                return Ok(());
            }
        }
    }
}

/// Takes pages the driver gives up.
fn inflate(
    reclaim: &mut Reclaim,
    memory: &GuestMemoryMmap,
    mut chain: Chain,
) -> Result<Option<usize>, Malformed> {
    let length = chain.readable();
    if !length.is_multiple_of(NUMBER_LEN) || length > PAGES_MAX * NUMBER_LEN {
        return Err(Malformed("a request of the balloon is no list of pages"));
    }
    let mut bytes = vec![0; length];
    chain.read(memory, &mut bytes)?;
    let numbers = bytes.chunks_exact(NUMBER_LEN);
    let mut pages: Vec<u32> = numbers
        .map(|number| u32::from_le_bytes(number.try_into().expect("4 bytes")))
        .collect();
    reclaim.take_back(memory, &mut pages)?;
    Ok(Some(0))
}

/// Takes pages that are free for now.
fn report(
    reclaim: &mut Reclaim,
    memory: &GuestMemoryMmap,
    mut chain: Chain,
) -> Result<Option<usize>, Malformed> {
    if chain.readable() > 0 {
        return Err(Malformed("a report of free pages has something to say"));
    }
    let free = chain.writable();
    for slice in chain.take_writable(memory, free)? {
        reclaim.give_up(memory, &slice);
    }
    Ok(Some(0))
}

impl Device for Balloon {
    fn kind(&self) -> u32 {
        virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        let offered = [
            (self.statistics.is_some(), F_STATS_VQ),
            (self.deflates_on_oom, F_DEFLATE_ON_OOM),
            (self.reports, F_REPORTING),
        ];
        let offered = offered.into_iter().filter(|(asked, _)| *asked);
        offered.fold(0, |all, (_, feature)| all | 1 << feature)
    }

    fn queue_sizes(&self) -> &[u16] {
        let count = match (self.reports, &self.statistics) {
            (true, _) => REPORTING + 1,
            (false, Some(_)) => STATISTICS + 1,
            (false, None) => DEFLATE + 1,
        };
        &QUEUE_SIZES[..count]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if offset == ACTUAL_AT as u64 && data.len() == CONFIG_LEN - ACTUAL_AT {
            self.config[ACTUAL_AT..].copy_from_slice(data);
        }
    }

    fn sources(&self) -> Vec<RawFd> {
        self.statistics.iter().map(Poll::timer).collect()
    }

    fn notified(&mut self, active: &mut Active, queue: usize) -> Result<(), Malformed> {
        let reclaim = &mut self.reclaim;
        match (queue, &mut self.statistics) {
            (INFLATE, _) => active.drain(queue, |memory, chain| inflate(reclaim, memory, chain)),
            // The guest may have had them back already: they come when they are touched.
            (DEFLATE, _) => active.drain(queue, |_, _| Ok(Some(0))),
            (STATISTICS, Some(poll)) if active.has(F_STATS_VQ) => Balloon::hear(poll, active),
            (queue, _) if active.has(F_REPORTING) && queue == Balloon::reporting_queue(active) => {
                active.drain(queue, |memory, chain| report(reclaim, memory, chain))
            }
            _ => Ok(()),
        }
    }

    fn ready(&mut self, active: Option<&mut Active>, _timer: usize) -> Result<(), Malformed> {
        let Some(poll) = &mut self.statistics else {
            return Ok(());
        };
        poll.is_due();
        let Some(active) = active else { return Ok(()) };
        if let Some(buffer) = poll.buffer.take() {
            active.used(STATISTICS, buffer, 0)?;
            active.tell(STATISTICS)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(poll) = &mut self.statistics {
            poll.buffer = None;
            poll.latest.clear();
        }
        // Who takes over has all memory again.
        self.config[ACTUAL_AT..].fill(0);
    }

    fn held(&self, queue: usize) -> u16 {
        let buffer = self.statistics.as_ref().and_then(|poll| poll.buffer);
        u16::from(queue == STATISTICS && buffer.is_some())
    }

    fn save(&mut self) -> Result<Kept, &'static str> {
        let actual = self.config[ACTUAL_AT..].try_into().expect("4 bytes");
        Ok(Kept::Balloon {
            actual: u32::from_le_bytes(actual),
        })
    }

    fn restore(&mut self, kept: Kept, _driven: bool) -> Result<(), Malformed> {
        let Kept::Balloon { actual } = kept else {
            return Err(Malformed("it was another kind of device"));
        };
        self.config[ACTUAL_AT..].copy_from_slice(&actual.to_le_bytes());
        Ok(())
    }
}
