//! What a driver does with its device, step by step, as an input says.
//!
//! Most steps keep to the rules, so that a few that do not come far; which are which the fuzzer finds out.

use berth_vmm::fuzzing::VirtioDevice;
use virtio_bindings::virtio_mmio as reg;
use vm_memory::GuestMemoryMmap;

use crate::driver::{BUFFERS, Driver};
use crate::input::Input;
use crate::memory::MEMORY;

/// What is different from one kind of device to the next.
pub(crate) trait Kind {
    /// What a request of this queue says, and how much room it has for the answer, in parts.
    fn request(&mut self, input: &mut Input<'_>, queue: u32) -> (Vec<u8>, Vec<u32>);

    /// Something happens that is not the driver's doing.
    fn outside(&mut self, _input: &mut Input<'_>, _driver: &mut Driver) {}

    /// A device of the same kind that nobody has touched, to go on from what was saved of the first. None for those that
    /// cannot be part of a snapshot.
    fn again(&mut self, _memory: &GuestMemoryMmap) -> Option<VirtioDevice> {
        None
    }

    /// The queues whose chains are all used when the device rests.
    fn answered(&self) -> &[u32];

    /// A device that was reset serves a driver that keeps to the rules.
    fn works(&mut self, driver: &mut Driver);
}

/// The registers a driver has to do with.
const REGISTERS: [u32; 14] = [
    reg::VIRTIO_MMIO_STATUS,
    reg::VIRTIO_MMIO_QUEUE_SEL,
    reg::VIRTIO_MMIO_QUEUE_NUM,
    reg::VIRTIO_MMIO_QUEUE_READY,
    reg::VIRTIO_MMIO_QUEUE_NOTIFY,
    reg::VIRTIO_MMIO_QUEUE_DESC_LOW,
    reg::VIRTIO_MMIO_QUEUE_DESC_HIGH,
    reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
    reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
    reg::VIRTIO_MMIO_QUEUE_USED_LOW,
    reg::VIRTIO_MMIO_QUEUE_USED_HIGH,
    reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL,
    reg::VIRTIO_MMIO_DRIVER_FEATURES,
    reg::VIRTIO_MMIO_INTERRUPT_ACK,
];

/// No input is followed further. Each step costs some microseconds.
const STEPS_MAX: usize = 400;

/// Plays an input to its end, and then looks at what must hold.
pub(crate) fn play(input: &mut Input<'_>, driver: &mut Driver, kind: &mut impl Kind) {
    let features = input.u64();
    driver.start(features, u32::MAX);
    driver.run();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(input, driver, kind);
    }
    driver.run();
    for queue in kind.answered() {
        driver.check_used(*queue);
    }
    driver.check();
    kind.works(driver);
    driver.check();
}

fn step(input: &mut Input<'_>, driver: &mut Driver, kind: &mut impl Kind) {
    match input.byte() % 17 {
        0..=4 => request(input, driver, kind),
        5 => {
            let queue = driver.any_queue(input);
            driver.ring(queue);
        }
        6 | 7 => driver.run(),
        8 => kind.outside(input, driver),
        9 => bend(input, driver),
        10 => poke(input, driver),
        11 => {
            let (queue, head) = (driver.any_queue(input), input.u16());
            driver.offer(queue, head);
        }
        12 => {
            let (register, value) = (input.one_of(&REGISTERS), value(input));
            driver.set(register, value);
        }
        13 => {
            let mut bytes = vec![0; input.below(9)];
            let offset = u64::from(input.u16() % 0x1000);
            if input.flag() {
                bytes.fill(input.byte());
                driver.write_register(offset, &bytes);
            } else {
                driver.device.read(offset, &mut bytes);
            }
        }
        14 => {
            let (features, queues) = (input.u64(), input.byte());
            driver.start(features, queues.into());
        }
        15 => driver.skip(input.byte().into()),
        _ => go_on(input, driver, kind),
    }
}

/// Another device takes over with what was saved of the first, which is believed, or with something else in some places,
/// which may be.
fn go_on(input: &mut Input<'_>, driver: &mut Driver, kind: &mut impl Kind) {
    let Some(mut saved) = driver.device.save() else {
        return;
    };
    let memory = driver.memory().guest.clone();
    let Some(mut second) = kind.again(&memory) else {
        return;
    };
    let changes = input.byte() % 4;
    for _ in 0..changes {
        let at = input.below(saved.len());
        saved[at] = input.byte();
    }
    let believed = second.restore(&saved);
    assert!(
        believed || changes > 0,
        "a device does not believe what it saved itself"
    );
    if believed {
        driver.replace(second, changes > 0);
    }
}

/// A chain that is one.
fn request(input: &mut Input<'_>, driver: &mut Driver, kind: &mut impl Kind) {
    let (queue, how) = (driver.any_queue(input), input.byte());
    let (said, room) = kind.request(input, queue);
    driver.put(queue, &said, usize::from(how >> 4) % 4 + 1, &room, how & 1 != 0);
    if how & 2 != 0 {
        driver.ring(queue);
    }
    if how & 4 != 0 {
        driver.run();
    }
}

/// Changes a descriptor, most often one that was just written.
fn bend(input: &mut Input<'_>, driver: &mut Driver) {
    let (queue, number) = (driver.any_queue(input), input.byte());
    let at = Driver::descriptor(queue, number.into());
    let mut parts: [u8; 16] = driver.memory().read(at);
    match input.byte() % 5 {
        0 => parts[..8].copy_from_slice(&address(input).to_le_bytes()),
        1 => parts[8..12].copy_from_slice(&input.length().to_le_bytes()),
        2 => parts[12] = input.byte(),
        3 => parts[14..].copy_from_slice(&input.u16().to_le_bytes()),
        _ => {
            for byte in &mut parts {
                *byte = input.byte();
            }
        }
    }
    driver.poke(at, &parts);
}

/// Writes anywhere, most often to rings.
fn poke(input: &mut Input<'_>, driver: &mut Driver) {
    let at = match input.byte() % 4 {
        0 => address(input),
        part => {
            let queue = driver.any_queue(input);
            let rings = driver.device.rings()[usize::try_from(queue).expect("a few")];
            let ring = [rings.descriptors, rings.available, rings.used][usize::from(part) - 1];
            ring.wrapping_add(input.byte().into())
        }
    };
    let length = input.below(16);
    driver.poke(at, input.bytes(length));
}

/// Somewhere in memory, at its end, or anywhere.
fn address(input: &mut Input<'_>) -> u64 {
    match input.byte() % 4 {
        0 => BUFFERS + u64::from(input.u16()),
        1 => u64::from(input.u32()) % MEMORY as u64,
        2 => MEMORY as u64 - u64::from(input.u16() % 64),
        _ => input.u64(),
    }
}

/// A value for a register.
fn value(input: &mut Input<'_>) -> u32 {
    match input.byte() % 4 {
        0 => (input.byte() % 16).into(),
        1 => u32::from(input.u16()) << 4,
        _ => input.u32(),
    }
}
