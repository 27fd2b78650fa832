//! virtio-rng: anything may be asked for, and no byte beside it is written.

use berth_vmm::fuzzing::VirtioDevice;
use vm_memory::GuestMemoryMmap;

use crate::driver::{Driver, memory};
use crate::input::Input;
use crate::play::{Kind, play};

struct Rng;

impl Kind for Rng {
    fn request(&mut self, input: &mut Input<'_>, _queue: u32) -> (Vec<u8>, Vec<u32>) {
        let said = if input.byte() < 16 {
            input.bytes(3).to_vec()
        } else {
            Vec::new()
        };
        let count = input.below(4);
        (said, (0..count).map(|_| input.length()).collect())
    }

    fn answered(&self) -> &[u32] {
        &[0]
    }

    fn works(&mut self, driver: &mut Driver) {
        driver.start(0, 1);
        driver.put(0, &[], 1, &[8], false);
        driver.check_used(0);
        assert_eq!((driver.used(0), driver.is_broken()), ((1, 8), false));
    }

    fn again(&mut self, memory: &GuestMemoryMmap) -> Option<VirtioDevice> {
        VirtioDevice::rng(None, memory).ok()
    }
}

/// A driver of virtio-rng.
pub(super) fn rng(bytes: &[u8]) {
    let memory = memory(false);
    let device = VirtioDevice::rng(None, &memory.guest).expect("a device");
    play(
        &mut Input::new(bytes),
        &mut Driver::new(device, memory, false),
        &mut Rng,
    );
}
