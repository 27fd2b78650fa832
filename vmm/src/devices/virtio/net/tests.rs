//! Frames between a driver and a real TAP.

use std::time::Instant;

use proptest::prelude::*;
use virtio_bindings::virtio_net as net;
use vm_memory::{Bytes, GuestAddress};

use super::wire::{self, NAME, SOCKET_HEADER_LEN, Wire};
use super::{HEADER_LEN, Net, Tap};
use crate::config::{MacAddress, RateLimiter, TokenBucket};
use crate::devices::virtio::driver::{BUFFERS, Descriptor, Driver, NEXT, WRITE};
use crate::devices::virtio::endpoint::Shared;
use crate::devices::virtio::throttle::Throttle;

const RX: u32 = 0;
const TX: u32 = 1;
/// The number of the TAP among the device's events: behind two bells.
const TAP: u32 = 2;
/// What a driver leaves out that wants frames no longer than a wire's.
const SEGMENTS: [u32; 4] = [
    net::VIRTIO_NET_F_GUEST_TSO4,
    net::VIRTIO_NET_F_GUEST_TSO6,
    net::VIRTIO_NET_F_GUEST_ECN,
    net::VIRTIO_NET_F_GUEST_UFO,
];

fn card(tap: Tap, receive: Option<RateLimiter>, send: Option<RateLimiter>) -> Net {
    let throttle = |limits| Throttle::new(limits, Instant::now()).unwrap();
    let address = MacAddress([6, 0, 0xac, 0x10, 0, 2]);
    Net::new(tap, Some(address), Some(1400), throttle(receive), throttle(send))
}

/// An operation now and the next after a long time.
fn once() -> Option<RateLimiter> {
    let bucket = TokenBucket {
        size: 1,
        one_time_burst: None,
        refill_time: 1_000_000,
    };
    Some(RateLimiter {
        bandwidth: None,
        ops: Some(bucket),
    })
}

/// A frame of no protocol anybody knows.
fn frame(length: usize, fill: u8) -> Vec<u8> {
    let mut frame = vec![fill; length];
    frame[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 6, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame
}

/// A header that says: cut what follows into TCP segments of 1448 bytes.
const TO_BE_CUT: [u8; SOCKET_HEADER_LEN] = [1, 1, 54, 0, 0xa8, 0x05, 34, 0, 16, 0];

/// A TCP segment over IPv4 with so much in it.
fn segment(payload: u16) -> Vec<u8> {
    let mut frame = frame(54 + usize::from(payload), 7);
    frame[12..14].copy_from_slice(&[8, 0]);
    let mut ip = [
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    ip[2..4].copy_from_slice(&(40 + payload).to_be_bytes());
    frame[14..34].copy_from_slice(&ip);
    frame[34..54].copy_from_slice(&[0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    frame
}

/// Puts `count` buffers of `length` bytes into the queue, one behind the other in memory, and lets the device look.
fn add_buffers(driver: &mut Driver, first: u16, count: u16, length: u32) {
    for number in first..first + count {
        let at = BUFFERS + u64::from(number) * u64::from(length);
        let descriptor = Descriptor {
            at,
            length,
            flags: WRITE,
            next: 0,
        };
        driver.describe(RX, number, descriptor);
        driver.offer(RX, number);
    }
}

/// Sends a frame behind a header, both written to the buffers, in one descriptor.
fn transmit(driver: &mut Driver, header: [u8; HEADER_LEN], frame: &[u8]) {
    let bytes = [&header[..], frame].concat();
    driver.memory.write_slice(&bytes, GuestAddress(BUFFERS)).unwrap();
    driver.send(TX, &[(BUFFERS, u32::try_from(bytes.len()).unwrap(), false)]);
}

fn received(wire: &Wire) -> Option<Vec<u8>> {
    wire.receive().map(|bytes| bytes[SOCKET_HEADER_LEN..].to_vec())
}

#[test]
fn the_guest_finds_its_address_and_mtu() {
    wire::with(|tap, _| {
        use crate::bus::Registers;
        let mut driver = Driver::of(card(tap, None, None));
        let mut config = [0; 12];
        driver.registers.read(0x100, &mut config);
        assert_eq!(config, [6, 0, 0xac, 0x10, 0, 2, 0, 0, 0, 0, 0x78, 0x05]);
    });
}

#[test]
fn frames_of_the_guest_reach_the_wire() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start(card(tap, None, None));
        let sent = frame(1000, 3);
        transmit(&mut driver, [0; HEADER_LEN], &sent);
        assert_eq!(driver.used(TX), (1, 0));
        assert!(driver.interrupted());
        assert_eq!(received(&wire), Some(sent.clone()));
        // Cut anywhere, also within the header.
        let at = |from: u32, length| (BUFFERS + u64::from(from), length, false);
        driver.send(TX, &[at(0, 5), at(5, 0), at(5, 9), at(14, 998)]);
        assert_eq!(received(&wire), Some(sent));
    });
}

#[test]
fn frames_of_the_wire_reach_the_guest() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start_without(card(tap, None, None), &SEGMENTS);
        add_buffers(&mut driver, 0, 2, 2048);
        let sent = frame(700, 9);
        wire.send(&sent);
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX), (1, 712));
        assert!(driver.interrupted());
        let got = driver.bytes(BUFFERS, 712);
        assert_eq!(got[..HEADER_LEN], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(got[HEADER_LEN..], sent);
    });
}

/// Those that are empty, and those with a frame the guest has not been told of.
#[test]
fn buffers_the_card_holds_are_in_the_queue_of_a_snapshot() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start_without(card(tap, once(), None), &SEGMENTS);
        add_buffers(&mut driver, 0, 6, 2048);
        for fill in [1, 2] {
            wire.send(&frame(100, fill));
            driver.shared.serve_one(TAP);
        }
        assert_eq!(driver.used(RX).0, 1, "the second waits for its limit");
        let saved = driver.registers.save().unwrap();
        let at = saved.running.unwrap().0[0];
        assert_eq!((at.next_available, at.next_used), (1, 1));
    });
}

#[test]
fn a_long_frame_is_spread_over_buffers_and_they_come_together() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start_without(card(tap, None, None), &SEGMENTS);
        add_buffers(&mut driver, 0, 4, 600);
        let sent = frame(1514, 5);
        wire.send(&sent);
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX).0, 3);
        let entries: Vec<_> = (0..3).map(|number| driver.used_entry(RX, number)).collect();
        assert_eq!(entries, [[0, 600], [1, 600], [2, 326]]);
        let got = driver.bytes(BUFFERS, 1526);
        assert_eq!(got[10..12], [3, 0]);
        assert_eq!(got[HEADER_LEN..], sent);
    });
}

#[test]
fn a_driver_of_single_buffers_gets_one_frame_in_each() {
    wire::with(|tap, wire| {
        let without: Vec<u32> = SEGMENTS
            .into_iter()
            .chain([net::VIRTIO_NET_F_MRG_RXBUF])
            .collect();
        let mut driver = Driver::start_without(card(tap, None, None), &without);
        // The first has no room for what comes first, which is lost.
        add_buffers(&mut driver, 0, 1, 600);
        wire.send(&frame(1000, 1));
        wire.send(&frame(500, 2));
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX), (1, 512));
        assert_eq!(driver.bytes(BUFFERS + 26, 486), [2; 486]);
        assert_eq!(driver.bytes(BUFFERS + 10, 2), [1, 0]);
        assert!(!driver.is_broken());
    });
}

#[test]
fn segments_are_cut_by_whom_the_driver_chose() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start(card(tap, None, None));
        add_buffers(&mut driver, 0, 40, 2048);
        wire.send_with(TO_BE_CUT, &segment(60_000));
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX).0, 30, "60 066 bytes in buffers of 2 KiB");
        let header = driver.bytes(BUFFERS, HEADER_LEN);
        assert_eq!(header[..10], TO_BE_CUT);
        assert_eq!(header[10..], [30, 0]);

        // The same driver, when it takes only what fits a wire.
        drop(driver);
        let tap = Tap::open(NAME).unwrap();
        let wire = Wire::connect().unwrap();
        let mut driver = Driver::start_without(card(tap, None, None), &SEGMENTS);
        add_buffers(&mut driver, 0, 100, 2048);
        wire.send_with(TO_BE_CUT, &segment(14_480));
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX).0, 10);
        for number in 0..10 {
            assert_eq!(driver.used_entry(RX, number), [number.into(), 12 + 54 + 1448]);
        }
        // In the other direction everything may be left undone.
        let mut header = [0; HEADER_LEN];
        header[..10].copy_from_slice(&TO_BE_CUT);
        transmit(&mut driver, header, &segment(60_000));
        assert_eq!(wire.receive().map(|bytes| bytes.len()), Some(10 + 54 + 60_000));
    });
}

#[test]
fn whichever_comes_last_frame_or_buffer_sets_things_going() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start_without(card(tap, None, None), &SEGMENTS);
        // The buffer last: its bell is all that rings.
        for number in 0..3 {
            wire.send(&frame(100, number));
            driver.shared.serve_one(TAP);
        }
        assert_eq!(driver.used(RX).0, 0);
        for number in 0..3 {
            assert!(driver.is_listened_to(RX), "{number}");
            let at = BUFFERS + u64::from(number) * 2048;
            let descriptor = Descriptor {
                at,
                length: 2048,
                flags: WRITE,
                next: 0,
            };
            driver.describe(RX, number, descriptor);
            driver.add(RX, number);
            driver.shared.serve_one(RX);
            assert_eq!(driver.used(RX), (number + 1, 112));
            assert_eq!(
                driver.bytes(at + 26, 86),
                [u8::try_from(number).unwrap(); 86],
                "in order"
            );
        }
        // The frame last: all that is known is that the TAP is readable.
        add_buffers(&mut driver, 3, 1, 2048);
        assert!(!driver.is_listened_to(RX), "there is room for more");
        wire.send(&frame(100, 9));
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX), (4, 112));
    });
}

#[test]
fn a_driver_with_small_buffers_alone_is_not_waited_for() {
    wire::with(|tap, wire| {
        // It left cutting to itself, so that 64 KiB may come at once, for which it never has room.
        let mut driver = Driver::start(card(tap, None, None));
        add_buffers(&mut driver, 0, 255, 64);
        wire.send(&frame(100, 1));
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX).0, 0);
        add_buffers(&mut driver, 255, 1, 64);
        assert_eq!(driver.used(RX), (2, 48));
        assert!(!driver.is_broken());
    });
}

#[test]
fn a_flood_lets_others_go_first() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start_without(card(tap, None, None), &SEGMENTS);
        for head in 0..256 {
            let descriptor = Descriptor {
                at: BUFFERS,
                length: 2048,
                flags: WRITE,
                next: 0,
            };
            driver.describe(RX, head, descriptor);
            driver.add(RX, head);
        }
        for _ in 0..300 {
            wire.send(&frame(60, 1));
        }
        let _ = driver.shared.bells()[0].read();
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX).0, 256);
        assert!(driver.shared.bells()[0].read().is_ok(), "it wants to go on");
    });
}

#[test]
fn a_slowed_card_keeps_frames_in_either_direction() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start_without(card(tap, once(), once()), &SEGMENTS);
        add_buffers(&mut driver, 0, 4, 2048);
        wire.send(&frame(100, 1));
        wire.send(&frame(100, 2));
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX).0, 1, "the second waits");
        transmit(&mut driver, [0; HEADER_LEN], &frame(100, 3));
        transmit(&mut driver, [0; HEADER_LEN], &frame(100, 4));
        assert_eq!(driver.used(TX).0, 1, "the second waits");
        assert!(received(&wire).is_some() && received(&wire).is_none());
        assert!(!driver.is_broken());
        // What waited belongs to a driver that is gone.
        driver.restart();
        assert_eq!((driver.used(RX).0, driver.used(TX).0), (0, 0));
    });
}

#[test]
fn other_limits_let_go_what_waits() {
    wire::with(|tap, wire| {
        let shared = Shared::new(card(tap, once(), once())).unwrap();
        let mut driver = Driver::shared(shared.clone());
        driver.restart();
        add_buffers(&mut driver, 0, 100, 2048);
        for number in 0..2 {
            wire.send(&frame(100, number));
            transmit(&mut driver, [0; HEADER_LEN], &frame(100, number));
        }
        driver.shared.serve_all();
        assert_eq!((driver.used(RX).0, driver.used(TX).0), (1, 1));
        let none = TokenBucket {
            size: 0,
            one_time_burst: None,
            refill_time: 0,
        };
        let lifted = RateLimiter {
            bandwidth: None,
            ops: Some(none),
        };
        shared.change(|card| card.change_limits(lifted, lifted));
        for bell in [RX, TX] {
            let rung = driver.shared.bells()[usize::try_from(bell).unwrap()].read();
            assert!(rung.is_ok());
            driver.shared.serve_one(bell);
        }
        assert_eq!((driver.used(RX).0, driver.used(TX).0), (2, 2));
    });
}

#[test]
fn what_is_no_frame_is_lost_and_the_next_is_not() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start(card(tap, None, None));
        let none = [0; HEADER_LEN];
        let with = |at: usize, bytes: &[u8]| {
            let mut header = none;
            header[..10].copy_from_slice(&TO_BE_CUT);
            header[at..at + bytes.len()].copy_from_slice(bytes);
            header
        };
        let long = vec![0; 70_000];
        let cases: &[(&str, [u8; HEADER_LEN], &[u8])] = &[
            ("nothing", none, &[]),
            ("less than addresses", none, &[1; 13]),
            ("more than a frame holds", none, &long),
            ("segments of nothing", with(4, &[0, 0]), &segment(5000)),
            ("no way of cutting", with(1, &[0x7f]), &segment(5000)),
            (
                "a checksum behind the end",
                with(6, &[0xff, 0xff]),
                &segment(5000),
            ),
            ("headers behind the end", with(2, &[0xff, 0xff]), &segment(5000)),
        ];
        for (number, (what, header, bytes)) in (1..).zip(cases) {
            transmit(&mut driver, *header, bytes);
            assert_eq!(driver.used(TX), (2 * number - 1, 0), "{what}");
            let good = frame(60, u8::try_from(number).unwrap());
            transmit(&mut driver, none, &good);
            assert_eq!(driver.used(TX), (2 * number, 0), "{what}");
            assert_eq!(received(&wire), Some(good), "{what}");
        }
        assert!(!driver.is_broken());
        // All descriptors there are, each of them all memory there is.
        for number in 0..256 {
            let descriptor = Descriptor {
                at: 0,
                length: 0x8_0000,
                flags: if number < 255 { NEXT } else { 0 },
                next: number + 1,
            };
            driver.describe(TX, number, descriptor);
        }
        driver.offer(TX, 0);
        assert_eq!(driver.used(TX).0, 15);
        assert_eq!(received(&wire), None);
    });
}

#[test]
fn chains_that_cannot_hold_frames_stop_the_card() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start(card(tap, None, None));
        for (queue, parts) in [
            (TX, &[(BUFFERS, 11, false)][..]),
            (TX, &[(BUFFERS, 2000, true)][..]),
            (RX, &[(BUFFERS, 11, true)][..]),
            (RX, &[(BUFFERS, 2000, false)][..]),
            (RX, &[(BUFFERS, 1, false), (BUFFERS, 2000, true)][..]),
            (RX, &[(BUFFERS, 0, true)][..]),
        ] {
            driver.restart();
            driver.send(queue, parts);
            assert!(driver.is_broken(), "{queue} {parts:?}");
            assert_eq!(driver.used(queue).0, 0);
            driver.restart();
            transmit(&mut driver, [0; HEADER_LEN], &frame(60, 1));
            assert_eq!(received(&wire), Some(frame(60, 1)));
        }
    });
}

#[test]
fn buffers_cut_too_small_are_no_way_past_the_kernels_limit() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start(card(tap, None, None));
        // Chains of 16 descriptors of 16 bytes: 1024 of them fill what one call takes.
        for head in (0..256).step_by(16) {
            for number in head..head + 16 {
                let descriptor = Descriptor {
                    at: BUFFERS + u64::from(number) * 16,
                    length: 16,
                    flags: if number < head + 15 { WRITE | NEXT } else { WRITE },
                    next: number + 1,
                };
                driver.describe(RX, number, descriptor);
            }
        }
        // The same chains again and again, as only a driver would that is up to something.
        for turn in 0..256 {
            driver.offer(RX, turn % 16 * 16);
        }
        wire.send(&frame(100, 1));
        driver.shared.serve_one(TAP);
        assert_eq!(driver.used(RX), (1, 112));
        assert!(!driver.is_broken());
    });
}

#[test]
fn a_tap_is_there_once() {
    wire::with(|_tap, _| {
        let error = |name| Tap::open(name).unwrap_err().to_string();
        assert_eq!(error(NAME), "another process has it open");
        assert!(error("lo").starts_with("it is no TAP"), "{}", error("lo"));
        assert!(error("a/b").contains("it is no TAP"), "{}", error("a/b"));
    });
}

#[test]
fn a_card_whose_tap_is_taken_away_is_silent() {
    wire::with(|tap, wire| {
        let mut driver = Driver::start(card(tap, None, None));
        add_buffers(&mut driver, 0, 40, 2048);
        let removed = std::process::Command::new("ip")
            .args(["link", "del", NAME])
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no ip to remove a TAP with");
            return;
        }
        drop(wire);
        transmit(&mut driver, [0; HEADER_LEN], &frame(60, 1));
        driver.shared.serve_one(TAP);
        assert_eq!((driver.used(RX).0, driver.used(TX).0), (0, 1));
        assert!(!driver.is_broken());
    });
}

/// Descriptors as a driver might write them, most of them nearly right.
fn descriptors() -> impl Strategy<Value = Vec<Descriptor>> {
    let one = (
        prop_oneof![
            4 => BUFFERS..BUFFERS + 0x7_0000,
            1 => any::<u64>(),
        ],
        prop_oneof![4 => 0_u32..3000, 1 => 0_u32..0x8_0000, 1 => any::<u32>()],
        0_u16..8,
        prop_oneof![4 => 0_u16..16, 1 => any::<u16>()],
    );
    prop::collection::vec(
        one.prop_map(|(at, length, flags, next)| Descriptor {
            at,
            length,
            flags,
            next,
        }),
        16,
    )
}

#[test]
fn whatever_chains_there_are_a_reset_makes_the_card_whole() {
    wire::with(|tap, wire| {
        let driver = std::cell::RefCell::new(Driver::start(card(tap, None, None)));
        proptest!(ProptestConfig::with_cases(200), |(
            receive in descriptors(),
            send in descriptors(),
            turns in prop::collection::vec((0_u32..2, 0_u16..20), 0..40),
        )| {
            let mut driver = driver.borrow_mut();
            driver.restart();
            for (queue, descriptors) in [(RX, &receive), (TX, &send)] {
                for (number, descriptor) in (0..).zip(descriptors) {
                    driver.describe(queue, number, *descriptor);
                }
            }
            for (queue, head) in turns {
                wire.send(&frame(80, 4));
                driver.offer(queue, head);
            }
            driver.restart();
            assert!(!driver.is_broken());
            while wire.receive_now().is_some() {}
            transmit(&mut driver, [0; HEADER_LEN], &frame(60, 1));
            prop_assert_eq!(received(&wire), Some(frame(60, 1)));
        });
    });
}
