//! What a hostile driver can do to any device: registers out of order, and chains that are none. Nothing of it may move the
//! device out of its rules, and everything ends with a device that a reset makes whole again.

use proptest::prelude::*;
use virtio_bindings::virtio_config as status;
use virtio_bindings::virtio_mmio as reg;
use vm_memory::{Bytes, GuestAddress};

use super::chain::{Chain, Malformed};
use super::device::{Active, Device};
use super::driver::{BUFFERS, Descriptor, Driver, INDIRECT, MEMORY, NEXT, WRITE};
use super::saved::Kept;

/// Reads what it is sent and says so.
struct Echo;

impl Device for Echo {
    fn kind(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        1 << 5
    }
    fn queue_sizes(&self) -> &[u16] {
        &[256, 256]
    }
    fn config(&self) -> &[u8] {
        b"configuration"
    }
    fn save(&mut self) -> Result<Kept, &'static str> {
        Ok(Kept::Nothing)
    }
    fn notified(&mut self, active: &mut Active, queue: usize) -> Result<(), Malformed> {
        active.drain(queue, |memory, mut chain: Chain| {
            let mut bytes = vec![0; chain.readable().min(4096)];
            chain.read(memory, &mut bytes)?;
            bytes.truncate(chain.writable());
            chain.write(memory, &bytes)?;
            Ok(Some(bytes.len()))
        })
    }
}

/// After a reset the device is as new.
fn works(driver: &mut Driver) {
    driver.restart();
    assert!(!driver.is_broken() && !driver.interrupted());
    driver
        .memory
        .write_slice(b"hello", GuestAddress(BUFFERS))
        .unwrap();
    driver.send(1, &[(BUFFERS, 5, false), (BUFFERS + 0x100, 64, true)]);
    assert_eq!(driver.used(1), (1, 5));
    assert_eq!(driver.bytes(BUFFERS + 0x100, 5), b"hello");
}

#[test]
fn a_driver_that_keeps_to_the_rules_is_served() {
    let mut driver = Driver::start(Echo);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_DEVICE_ID), 42);
    assert!(!driver.interrupted());
    works(&mut driver);
    assert!(driver.interrupted());
    assert_eq!(driver.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    driver.set(reg::VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn steps_cannot_be_left_out_or_taken_back() {
    let ok = status::VIRTIO_CONFIG_S_FEATURES_OK;
    let mut driver = Driver::of(Echo);
    // Straight to the end.
    driver.set(reg::VIRTIO_MMIO_STATUS, 0xf);
    assert_eq!(driver.status(), 0);
    // The second alone, which no snapshot would be believed to hold.
    driver.set(reg::VIRTIO_MMIO_STATUS, status::VIRTIO_CONFIG_S_DRIVER);
    assert_eq!(driver.status(), 0);
    // A feature nobody offered.
    driver.set(reg::VIRTIO_MMIO_STATUS, 1);
    driver.set(reg::VIRTIO_MMIO_STATUS, 3);
    driver.set(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    driver.set(reg::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    driver.set(reg::VIRTIO_MMIO_STATUS, 3 | ok);
    assert_eq!(driver.status(), 3);
    // Not version 1.
    driver.set(reg::VIRTIO_MMIO_DRIVER_FEATURES, 0);
    driver.set(reg::VIRTIO_MMIO_STATUS, 3 | ok);
    assert_eq!(driver.status(), 3);

    let mut driver = Driver::of(Echo);
    driver.agree(0);
    assert_eq!(driver.status(), 3 | ok);
    driver.set(reg::VIRTIO_MMIO_STATUS, 3);
    assert_eq!(driver.status(), 3 | ok, "a step back");
    driver.set(reg::VIRTIO_MMIO_STATUS, 0x80 | 3 | ok);
    assert_eq!(driver.status(), 0x80 | 3 | ok);
    driver.go();
    assert_eq!(
        driver.status(),
        0x80 | 3 | ok,
        "a driver that gave up does not start"
    );
}

#[test]
fn queues_do_not_move_while_the_device_runs() {
    let mut driver = Driver::start(Echo);
    for (register, value) in [
        (reg::VIRTIO_MMIO_QUEUE_READY, 0),
        (reg::VIRTIO_MMIO_QUEUE_NUM, 1),
        (reg::VIRTIO_MMIO_QUEUE_DESC_LOW, 0),
        (reg::VIRTIO_MMIO_QUEUE_DESC_HIGH, 0xffff_ffff),
        (reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 0xffff_ffff),
        (reg::VIRTIO_MMIO_QUEUE_USED_HIGH, 0xffff_ffff),
    ] {
        driver.set(reg::VIRTIO_MMIO_QUEUE_SEL, 1);
        driver.set(register, value);
    }
    assert_eq!(driver.get(reg::VIRTIO_MMIO_QUEUE_READY), 1);
    driver
        .memory
        .write_slice(b"again", GuestAddress(BUFFERS))
        .unwrap();
    driver.send(1, &[(BUFFERS, 5, false), (BUFFERS + 0x100, 64, true)]);
    assert_eq!(driver.used(1), (1, 5));
}

#[test]
fn rings_outside_of_memory_start_nothing() {
    for (register, value) in [
        (reg::VIRTIO_MMIO_QUEUE_DESC_HIGH, 1),
        (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, u32::try_from(MEMORY).unwrap()),
        (
            reg::VIRTIO_MMIO_QUEUE_USED_LOW,
            u32::try_from(MEMORY).unwrap() - 4,
        ),
        (reg::VIRTIO_MMIO_QUEUE_USED_HIGH, u32::MAX),
    ] {
        let mut driver = Driver::of(Echo);
        driver.agree(0);
        driver.set_queue(0);
        driver.set(reg::VIRTIO_MMIO_QUEUE_READY, 0);
        driver.set(register, value);
        driver.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        driver.go();
        assert!(driver.is_broken(), "{register:#x}");
        driver.offer(0, 0);
        assert_eq!(driver.used(0).0, 0);
        works(&mut driver);
    }
}

#[test]
fn chains_that_are_none_stop_the_device_until_a_reset() {
    let at = |at: u64, length: u32, flags: u16, next: u16| Descriptor {
        at,
        length,
        flags,
        next,
    };
    let end = u64::try_from(MEMORY).unwrap();
    let cases: &[(&str, &[Descriptor])] = &[
        ("a loop of one", &[at(BUFFERS, 4, NEXT, 0)]),
        (
            "a loop of two",
            &[at(BUFFERS, 4, NEXT, 1), at(BUFFERS, 4, NEXT, 0)],
        ),
        ("behind the table", &[at(BUFFERS, 4, NEXT, 256)]),
        ("outside of memory", &[at(end, 4, 0, 0)]),
        ("over memory's end", &[at(end - 2, 4, 0, 0)]),
        ("around the end of addresses", &[at(u64::MAX, 4, 0, 0)]),
        (
            "writable first",
            &[at(BUFFERS, 4, NEXT | WRITE, 1), at(BUFFERS, 4, 0, 0)],
        ),
        (
            "an indirect table of no whole descriptors",
            &[at(BUFFERS, 17, INDIRECT, 0)],
        ),
        ("an empty indirect table", &[at(BUFFERS, 0, INDIRECT, 0)]),
        ("an indirect table outside of memory", &[at(end, 16, INDIRECT, 0)]),
        (
            "more bytes than there are",
            &[at(0, 0x8_0000, NEXT, 1), at(0, u32::MAX, 0, 0)],
        ),
    ];
    for (what, descriptors) in cases {
        let mut driver = Driver::start(Echo);
        for (number, descriptor) in (0..).zip(*descriptors) {
            driver.describe(0, number, *descriptor);
        }
        driver.offer(0, 0);
        assert!(driver.is_broken(), "{what}");
        assert!(driver.interrupted(), "{what}");
        assert_eq!(driver.used(0).0, 0, "{what}");
        // It stays so, whatever is offered.
        driver.send(0, &[(BUFFERS, 4, false)]);
        assert_eq!(driver.used(0).0, 0, "{what}");
        works(&mut driver);
    }
}

#[test]
fn an_indirect_table_within_one_is_refused_and_a_single_one_served() {
    let table = BUFFERS + 0x1000;
    let inner = |flags| Descriptor {
        at: BUFFERS,
        length: 16,
        flags,
        next: 0,
    };
    let outer = Descriptor {
        at: table,
        length: 16,
        flags: INDIRECT,
        next: 0,
    };
    let mut driver = Driver::start(Echo);
    driver.describe(0, 0, outer);
    driver.describe_at(table, inner(WRITE));
    driver.offer(0, 0);
    assert_eq!((driver.is_broken(), driver.used(0).0), (false, 1));
    driver.describe_at(table, inner(INDIRECT));
    driver.offer(0, 0);
    assert!(driver.is_broken());
}

#[test]
fn a_table_longer_than_its_queue_is_refused() {
    let table = BUFFERS + 0x1000;
    let mut driver = Driver::start(Echo);
    for (length, broken) in [(256_u16, false), (257, true)] {
        for number in 0..length {
            let last = number + 1 == length;
            let descriptor = Descriptor {
                at: BUFFERS,
                length: 1,
                flags: if last { 0 } else { NEXT },
                next: number + 1,
            };
            driver.describe_at(table + 16 * u64::from(number), descriptor);
        }
        let outer = Descriptor {
            at: table,
            length: 16 * u32::from(length),
            flags: INDIRECT,
            next: 0,
        };
        driver.describe(0, 0, outer);
        driver.offer(0, 0);
        assert_eq!(driver.is_broken(), broken, "{length}");
    }
}

#[test]
fn an_index_further_than_the_ring_is_refused() {
    let mut driver = Driver::start(Echo);
    driver
        .memory
        .write_obj(1000_u16, GuestAddress(Driver::rings(0)[1] + 2))
        .unwrap();
    driver.shared.serve_all();
    assert!(driver.is_broken());
}

#[test]
fn registers_that_are_not_read_as_wholes_read_as_zeroes() {
    use crate::bus::Registers;
    let mut driver = Driver::of(Echo);
    let mut bytes = [7; 8];
    driver.registers.read(0, &mut bytes);
    assert_eq!(bytes, [0; 8]);
    let mut config = [7; 8];
    driver.registers.read(0x100 + 10, &mut config);
    assert_eq!(&config, b"ion\0\0\0\0\0");
    driver.registers.read(0xffc, &mut config[..4]);
    assert_eq!(config[..4], [0; 4]);
}

#[test]
fn a_reset_holds_whatever_another_thread_serves_meanwhile() {
    const UNTOUCHED: [u8; 64] = [0xaa; 64];
    let mut driver = Driver::start(Echo);
    let shared = driver.shared.clone();
    let event_loop = std::thread::spawn(move || {
        for _ in 0..100_000 {
            shared.serve_all();
        }
    });
    while !event_loop.is_finished() {
        driver.put(0, &[(BUFFERS, 5, false), (BUFFERS + 0x100, 64, true)]);
        driver.set(reg::VIRTIO_MMIO_STATUS, 0);
        // What was the device's is the driver's again: there is nobody to write there, also for a chain that it then offers.
        let used = GuestAddress(Driver::rings(0)[2]);
        driver.memory.write_slice(&UNTOUCHED, used).unwrap();
        driver.put(0, &[(BUFFERS, 5, false), (BUFFERS + 0x100, 64, true)]);
        std::thread::yield_now();
        assert_eq!(driver.bytes(used.0, UNTOUCHED.len()), UNTOUCHED);
        driver.restart();
    }
    event_loop.join().unwrap();
    works(&mut driver);
}

#[test]
fn what_lies_over_something_else_harms_its_driver_alone() {
    let [descriptors, available, used] = Driver::rings(0);
    let low = |at: u64| u32::try_from(at).unwrap();
    // The used ring over the available one, over the table; the available one over the table.
    for (register, at) in [
        (reg::VIRTIO_MMIO_QUEUE_USED_LOW, available),
        (reg::VIRTIO_MMIO_QUEUE_USED_LOW, descriptors),
        (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, descriptors),
        (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, used),
    ] {
        let mut driver = Driver::of(Echo);
        driver.agree(0);
        driver.set_queue(0);
        driver.set(reg::VIRTIO_MMIO_QUEUE_READY, 0);
        driver.set(register, low(at));
        driver.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        driver.go();
        for _ in 0..300 {
            driver.send(0, &[(BUFFERS, 5, false), (BUFFERS + 0x100, 64, true)]);
        }
        works(&mut driver);
    }
    // Buffers over the rings they are in, and one buffer that is read and written.
    for target in [descriptors, available, used, BUFFERS] {
        let mut driver = Driver::start(Echo);
        driver
            .memory
            .write_slice(&[0xff; 512], GuestAddress(BUFFERS))
            .unwrap();
        for _ in 0..10 {
            driver.send(0, &[(BUFFERS, 512, false), (target, 512, true)]);
        }
        works(&mut driver);
    }
}

proptest! {
    /// Whatever is written to whatever register, in whatever order, with rings full of anything.
    #[test]
    fn nothing_a_driver_writes_breaks_more_than_its_device(
        writes in prop::collection::vec((0_u32..0x110, any::<u32>(), any::<bool>()), 0..60),
        ring in prop::collection::vec(any::<u8>(), 4096),
        queue in 0_u32..2,
    ) {
        let mut driver = Driver::of(Echo);
        driver.agree(0);
        driver.set_queue(queue);
        driver.memory.write_slice(&ring, GuestAddress(Driver::rings(queue)[0])).unwrap();
        for (register, value, small) in writes {
            driver.set(register & !3, if small { value & 0xf } else { value });
            driver.shared.serve_all();
        }
        driver.go();
        driver.offer(queue, 0);
        works(&mut driver);
    }
}
