//! Devices that go on from what was saved of others, and what cannot have been saved of any.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use proptest::prelude::*;
use virtio_bindings::virtio_config as status;
use virtio_bindings::virtio_mmio as reg;
use vm_memory::{Bytes, GuestAddress};

use super::balloon::Balloon;
use super::block::{Block, Disk};
use super::driver::{BUFFERS, Descriptor, Driver};
use super::rng::Rng;
use super::saved::{At, Kept, Running, Saved};
use super::throttle::Throttle;
use super::vsock::{Peers, Vsock};
use crate::bus::Registers;
use crate::config;

fn rng() -> Rng {
    Rng::new(Throttle::new(None, Instant::now()).unwrap())
}

fn balloon() -> Balloon {
    let config = config::Balloon {
        amount_mib: 1,
        deflate_on_oom: false,
        stats_polling_interval_s: 60,
        free_page_hinting: false,
        free_page_reporting: false,
    };
    Balloon::new(&config).unwrap()
}

/// Through the bytes of a file.
fn saved(driver: &Driver) -> Saved {
    let saved = driver.registers.save().unwrap();
    let bytes = postcard::to_stdvec(&saved).unwrap();
    let read: Saved = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(read, saved);
    read
}

#[test]
fn a_device_goes_on_where_it_was() {
    let mut driver = Driver::start(rng());
    driver.send(0, &[(BUFFERS, 8, true)]);
    // One the device has not seen.
    driver.add(0, 0);
    let mut second = driver.resume(rng(), &saved(&driver)).unwrap();
    assert_eq!(second.used(0), (2, 8), "what was in the queue is served");
    assert!(second.interrupted());
    assert_eq!(second.status(), driver.status());
    second.send(0, &[(BUFFERS, 16, true)]);
    assert_eq!((second.used(0), second.is_broken()), ((3, 16), false));
}

#[test]
fn an_interrupt_nobody_heard_comes_again() {
    let mut driver = Driver::start(rng());
    driver.send(0, &[(BUFFERS, 8, true)]);
    let unheard = saved(&driver);
    assert!(driver.resume(rng(), &unheard).unwrap().interrupted());
    driver.set(reg::VIRTIO_MMIO_INTERRUPT_ACK, 1);
    let heard = saved(&driver);
    assert!(!driver.resume(rng(), &heard).unwrap().interrupted());
}

#[test]
fn a_driver_goes_on_with_its_steps() {
    let mut driver = Driver::of(rng());
    driver.agree(0);
    let mut second = driver.resume(rng(), &saved(&driver)).unwrap();
    second.set_queue(0);
    second.go();
    let running = status::VIRTIO_CONFIG_S_DRIVER_OK;
    assert!(second.status() & running != 0 && !second.is_broken());
    second.shared.serve_all();
}

#[test]
fn a_broken_device_stays_so_until_its_reset() {
    let mut driver = Driver::start(rng());
    driver.send(0, &[(BUFFERS, 8, false)]);
    assert!(driver.is_broken());
    let mut second = driver.resume(rng(), &saved(&driver)).unwrap();
    assert!(second.is_broken());
    second.restart();
    second.send(0, &[(BUFFERS, 8, true)]);
    assert_eq!(second.used(0), (1, 8));
}

#[test]
fn a_buffer_the_device_held_is_in_the_queue_again() {
    const STATISTICS: u32 = 2;
    const ANSWER: Descriptor = Descriptor {
        at: BUFFERS,
        length: 10,
        flags: 0,
        next: 0,
    };
    let mut driver = Driver::start(balloon());
    // The balloon keeps it, to give it back when it asks. That takes a minute.
    let answer = |driver: &mut Driver| {
        driver.describe(STATISTICS, 0, ANSWER);
        driver.add(STATISTICS, 0);
        driver.shared.serve_one(STATISTICS);
    };
    answer(&mut driver);
    assert_eq!(driver.used(STATISTICS).0, 0);
    assert_eq!(driver.registers.write(0x104, &77_u32.to_le_bytes()), None);
    let state = saved(&driver);
    let mut second = driver.resume(balloon(), &state).unwrap();
    assert_eq!(second.used(STATISTICS).0, 0, "held again, not given back");
    let mut actual = [0; 4];
    second.registers.read(0x104, &mut actual);
    assert_eq!(actual, [77, 0, 0, 0]);
    assert_eq!(saved(&second), state);
    // The driver's next answer: the first buffer comes back.
    answer(&mut second);
    assert_eq!(second.used(STATISTICS).0, 1);
}

#[test]
fn a_disk_is_the_one_it_was() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let disk = |sectors: u64| {
        file.as_file().set_len(sectors * 512).unwrap();
        let disk = Disk::open(file.path(), "d", false, false).unwrap();
        Block::new(disk, Throttle::new(None, Instant::now()).unwrap())
    };
    let driver = Driver::start(disk(8));
    let state = saved(&driver);
    driver.resume(disk(8), &state).unwrap();
    let refused = driver.resume(disk(9), &state).err().expect("another size");
    assert!(refused.0.contains("another size"), "{refused}");
    assert!(driver.resume(rng(), &state).is_err(), "another device");
}

#[test]
fn a_guest_hears_that_its_connections_are_gone() {
    const RX: u32 = 0;
    const EVENTS: u32 = 2;
    let directory = tempfile::tempdir().unwrap();
    let device = |name: &str| {
        let path = directory.path().join(name);
        Vsock::new(3, &path, Peers::At(path.clone())).unwrap()
    };
    let (first, _file) = device("first");
    let mut driver = Driver::start(first);
    driver.send(EVENTS, &[(BUFFERS, 8, true)]);
    assert_eq!(driver.used(EVENTS).0, 0, "there is nothing to be told yet");
    driver
        .memory
        .write_slice(&[0xff; 8], GuestAddress(BUFFERS))
        .unwrap();
    let (second, _file) = device("second");
    let second = driver.resume(second, &saved(&driver)).unwrap();
    assert_eq!(second.used(EVENTS), (1, 4));
    assert_eq!(second.bytes(BUFFERS, 8), [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    assert!(second.interrupted());

    // One that has no room for it hears of it when it has, and only then.
    let (third, _file) = device("third");
    let mut third = second.resume(third, &saved(&second)).unwrap();
    assert_eq!(third.used(EVENTS).0, 1);
    third.send(EVENTS, &[(BUFFERS, 8, true)]);
    assert_eq!(third.used(EVENTS).0, 2);
    third.send(EVENTS, &[(BUFFERS, 8, true)]);
    assert_eq!(third.used(EVENTS).0, 2);

    // Who connects before it has heard would be cut off with the others.
    let (fourth, _file) = device("fourth");
    let mut fourth = third.resume(fourth, &saved(&third)).unwrap();
    assert_eq!(fourth.used(EVENTS).0, 3);
    let mut program = UnixStream::connect(directory.path().join("fourth")).unwrap();
    program.write_all(b"CONNECT 9\n").unwrap();
    fourth.send(RX, &[(BUFFERS + 0x1000, 0x2000, true)]);
    assert_eq!(fourth.used(RX).0, 0);
    fourth.send(EVENTS, &[(BUFFERS, 8, true)]);
    assert_eq!((fourth.used(RX).0, fourth.used(EVENTS).0), (1, 3));
}

/// What a device with a running driver was saved as, with something else in one place.
fn crafted() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec(
        (
            any::<prop::sample::Index>().prop_map(|at| at.index(200)),
            any::<u8>(),
        ),
        1..6,
    )
}

proptest! {
    /// It is refused, or is a device like any other.
    #[test]
    fn no_state_breaks_a_device(changes in crafted(), used in any::<u16>()) {
        let mut driver = Driver::start(rng());
        driver.send(0, &[(BUFFERS, 8, true)]);
        let mut state = saved(&driver);
        state.running = Some(Running(vec![At { next_available: used, next_used: used, told: 0 }]));
        let mut bytes = postcard::to_stdvec(&state).unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(state) = postcard::from_bytes::<Saved>(&bytes)
            && let Ok(mut second) = driver.resume(rng(), &state)
        {
            second.send(0, &[(BUFFERS, 8, true)]);
            second.status();
            second.restart();
            second.send(0, &[(BUFFERS, 8, true)]);
            prop_assert_eq!((second.used(0), second.is_broken()), ((1, 8), false));
        }
    }
}

#[test]
fn what_no_driver_can_have_done_is_refused() {
    let driver = Driver::start(rng());
    let good = saved(&driver);
    let queue = |driver: &mut Driver, register: u32, value: u32| {
        // A driver that sets it up so and does not start the device.
        driver.set(reg::VIRTIO_MMIO_STATUS, 0);
        driver.agree(0);
        driver.set_queue(0);
        driver.set(reg::VIRTIO_MMIO_QUEUE_READY, 0);
        driver.set(register, value);
        driver.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        saved(driver).queues
    };
    let mut other = Driver::of(rng());
    let outside = queue(&mut other, reg::VIRTIO_MMIO_QUEUE_USED_LOW, 0x20_0000);
    let far = queue(&mut other, reg::VIRTIO_MMIO_QUEUE_DESC_HIGH, 0xffff_ffff);
    let with = |change: &dyn Fn(&mut Saved)| {
        let mut state = good.clone();
        change(&mut state);
        driver.resume(rng(), &state).err().map(|refused| refused.0)
    };
    assert_eq!(with(&|_| {}), None);
    for (words, change) in [
        (
            "another kind",
            &(|s: &mut Saved| s.kind = 1) as &dyn Fn(&mut Saved),
        ),
        ("another kind", &|s| s.offered ^= 1 << 29),
        ("its status", &|s| s.chosen |= 1 << 40),
        ("its status", &|s| s.chosen = 0),
        ("its status", &|s| s.status = 4),
        ("its status", &|s| s.status |= 0x100),
        ("its status", &|s| s.status = 3),
        ("its status", &|s| s.running = None),
        ("its status", &|s| s.interrupt.broken = true),
        ("number of queues", &|s| s.queues.clear()),
        ("number of queues", &|s| s.running = Some(Running(Vec::new()))),
        ("outside of the memory", &|s| s.queues.clone_from(&outside)),
        ("outside of the memory", &|s| s.queues.clone_from(&far)),
        ("another kind", &|s| s.kept = Kept::Vsock { next_port: 1 }),
    ] {
        let said = with(change).unwrap_or("nothing");
        assert!(said.contains(words), "{said} instead of {words}");
    }
}
