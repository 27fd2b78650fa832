//! What KVM keeps of a machine besides its processors, for a snapshot: interrupt controllers, the PIT, the clock of its guests.

use kvm_bindings::{
    KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data,
    kvm_irqchip, kvm_pit_state2,
};
use kvm_ioctls::{Cap, VmFd};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::vm::Vm;

const CONTROLLERS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// All of them.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Chips {
    /// In the order of [`CONTROLLERS`].
    controllers: Box<[kvm_irqchip; 3]>,
    /// Only guests that ask for one have one.
    pit: Option<kvm_pit_state2>,
    clock: kvm_clock_data,
}

impl Chips {
    /// Of a machine whose processors stand.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`].
    pub(crate) fn save(vm: &VmFd) -> Result<Chips> {
        let failed = || Error::kvm("read the state of interrupt controllers and clocks");
        let mut controllers: Box<[kvm_irqchip; 3]> = Box::default();
        for (controller, id) in controllers.iter_mut().zip(CONTROLLERS) {
            controller.chip_id = id;
            vm.get_irqchip(controller).map_err(failed())?;
        }
        let pit = match vm.get_pit2() {
            Ok(pit) => Some(pit),
            Err(e) if e.errno() == libc::ENXIO => None,
            Err(e) => return Err(failed()(e)),
        };
        Ok(Chips {
            controllers,
            pit,
            clock: vm.get_clock().map_err(failed())?,
        })
    }

    /// After the processors, to which controllers deliver what waits. With `realtime` the clock has gone on since.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`], and [`Error::Restore`] when KVM did not know the time of day then, or does not now.
    pub(crate) fn restore(&self, vm: &Vm, realtime: bool) -> Result<()> {
        let failed = || Error::kvm("restore interrupt controllers and clocks");
        if let Some(pit) = self.pit {
            vm.create_pit()?;
            vm.change_pit(|fresh| *fresh = pit)?;
        }
        let vm = &vm.fd;
        for (controller, id) in self.controllers.iter().zip(CONTROLLERS) {
            let mut controller = *controller;
            controller.chip_id = id;
            vm.set_irqchip(&controller).map_err(failed())?;
        }
        let mut clock = self.clock;
        // What KVM says with the clock it does not take back, but for the time of day (KVM_SET_CLOCK).
        clock.flags &= if realtime { KVM_CLOCK_REALTIME } else { 0 };
        let known = vm.check_extension_int(Cap::AdjustClock).cast_unsigned();
        if realtime && clock.flags & known == 0 {
            return Err(Error::Restore("the time of day (clock_realtime)".into()));
        }
        vm.set_clock(&clock).map_err(failed())
    }
}
