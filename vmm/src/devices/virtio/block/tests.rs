//! Requests of a driver against a real file.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use virtio_bindings::virtio_blk as blk;
use virtio_bindings::virtio_mmio::{self as reg, VIRTIO_MMIO_INT_CONFIG};
use vm_memory::{Bytes, GuestAddress};

use super::disk::Disk;
use super::{Block, Throttle};
use crate::config::{RateLimiter, TokenBucket};
use crate::devices::virtio::driver::{BUFFERS, Driver};
use crate::devices::virtio::endpoint::Shared;

const SECTORS: u64 = 64;
const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x1_0000;

fn disk(read_only: bool) -> (tempfile::NamedTempFile, Driver) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..SECTORS * 512)
        .map(|n| u8::try_from(n / 512).unwrap())
        .collect();
    file.as_file().write_all_at(&bytes, 0).unwrap();
    let driver = Driver::start(open(&file, read_only, None));
    (file, driver)
}

fn open(file: &tempfile::NamedTempFile, read_only: bool, limits: Option<RateLimiter>) -> Block {
    let disk = Disk::open(file.path(), "the_name_of_a_disk_is_cut", read_only, true).unwrap();
    Block::new(disk, Throttle::new(limits, Instant::now()).unwrap())
}

/// A request; its status, and the length the device gave, `None` when it did not answer.
fn request(driver: &mut Driver, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> Option<(u8, u32)> {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    driver.memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
    driver.memory.write_obj(0xff_u8, GuestAddress(STATUS)).unwrap();
    let before = driver.used(0).0;
    let mut parts = vec![(HEADER, 16, false)];
    parts.extend(data);
    parts.push((STATUS, 1, true));
    driver.send(0, &parts);
    let (count, length) = driver.used(0);
    (count > before).then(|| (driver.bytes(STATUS, 1)[0], length))
}

const OK: u8 = 0;
const FAILED: u8 = 1;
const UNSUPPORTED: u8 = 2;

#[test]
fn reads_and_writes_reach_the_file() {
    let (file, mut driver) = disk(false);
    let parts = [(DATA, 512, true), (DATA + 0x1000, 1024, true)];
    assert_eq!(
        request(&mut driver, blk::VIRTIO_BLK_T_IN, 7, &parts),
        Some((OK, 1537))
    );
    assert_eq!(driver.bytes(DATA, 512), [7; 512]);
    assert_eq!(driver.bytes(DATA + 0x1000 + 512, 512), [9; 512]);

    driver
        .memory
        .write_slice(&[0xab; 512], GuestAddress(DATA))
        .unwrap();
    let part = [(DATA, 512, false)];
    assert_eq!(
        request(&mut driver, blk::VIRTIO_BLK_T_OUT, 63, &part),
        Some((OK, 1))
    );
    assert_eq!(
        request(&mut driver, blk::VIRTIO_BLK_T_FLUSH, 0, &[]),
        Some((OK, 1))
    );
    let mut bytes = [0; 512];
    file.as_file().read_exact_at(&mut bytes, 63 * 512).unwrap();
    assert_eq!(bytes, [0xab; 512]);
}

#[test]
fn the_serial_number_is_the_name() {
    let (_file, mut driver) = disk(false);
    let got = request(&mut driver, blk::VIRTIO_BLK_T_GET_ID, 0, &[(DATA, 20, true)]);
    assert_eq!(got, Some((OK, 21)));
    assert_eq!(driver.bytes(DATA, 20), b"the_name_of_a_disk_i");
}

#[test]
fn nothing_passes_the_ends_of_the_disk() {
    let (file, mut driver) = disk(false);
    for (sector, length) in [
        (64, 512),
        (63, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (0, 100),
    ] {
        for (kind, writable) in [(blk::VIRTIO_BLK_T_IN, true), (blk::VIRTIO_BLK_T_OUT, false)] {
            let got = request(&mut driver, kind, sector, &[(DATA, length, writable)]);
            assert_eq!(got, Some((FAILED, 1)), "{kind} {sector} {length}");
        }
    }
    assert_eq!(file.as_file().metadata().unwrap().len(), SECTORS * 512);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let (file, mut driver) = disk(true);
    let before = std::fs::read(file.path()).unwrap();
    let range = [0; 16];
    driver.memory.write_slice(&range, GuestAddress(DATA)).unwrap();
    for (kind, length) in [
        (blk::VIRTIO_BLK_T_OUT, 512),
        (blk::VIRTIO_BLK_T_DISCARD, 16),
        (blk::VIRTIO_BLK_T_WRITE_ZEROES, 16),
    ] {
        let got = request(&mut driver, kind, 0, &[(DATA, length, false)]);
        assert_eq!(got, Some((FAILED, 1)), "{kind}");
    }
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

#[test]
fn discards_give_space_back_and_zeroes_read_as_such() {
    let (file, mut driver) = disk(false);
    file.as_file().sync_all().unwrap();
    let blocks = || file.as_file().metadata().unwrap().blocks();
    let before = blocks();
    let mut range = |kind, sector: u64, sectors: u32, flags: u32| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        driver.memory.write_slice(&bytes, GuestAddress(DATA)).unwrap();
        request(&mut driver, kind, 0, &[(DATA, 16, false)])
    };
    let (discard, zero) = (blk::VIRTIO_BLK_T_DISCARD, blk::VIRTIO_BLK_T_WRITE_ZEROES);
    assert_eq!(range(discard, 0, 32, 0), Some((OK, 1)));
    assert!(blocks() < before, "{} blocks", blocks());
    assert_eq!(range(zero, 40, 1, 0), Some((OK, 1)));
    assert_eq!(range(zero, 48, 8, 1), Some((OK, 1)));
    assert_eq!(range(discard, 63, 2, 0), Some((FAILED, 1)), "over the end");
    assert_eq!(range(discard, 0, 0, 0), Some((FAILED, 1)), "nothing");
    assert_eq!(
        range(discard, 0, 8, 1),
        Some((UNSUPPORTED, 1)),
        "a flag that is none here"
    );
    assert_eq!(
        range(zero, 0, 8, 2),
        Some((UNSUPPORTED, 1)),
        "a flag nobody knows"
    );
    let bytes = std::fs::read(file.path()).unwrap();
    for (sector, value) in [
        (0, 0),
        (31, 0),
        (32, 32),
        (39, 39),
        (40, 0),
        (41, 41),
        (48, 0),
        (55, 0),
        (56, 56),
    ] {
        assert_eq!(bytes[sector * 512], value, "sector {sector}");
    }
}

#[test]
fn requests_without_header_or_status_stop_the_disk() {
    let (_file, mut driver) = disk(false);
    driver.send(0, &[(HEADER, 15, false), (STATUS, 1, true)]);
    assert!(driver.is_broken());
    let (_file, mut driver) = disk(false);
    driver.send(0, &[(HEADER, 16, false)]);
    assert!(driver.is_broken());
}

#[test]
fn an_unknown_request_is_answered() {
    let (_file, mut driver) = disk(false);
    assert_eq!(request(&mut driver, 4711, 0, &[]), Some((UNSUPPORTED, 1)));
}

#[test]
fn a_file_cut_short_fails_its_reads() {
    let (file, mut driver) = disk(false);
    file.as_file().set_len(512).unwrap();
    let got = request(&mut driver, blk::VIRTIO_BLK_T_IN, 0, &[(DATA, 1024, true)]);
    assert_eq!(got, Some((FAILED, 1)));
}

#[test]
fn a_slowed_disk_keeps_what_it_may_not_do_yet() {
    let (file, _) = disk(false);
    let bucket = |size, refill_time| TokenBucket {
        size,
        one_time_burst: None,
        refill_time,
    };
    let limits = RateLimiter {
        bandwidth: None,
        ops: Some(bucket(1, 1_000_000)),
    };
    let mut driver = Driver::start(open(&file, false, Some(limits)));
    let part = [(DATA, 512, true)];
    assert_eq!(
        request(&mut driver, blk::VIRTIO_BLK_T_IN, 0, &part),
        Some((OK, 513))
    );
    assert_eq!(request(&mut driver, blk::VIRTIO_BLK_T_IN, 0, &part), None);
    assert!(!driver.is_broken());
}

#[test]
fn what_is_no_disk_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = |path: &std::path::Path| Disk::open(path, "x", true, false).unwrap_err().to_string();
    assert!(
        error(directory.path()).contains("neither"),
        "{}",
        error(directory.path())
    );
    assert!(error(std::path::Path::new("/dev/null")).contains("neither"));
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert!(error(empty.path()).contains("shorter than a sector"));
}

#[test]
fn a_disk_changes_under_its_driver() {
    let (old, new) = (
        tempfile::NamedTempFile::new().unwrap(),
        tempfile::NamedTempFile::new().unwrap(),
    );
    old.as_file().write_all_at(&[1; 512], 0).unwrap();
    new.as_file().write_all_at(&[2; 2048], 0).unwrap();
    let once = TokenBucket {
        size: 1,
        one_time_burst: None,
        refill_time: 1_000_000,
    };
    let limits = |ops| RateLimiter {
        bandwidth: None,
        ops: Some(ops),
    };
    let shared = Shared::new(open(&old, true, Some(limits(once)))).unwrap();
    let mut driver = Driver::shared(shared.clone());
    driver.restart();
    let generation = driver.get(reg::VIRTIO_MMIO_CONFIG_GENERATION);
    let capacity = |driver: &mut Driver| driver.get(reg::VIRTIO_MMIO_CONFIG);
    assert_eq!(capacity(&mut driver), 1);

    let none = tempfile::tempfile().unwrap();
    shared.change(|disk| disk.change_file(none)).unwrap_err();
    assert_eq!((capacity(&mut driver), driver.interrupted()), (1, false));
    shared
        .change(|disk| disk.change_file(new.reopen().unwrap()))
        .unwrap();
    assert_eq!(capacity(&mut driver), 4);
    assert!(driver.interrupted(), "the driver is told");
    assert_eq!(
        driver.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS),
        VIRTIO_MMIO_INT_CONFIG
    );
    assert_ne!(driver.get(reg::VIRTIO_MMIO_CONFIG_GENERATION), generation);

    let part = [(DATA, 512, true)];
    assert_eq!(
        request(&mut driver, blk::VIRTIO_BLK_T_IN, 3, &part),
        Some((OK, 513))
    );
    assert_eq!(driver.bytes(DATA, 512), [2; 512]);
    assert_eq!(
        request(&mut driver, blk::VIRTIO_BLK_T_OUT, 0, &[(DATA, 512, false)]),
        None,
        "the limit"
    );
    let nothing = TokenBucket { size: 0, ..once };
    shared.change(|disk| disk.change_limits(limits(nothing)));
    driver.shared.serve_all();
    assert_eq!(
        driver.bytes(STATUS, 1)[0],
        FAILED,
        "what waited is served, and the new file is as read-only as the old"
    );
    assert_eq!(
        request(&mut driver, blk::VIRTIO_BLK_T_IN, 0, &part),
        Some((OK, 513))
    );
}
