//! The used ring where virtio-queue does not reach: several chains at once, and drivers that want no interrupts.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::chain::Malformed;

/// Bytes of a ring before its entries: flags and index.
const HEADER_LEN: u64 = 4;
/// Bytes of an entry of the available ring.
const AVAILABLE_LEN: u64 = 2;
/// Bytes of an entry of the used ring.
const USED_LEN: u64 = 8;

/// Gives chains back, each a head and how many bytes were written into it. The driver sees all of them or none.
pub(super) fn add(
    ring: &mut Queue,
    memory: &GuestMemoryMmap,
    chains: &[(u16, usize)],
) -> Result<(), Malformed> {
    let cannot = || Malformed("the used ring cannot be written");
    let Some(((last, last_length), others)) = chains.split_last() else {
        return Ok(());
    };
    for (head, length) in others {
        let slot = u64::from(ring.next_used() % ring.size());
        let at = ring.used_ring() + HEADER_LEN + USED_LEN * slot;
        let mut entry = [0; 8];
        entry[..4].copy_from_slice(&u32::from(*head).to_le_bytes());
        entry[4..].copy_from_slice(&written(*length)?.to_le_bytes());
        memory
            .write_slice(&entry, GuestAddress(at))
            .map_err(|_| cannot())?;
        ring.set_next_used(ring.next_used().wrapping_add(1));
    }
    // Tells the driver of an index, and with it of all before.
    ring.add_used(memory, *last, written(*last_length)?)
        .map_err(|_| cannot())
}

fn written(length: usize) -> Result<u32, Malformed> {
    u32::try_from(length).map_err(|_| Malformed("a chain is longer than 4 GiB"))
}

/// Whether the driver wants to hear of the chains used since `told`, the ring's index at that time (virtio 1.2 §2.7.7.2).
pub(super) fn wants_interrupt(
    ring: &Queue,
    memory: &GuestMemoryMmap,
    told: Wrapping<u16>,
) -> Result<bool, Malformed> {
    let load = |at: u64| {
        memory
            .load::<u16>(GuestAddress(at), Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(|_| Malformed("the available ring cannot be read"))
    };
    // The driver says what it wants and then looks for used chains; we do it the other way round. Either sees the other.
    fence(Ordering::SeqCst);
    if ring.event_idx_enabled() {
        let behind = HEADER_LEN + AVAILABLE_LEN * u64::from(ring.size());
        let event = load(ring.avail_ring() + behind)?;
        Ok(passes(Wrapping(event), told, Wrapping(ring.next_used())))
    } else {
        Ok(u32::from(load(ring.avail_ring())?) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }
}

/// Whether an index that goes from `told` to `now` passes `event`: the driver waits for the entry with that number.
fn passes(event: Wrapping<u16>, told: Wrapping<u16>, now: Wrapping<u16>) -> bool {
    now - event - Wrapping(1) < now - told
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USED: u64 = 0x1000;
    const AVAILABLE: u64 = 0x2000;
    const SIZE: u16 = 8;

    fn ring(used: u16, event_idx: bool) -> (Queue, GuestMemoryMmap) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x3000)]).unwrap();
        let mut ring = Queue::new(SIZE).unwrap();
        ring.set_used_ring_address(Some(u32::try_from(USED).unwrap()), None);
        ring.set_avail_ring_address(Some(u32::try_from(AVAILABLE).unwrap()), None);
        ring.set_event_idx(event_idx);
        ring.set_next_used(used);
        ring.set_ready(true);
        (ring, memory)
    }

    proptest! {
        /// As if each had been used on its own, except that the index moves once.
        #[test]
        fn chains_used_together_are_all_there(
            used in any::<u16>(),
            chains in prop::collection::vec((0..SIZE, 0_usize..1 << 32), 0..usize::from(SIZE)),
        ) {
            let (mut together, memory) = ring(used, false);
            add(&mut together, &memory, &chains).unwrap();
            let (mut single, expected) = ring(used, false);
            for (head, length) in &chains {
                single.add_used(&expected, *head, u32::try_from(*length).unwrap()).unwrap();
            }
            prop_assert_eq!(together.next_used(), single.next_used());
            let bytes = |memory: &GuestMemoryMmap| {
                let mut bytes = vec![0; 0x100];
                memory.read_slice(&mut bytes, GuestAddress(USED)).unwrap();
                bytes
            };
            prop_assert_eq!(bytes(&memory), bytes(&expected));
        }

        /// The definition: some index on the way from one to the other is the one behind the event.
        #[test]
        fn an_event_is_passed_when_it_lies_on_the_way(event in any::<u16>(), told in any::<u16>(), count in 0_u16..300) {
            let on_the_way = (0..count).any(|step| told.wrapping_add(step) == event);
            let now = told.wrapping_add(count);
            prop_assert_eq!(passes(Wrapping(event), Wrapping(told), Wrapping(now)), on_the_way);
        }
    }

    #[test]
    fn a_driver_is_told_of_what_it_waits_for() {
        let (mut ring, memory) = ring(u16::MAX, true);
        let event_at = GuestAddress(AVAILABLE + 4 + 2 * u64::from(SIZE));
        let wants = |ring: &Queue, event: u16| {
            memory.write_obj(event.to_le(), event_at).unwrap();
            wants_interrupt(ring, &memory, Wrapping(u16::MAX)).unwrap()
        };
        assert!(!wants(&ring, u16::MAX), "nothing was used");
        add(&mut ring, &memory, &[(0, 1), (1, 1), (2, 1)]).unwrap();
        for (event, wanted) in [(u16::MAX - 1, false), (u16::MAX, true), (1, true), (2, false)] {
            assert_eq!(wants(&ring, event), wanted, "{event}");
        }
    }

    #[test]
    fn a_driver_that_wants_no_interrupts_gets_none() {
        let (ring, memory) = ring(0, false);
        for (flags, wanted) in [(0_u16, true), (1, false)] {
            memory.write_obj(flags.to_le(), GuestAddress(AVAILABLE)).unwrap();
            assert_eq!(
                wants_interrupt(&ring, &memory, Wrapping(0)).unwrap(),
                wanted,
                "{flags}"
            );
        }
    }

    #[test]
    fn a_driver_sees_all_chains_or_none() {
        let (mut ring, memory) = ring(0, false);
        // One that is none, outside of the table, comes last.
        assert!(add(&mut ring, &memory, &[(0, 1), (1, 1), (SIZE, 0)]).is_err());
        let index: u16 = memory.read_obj(GuestAddress(USED + 2)).unwrap();
        assert_eq!(index, 0);
    }
}
