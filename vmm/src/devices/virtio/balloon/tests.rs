//! What a driver gives up, and what it must not.

#![allow(unsafe_code)] // poll(2) of a descriptor by its number

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use virtio_bindings::virtio_mmio as reg;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::{Balloon, F_REPORTING, F_STATS_VQ};
use crate::bus::Registers;
use crate::config;
use crate::devices::virtio::driver::{BUFFERS, Driver, MEMORY};
use crate::devices::virtio::endpoint::Shared;

const INFLATE: u32 = 0;
const DEFLATE: u32 = 1;
const STATISTICS: u32 = 2;
const REPORTING: u32 = 4;
/// Where lists of pages lie.
const LIST: u64 = BUFFERS;
/// Where the pages lie that are given up, by their number.
const PAGE: u32 = 0xa0;

fn config(interval_s: u16, reporting: bool) -> config::Balloon {
    config::Balloon {
        amount_mib: 3,
        deflate_on_oom: true,
        stats_polling_interval_s: interval_s,
        free_page_hinting: false,
        free_page_reporting: reporting,
    }
}

fn balloon(interval_s: u16, reporting: bool) -> Driver {
    Driver::start(Balloon::new(&config(interval_s, reporting)).unwrap())
}

/// Writes something into `count` pages from this one.
fn fill(driver: &Driver, page: u32, count: u32) {
    for number in page..page + count {
        driver.memory.write_slice(&[0xaa; 4096], at(number)).unwrap();
    }
}

fn at(page: u32) -> GuestAddress {
    GuestAddress(u64::from(page) * 4096)
}

/// Which of `count` pages from this one still hold what was written. The host has the others' memory back.
fn held(driver: &Driver, page: u32, count: u32) -> Vec<u32> {
    let holds = |page: &u32| {
        let resident = is_resident(driver, *page);
        let bytes = driver.bytes(at(*page).0, 4096);
        let value = if resident { 0xaa } else { 0 };
        assert!(bytes.iter().all(|byte| *byte == value), "page {page:#x}");
        resident
    };
    (page..page + count).filter(holds).collect()
}

/// Whether the kernel has memory for a page, without giving it any.
fn is_resident(driver: &Driver, page: u32) -> bool {
    use std::io::{Read, Seek, SeekFrom};
    let host = driver.memory.get_host_address(at(page)).unwrap();
    // Documentation/admin-guide/mm/pagemap.rst: 8 bytes a page, the last bit for one that is there.
    let mut map = std::fs::File::open("/proc/self/pagemap").unwrap();
    map.seek(SeekFrom::Start(host.addr() as u64 / 4096 * 8)).unwrap();
    let mut entry = [0; 8];
    map.read_exact(&mut entry).unwrap();
    u64::from_le_bytes(entry) >> 63 == 1
}

/// Names pages in a request of one descriptor.
fn give(driver: &mut Driver, queue: u32, pages: &[u32]) {
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.memory.write_slice(&bytes, GuestAddress(LIST)).unwrap();
    driver.send(queue, &[(LIST, u32::try_from(bytes.len()).unwrap(), false)]);
}

#[test]
fn the_driver_finds_the_target_and_says_what_it_has() {
    let shared = Shared::new(Balloon::new(&config(1, false)).unwrap()).unwrap();
    let mut driver = Driver::shared(shared.clone());
    driver.restart();
    let words = |driver: &mut Driver| {
        let mut bytes = [0; 8];
        driver.registers.read(0x100, &mut bytes);
        [bytes[0..4].to_vec(), bytes[4..].to_vec()].map(|word| u32::from_le_bytes(word.try_into().unwrap()))
    };
    assert_eq!(words(&mut driver), [768, 0]);
    assert_eq!(driver.registers.write(0x104, &512_u32.to_le_bytes()), None);
    // The target is not the driver's to move, and neither is a part of a number.
    for (offset, bytes) in [
        (0x100, &[9; 4][..]),
        (0x104, &[9; 2]),
        (0x106, &[9; 4]),
        (0x100, &[9; 8]),
    ] {
        assert_eq!(driver.registers.write(offset, bytes), None);
    }
    assert_eq!(words(&mut driver), [768, 512]);

    let generation = driver.get(reg::VIRTIO_MMIO_CONFIG_GENERATION);
    shared.change(|balloon| balloon.resize(1));
    assert_ne!(driver.get(reg::VIRTIO_MMIO_CONFIG_GENERATION), generation);
    assert!(driver.interrupted(), "the driver is told");
    assert_eq!(driver.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    assert_eq!(words(&mut driver), [256, 512]);
    let told = shared.read(Balloon::statistics).unwrap();
    assert_eq!(
        (
            told.target_pages,
            told.actual_pages,
            told.target_mib,
            told.actual_mib
        ),
        (256, 512, 1, 2)
    );
    driver.restart();
    assert_eq!(words(&mut driver), [256, 0], "the next driver has all memory");
}

#[test]
fn pages_in_the_balloon_are_the_hosts() {
    let mut driver = balloon(0, false);
    fill(&driver, PAGE, 16);
    // In no order, one of them twice, over two descriptors that cut a number.
    let pages = [PAGE + 9, PAGE + 1, PAGE + 3, PAGE + 2, PAGE + 1];
    let bytes: Vec<u8> = pages.iter().flat_map(|page: &u32| page.to_le_bytes()).collect();
    driver.memory.write_slice(&bytes, GuestAddress(LIST)).unwrap();
    driver.send(INFLATE, &[(LIST, 6, false), (LIST + 6, 14, false)]);
    assert_eq!(driver.used(INFLATE), (1, 0));
    assert!(driver.interrupted());
    let left: Vec<u32> = (PAGE..PAGE + 16).filter(|page| !pages.contains(page)).collect();
    assert_eq!(held(&driver, PAGE, 16), left);
    // They come back when they are touched.
    give(&mut driver, DEFLATE, &pages);
    assert_eq!(driver.used(DEFLATE), (1, 0));
    fill(&driver, PAGE, 16);
    assert_eq!(held(&driver, PAGE, 16).len(), 16);
}

/// What is dropped of a private map of a file reads as the file again, which is how the guest's memory was long ago.
#[test]
fn pages_of_a_snapshots_file_do_not_come_back_as_they_were() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![0xee; MEMORY], 0).unwrap();
    let memory = crate::memory::map_file(1, file.try_clone().unwrap()).unwrap();
    let device = Balloon::new(&config(0, false)).unwrap();
    let mut driver = Driver::with(Shared::new(device).unwrap(), memory);
    driver.restart();
    fill(&driver, PAGE, 8);
    for pages in [
        &[PAGE + 1, PAGE + 2][..],
        &[PAGE + 2],
        &[PAGE + 1, PAGE + 2, PAGE + 3, PAGE + 6],
    ] {
        fill(&driver, PAGE + 2, 1);
        give(&mut driver, INFLATE, pages);
        assert!(!driver.is_broken());
    }
    assert_eq!(held(&driver, PAGE, 8), [0, 4, 5, 7].map(|page| PAGE + page));
    fill(&driver, PAGE, 8);
    assert_eq!(held(&driver, PAGE, 8).len(), 8);
    let mut before = vec![0; MEMORY];
    file.read_exact_at(&mut before, 0).unwrap();
    assert!(before.iter().all(|byte| *byte == 0xee), "the file is as it was");
}

#[test]
fn pages_that_are_no_memory_stop_the_device() {
    let end = u32::try_from(MEMORY / 4096).unwrap();
    for pages in [
        &[end][..],
        &[u32::MAX],
        &[end - 1, end],
        &[u32::MAX - 1, u32::MAX],
    ] {
        let mut driver = balloon(0, false);
        give(&mut driver, INFLATE, pages);
        assert!(driver.is_broken(), "{pages:x?}");
        assert_eq!(driver.used(INFLATE).0, 0);
        driver.restart();
        fill(&driver, PAGE, 1);
        give(&mut driver, INFLATE, &[PAGE]);
        assert_eq!(held(&driver, PAGE, 1), [0; 0]);
    }
}

#[test]
fn requests_that_are_no_lists_stop_the_device() {
    for (length, broken) in [(4, false), (0, false), (5, true), (4096, false), (4100, true)] {
        let mut driver = balloon(0, false);
        driver.memory.write_slice(&[0; 8192], GuestAddress(LIST)).unwrap();
        // There are zeroes: page 0, where nothing is.
        driver.send(INFLATE, &[(LIST, length, false), (LIST, 16, true)]);
        assert_eq!(driver.is_broken(), broken, "{length}");
    }
    // A list as long as memory, named over and over.
    let mut driver = balloon(0, false);
    let parts = [(0, 0x8_0000, false); 60];
    driver.send(INFLATE, &parts);
    assert!(driver.is_broken());
}

#[test]
fn free_pages_are_the_hosts_until_they_are_touched() {
    // Where the specification and where older drivers have the queue.
    for (interval_s, older) in [(0, STATISTICS), (1, 3)] {
        for queue in [REPORTING, older] {
            let mut driver = Driver::of(Balloon::new(&config(interval_s, true)).unwrap());
            driver.only(&[INFLATE, DEFLATE, queue]);
            fill(&driver, PAGE, 8);
            let from = at(PAGE).0;
            // Pages of which a part alone is free stay.
            driver.send(
                queue,
                &[(from, 8192, true), (from + 3 * 4096 + 1, 3 * 4096, true)],
            );
            assert_eq!(driver.used(queue), (1, 0), "{interval_s} {queue}");
            assert_eq!(held(&driver, PAGE, 8), [PAGE + 2, PAGE + 3, PAGE + 6, PAGE + 7]);
            driver.send(queue, &[(from + 1, 4095, true), (from + 1, 0, true)]);
            assert_eq!(driver.used(queue).0, 2);
            driver.send(queue, &[(LIST, 8, false), (from, 4096, true)]);
            assert!(driver.is_broken());
        }
    }
}

#[test]
fn a_driver_that_reports_nothing_is_not_heard() {
    let mut driver = Driver::start_without(
        Balloon::new(&config(1, true)).unwrap(),
        &[F_REPORTING, F_STATS_VQ],
    );
    fill(&driver, PAGE, 1);
    for queue in [STATISTICS, 3, REPORTING] {
        driver.send(queue, &[(at(PAGE).0, 4096, true)]);
        assert_eq!(driver.used(queue).0, 0);
    }
    assert_eq!(held(&driver, PAGE, 1), [PAGE]);
}

/// Writes statistics and hands them over in the descriptor of this number.
fn answer(driver: &mut Driver, head: u16, numbers: &[(u16, u64)], more: &[u8]) {
    let mut bytes = Vec::new();
    for (tag, value) in numbers {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(more);
    driver.memory.write_slice(&bytes, GuestAddress(LIST)).unwrap();
    let descriptor = crate::devices::virtio::driver::Descriptor {
        at: LIST,
        length: u32::try_from(bytes.len()).unwrap(),
        flags: 0,
        next: 0,
    };
    driver.describe(STATISTICS, head, descriptor);
    driver.add(STATISTICS, head);
    driver.shared.serve_one(STATISTICS);
}

#[test]
fn the_guest_is_asked_when_it_is_time() {
    let shared = Shared::new(Balloon::new(&config(1, false)).unwrap()).unwrap();
    let mut driver = Driver::shared(shared.clone());
    driver.restart();
    let timer = 3;
    let guest = || shared.read(Balloon::statistics).unwrap().guest;
    driver.shared.serve_one(timer);
    assert_eq!((driver.used(STATISTICS).0, guest()), (0, BTreeMap::new()));

    answer(
        &mut driver,
        7,
        &[(4, 1000), (0, 5), (99, 1), (15, u64::MAX)],
        &[1, 2, 3],
    );
    let told = BTreeMap::from([
        ("free_memory", 1000),
        ("swap_in", 5),
        ("direct_reclaim", u64::MAX),
    ]);
    assert_eq!(guest(), told);
    assert_eq!(driver.used(STATISTICS).0, 0, "giving it back asks");
    driver.shared.serve_one(timer);
    assert_eq!(driver.used(STATISTICS), (1, 0));
    assert_eq!(driver.used_entry(STATISTICS, 0), [7, 0]);
    assert!(driver.interrupted());
    driver.shared.serve_one(timer);
    assert_eq!(driver.used(STATISTICS).0, 1, "it has been asked");

    // One answer is held and no more.
    answer(&mut driver, 8, &[(1, 6)], &[]);
    answer(&mut driver, 9, &[(1, 7)], &[]);
    assert_eq!(
        (
            driver.used(STATISTICS).0,
            driver.used_entry(STATISTICS, 1),
            guest()
        ),
        (2, [8, 0], BTreeMap::from([("swap_out", 7)]))
    );
    driver.restart();
    assert_eq!(guest(), BTreeMap::new());
    driver.shared.serve_one(timer);
    assert_eq!(driver.used(STATISTICS).0, 0, "what was held is forgotten");
}

#[test]
fn the_timer_goes_on_with_and_without_a_driver() {
    let shared = Shared::new(Balloon::new(&config(u16::MAX, false)).unwrap()).unwrap();
    let timer = shared.read(|balloon| balloon.statistics.as_ref().unwrap().timer());
    let is_due = |patience_ms| {
        let mut asked = libc::pollfd {
            fd: timer,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure, which outlives the call.
        unsafe { libc::poll(&raw mut asked, 1, patience_ms) == 1 }
    };
    let mut driver = Driver::shared(shared.clone());
    for running in [false, true] {
        assert!(is_due(60_000), "{running}");
        driver.shared.serve_one(3);
        assert!(!is_due(0), "{running}");
        driver.restart();
        shared.change(|balloon| balloon.poll_every(u16::MAX));
    }
}

#[test]
fn statistics_are_settled_at_the_start() {
    let mut with = Balloon::new(&config(1, false)).unwrap();
    assert!(with.poll_every(5) && !with.poll_every(0));
    let mut without = Balloon::new(&config(0, false)).unwrap();
    assert!(!without.poll_every(5) && without.poll_every(0));
    assert_eq!(without.statistics(), None);
}

#[test]
fn what_is_told_has_firecrackers_names() {
    let shared = Shared::new(Balloon::new(&config(1, false)).unwrap()).unwrap();
    let mut driver = Driver::shared(shared.clone());
    driver.restart();
    answer(&mut driver, 0, &[(6, 106), (10, 110)], &[]);
    let told = serde_json::to_value(shared.read(Balloon::statistics)).unwrap();
    let expected = serde_json::json!({
        "target_pages": 768, "actual_pages": 0, "target_mib": 3, "actual_mib": 0,
        "available_memory": 106, "oom_kill": 110,
    });
    assert_eq!(told, expected);
}

proptest! {
    /// Whatever is in the lists and wherever they lie, what was not named stays, and a reset makes the balloon whole.
    #[test]
    fn nothing_but_what_is_named_is_taken(
        lists in prop::collection::vec(
            (0_u32..5, prop::collection::vec(prop_oneof![8 => PAGE..PAGE + 32, 1 => any::<u32>()], 0..40), any::<bool>()),
            0..8,
        ),
    ) {
        let mut driver = balloon(1, true);
        fill(&driver, PAGE, 48);
        for (queue, pages, writable) in &lists {
            let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
            driver.memory.write_slice(&bytes, GuestAddress(LIST)).unwrap();
            driver.send(*queue, &[(LIST, u32::try_from(bytes.len()).unwrap(), *writable)]);
        }
        prop_assert_eq!(held(&driver, PAGE + 32, 16).len(), 16);
        driver.restart();
        give(&mut driver, INFLATE, &[PAGE + 40]);
        prop_assert!(!driver.is_broken());
        prop_assert_eq!(held(&driver, PAGE + 40, 1).len(), 0);
    }
}
