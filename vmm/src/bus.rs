//! Who answers at which address: I/O ports and memory-mapped registers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::exit::Exit;

/// A device's registers as the guest sees them. Called from vCPU threads, one at a time; must not block.
pub trait Registers: Send {
    /// Fills `data` from the register `offset` bytes behind the device's first. What does not exist reads as zeroes.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Takes `data` at `offset`. Ends the microVM when the guest asked for that.
    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Exit>;
}

/// One address space.
#[derive(Default)]
pub struct Bus {
    /// By first address.
    places: BTreeMap<u64, Place>,
}

/// Addresses in a row.
struct Place {
    length: u64,
    /// Which of the device's registers the first is.
    register: u64,
    device: Arc<Mutex<dyn Registers>>,
}

impl Bus {
    /// Puts a device at `first`, `length` bytes long.
    ///
    /// # Panics
    ///
    /// When it overlaps another: the layout is ours.
    pub fn attach(&mut self, first: u64, length: u64, device: Arc<Mutex<dyn Registers>>) {
        self.attach_part(first, 0..length, device);
    }

    /// Puts those registers in `part` of a device that begins at `first`: others use the addresses in between.
    ///
    /// # Panics
    ///
    /// As [`Bus::attach`].
    pub fn attach_part(&mut self, first: u64, part: Range<u64>, device: Arc<Mutex<dyn Registers>>) {
        let (first, length) = (first + part.start, part.end - part.start);
        let overlaps = self
            .places
            .iter()
            .any(|(start, place)| *start < first + length && first < start + place.length);
        assert!(!overlaps, "two devices at {first:#x}");
        let place = Place {
            length,
            register: part.start,
            device,
        };
        self.places.insert(first, place);
    }

    /// Reads; where nobody answers all bits are set, as on a real bus.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((offset, device)) => device
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes; where nobody listens nothing happens.
    pub fn write(&self, address: u64, data: &[u8]) -> Option<Exit> {
        let (offset, device) = self.find(address, data.len())?;
        device
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(offset, data)
    }

    fn find(&self, address: u64, length: usize) -> Option<(u64, &Mutex<dyn Registers>)> {
        let (start, place) = self.places.range(..=address).next_back()?;
        let offset = address - start;
        // An access over a device's end is nobody's.
        let within = offset.checked_add(length as u64)? <= place.length;
        within.then_some((place.register + offset, &place.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(Vec<(u64, Vec<u8>)>);

    impl Registers for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }
        fn write(&mut self, offset: u64, data: &[u8]) -> Option<Exit> {
            self.0.push((offset, data.to_vec()));
            (offset == 7).then_some(Exit::Reset)
        }
    }

    #[test]
    fn addresses_find_their_device_and_no_other() {
        let mut bus = Bus::default();
        let device = Arc::new(Mutex::new(Echo(Vec::new())));
        bus.attach(0x100, 8, device.clone());
        let read = |address, length| {
            let mut data = vec![0; length];
            bus.read(address, &mut data);
            data
        };
        assert_eq!(read(0x103, 1), [3]);
        assert_eq!(read(0x104, 4), [4; 4]);
        assert_eq!(read(0x105, 4), [0xff; 4], "over the end");
        assert_eq!(read(0xff, 1), [0xff]);
        assert_eq!(read(0x108, 1), [0xff]);
        assert_eq!(bus.write(0x107, &[1]), Some(Exit::Reset));
        assert_eq!(bus.write(0x108, &[1]), None);
        assert_eq!(device.lock().unwrap().0, [(7, vec![1])]);
    }

    #[test]
    fn a_device_s_registers_lie_around_another_s() {
        let mut bus = Bus::default();
        let outer = Arc::new(Mutex::new(Echo(Vec::new())));
        bus.attach_part(0x60, 0..1, outer.clone());
        bus.attach_part(0x60, 4..5, outer.clone());
        bus.attach(0x61, 1, Arc::new(Mutex::new(Echo(Vec::new()))));
        bus.write(0x60, &[1]);
        bus.write(0x61, &[2]);
        bus.write(0x64, &[3]);
        assert_eq!(outer.lock().unwrap().0, [(0, vec![1]), (4, vec![3])]);
    }
}
