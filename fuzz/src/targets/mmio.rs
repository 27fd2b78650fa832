//! Registers of a virtio device, of any width and in any order: nobody gets to a running device but by the steps, and its
//! queues stay where they are while it runs.

use berth_vmm::config;
use berth_vmm::fuzzing::{Rings, VirtioDevice};
use virtio_bindings::virtio_config as status;
use virtio_bindings::virtio_mmio as reg;

use crate::driver::{Driver, memory};
use crate::input::Input;

const STEPS: [u32; 4] = [
    status::VIRTIO_CONFIG_S_ACKNOWLEDGE,
    status::VIRTIO_CONFIG_S_DRIVER,
    status::VIRTIO_CONFIG_S_FEATURES_OK,
    status::VIRTIO_CONFIG_S_DRIVER_OK,
];
/// Registers are followed by the configuration space.
const CONFIG: u64 = reg::VIRTIO_MMIO_CONFIG as u64;

fn places(rings: &[Rings]) -> Vec<(u16, bool, [u64; 3])> {
    let place = |rings: &Rings| {
        (
            rings.size,
            rings.ready,
            [rings.descriptors, rings.available, rings.used],
        )
    };
    rings.iter().map(place).collect()
}

/// Reads and writes of registers.
pub(super) fn mmio(bytes: &[u8]) {
    let memory = memory(false);
    let config = config::Balloon {
        amount_mib: 1,
        deflate_on_oom: true,
        stats_polling_interval_s: 60,
        free_page_hinting: false,
        free_page_reporting: true,
    };
    let device = VirtioDevice::balloon(&config, &memory.guest).expect("a balloon");
    let mut driver = Driver::new(device, memory, false);
    driver.allowed.pages_vanish = true;
    let fresh = places(&driver.device.rings());
    let mut input = Input::new(bytes);
    // By the steps, so that not every input has to find them.
    if input.flag() {
        driver.start(input.u64(), input.byte().into());
    }
    let mut before = driver.get(reg::VIRTIO_MMIO_STATUS);
    while !input.is_empty() {
        let how = input.byte();
        // All registers lie on words; what does not is tried now and then.
        let offset = match how & 3 {
            0 => u64::from(input.u16() % 0x1000),
            _ => u64::from(input.byte()) << 2,
        };
        let width = if how & 12 == 12 { input.below(9) } else { 4 };
        if how & 16 != 0 {
            let mut value = vec![0xaa; width];
            driver.device.read(offset, &mut value);
            assert!(width == 4 || offset >= CONFIG || value.iter().all(|byte| *byte == 0));
            continue;
        }
        let value = if how & 32 != 0 {
            input.u64()
        } else {
            u64::from(input.byte())
        };
        let running = before & status::VIRTIO_CONFIG_S_DRIVER_OK != 0;
        let rings = places(&driver.device.rings());
        driver.write_register(offset, &value.to_le_bytes()[..width]);
        if how & 64 != 0 {
            driver.run();
        }
        let now = driver.get(reg::VIRTIO_MMIO_STATUS);
        let taken = STEPS.map(|step| now & step != 0);
        assert!(
            taken.is_sorted_by(|before, after| before >= after),
            "a step was left out: {now:#x}"
        );
        if now == 0 {
            assert_eq!(
                places(&driver.device.rings()),
                fresh,
                "a reset forgets the queues"
            );
        } else {
            let kept = !status::VIRTIO_CONFIG_S_NEEDS_RESET;
            assert_eq!(before & kept & !now, 0, "a step was taken back");
            assert!(
                !running || places(&driver.device.rings()) == rings,
                "a queue of a running device moved"
            );
        }
        before = now;
    }
    driver.run();
    driver.check();
}
