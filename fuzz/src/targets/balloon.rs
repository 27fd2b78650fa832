//! virtio-balloon: pages that are none, and pages with rings on them. Memory is the process's, or a snapshot's file.

use berth_vmm::config;
use berth_vmm::fuzzing::VirtioDevice;
use vm_memory::GuestMemoryMmap;

use crate::driver::{BUFFERS, Driver, memory};
use crate::input::Input;
use crate::play::{Kind, play};

/// Bytes of a page of the balloon.
const PAGE: u64 = 4096;

struct Balloon {
    config: config::Balloon,
}

impl Balloon {
    fn device(&self, memory: &GuestMemoryMmap) -> VirtioDevice {
        VirtioDevice::balloon(&self.config, memory).expect("a balloon")
    }
}

impl Kind for Balloon {
    fn request(&mut self, input: &mut Input<'_>, queue: u32) -> (Vec<u8>, Vec<u32>) {
        match queue {
            0 | 1 => {
                let pages = (0..input.below(12)).map(|_| match input.byte() % 4 {
                    0 => input.u32(),
                    1 => input.byte().into(),
                    _ => u32::try_from(BUFFERS / PAGE).expect("it is low") + u32::from(input.byte() % 64),
                });
                (pages.flat_map(u32::to_le_bytes).collect(), Vec::new())
            }
            // Statistics: a tag and a number each.
            2 => (input.bytes(40).to_vec(), Vec::new()),
            _ => (Vec::new(), (0..input.below(5)).map(|_| input.length()).collect()),
        }
    }

    fn outside(&mut self, input: &mut Input<'_>, driver: &mut Driver) {
        if input.flag() {
            driver.device.resize_balloon(input.u16().into());
        } else {
            driver.device.ask_statistics(input.byte().into());
        }
    }

    fn answered(&self) -> &[u32] {
        &[0, 1]
    }

    fn works(&mut self, driver: &mut Driver) {
        driver.start(0, 1);
        let page = u32::try_from(BUFFERS / PAGE).expect("it is low") + 40;
        driver.put(0, &page.to_le_bytes(), 1, &[], false);
        driver.check_used(0);
        assert_eq!((driver.used(0), driver.is_broken()), ((1, 0), false));
    }

    fn again(&mut self, memory: &GuestMemoryMmap) -> Option<VirtioDevice> {
        Some(self.device(memory))
    }
}

/// A driver of virtio-balloon.
pub(super) fn balloon(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let mut balloon = Balloon {
        config: config::Balloon {
            amount_mib: 1,
            deflate_on_oom: how & 1 != 0,
            stats_polling_interval_s: if how & 2 != 0 { 60 } else { 0 },
            free_page_hinting: false,
            free_page_reporting: how & 4 != 0,
        },
    };
    let of_file = how & 8 != 0;
    let memory = memory(of_file);
    let device = balloon.device(&memory.guest);
    let mut driver = Driver::new(device, memory, of_file);
    driver.allowed.pages_vanish = true;
    play(&mut input, &mut driver, &mut balloon);
}
