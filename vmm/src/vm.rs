//! The virtual machine as KVM keeps it: memory slots and the interrupt controllers.
#![allow(unsafe_code)] // KVM is given an address range to treat as guest memory

use std::sync::Arc;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_pit_state2, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::arch::x86_64::layout;
use crate::error::{Error, Result};

/// A virtual machine and its memory.
pub(crate) struct Vm {
    pub(crate) kvm: Arc<Kvm>,
    pub(crate) fd: VmFd,
    /// Here for as long as the machine is: KVM reads and writes it.
    pub(crate) memory: GuestMemoryMmap,
}

impl Vm {
    pub(crate) fn new(kvm: Arc<Kvm>, memory: GuestMemoryMmap) -> Result<Vm> {
        let fd = kvm
            .create_vm()
            .map_err(Error::kvm("create a virtual machine in KVM"))?;
        let vm = Vm { kvm, fd, memory };
        vm.set_memory()?;
        vm.set_interrupts()?;
        Ok(vm)
    }

    /// Before the interrupt controllers: they leave work to a grace period that takes milliseconds, and a slot waits for it.
    fn set_memory(&self) -> Result<()> {
        for (slot, region) in (0..).zip(self.memory.iter()) {
            let fail = |why: &str| Error::Invalid {
                field: "machine-config.mem_size_mib",
                why: why.into(),
            };
            let host = region
                .get_host_address(vm_memory::MemoryRegionAddress(0))
                .map_err(|e| fail(&e.to_string()))?;
            let entry = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: host as u64,
            };
            // SAFETY: the range is one map of `self.memory`, which is never remapped and lives as long as this `Vm`, of
            // which every thread that runs a processor holds a share (`run`); slots do not overlap, as the regions do not.
            unsafe { self.fd.set_user_memory_region(entry) }
                .map_err(Error::kvm("give the machine its memory"))?;
        }
        Ok(())
    }

    /// Takes the guest's memory back, from a machine whose processors have ended. Closing it waits for what the interrupt controllers
    /// left to a grace period when they were made, up to 15 ms from then; a change of memory is in more of a hurry
    /// (`synchronize_srcu_expedited`), and takes along what waits. Nothing is lost when it fails.
    pub(crate) fn give_up_memory(&self) {
        for (slot, _) in (0..).zip(self.memory.iter()) {
            let none = kvm_userspace_memory_region {
                slot,
                ..kvm_userspace_memory_region::default()
            };
            // SAFETY: a slot of no bytes names no memory.
            let _ = unsafe { self.fd.set_user_memory_region(none) };
        }
    }

    fn set_interrupts(&self) -> Result<()> {
        let tss = usize::try_from(layout::KVM_TSS).expect("a 64-bit host");
        self.fd
            .set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(Error::kvm("place KVM's identity map"))?;
        self.fd
            .set_tss_address(tss)
            .map_err(Error::kvm("place KVM's task state"))?;
        self.fd
            .create_irq_chip()
            .map_err(Error::kvm("create the interrupt controllers"))
    }

    /// Makes the PIT, for a guest that asks for it or had it; nothing when there is one.
    pub(crate) fn create_pit(&self) -> Result<()> {
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..kvm_pit_config::default()
        };
        match self.fd.create_pit2(pit) {
            // Two processors came at once.
            Err(e) if e.errno() == libc::EEXIST => Ok(()),
            made => made.map_err(Error::kvm("create the timer")),
        }
    }

    /// Changes what the PIT is in the middle of.
    pub(crate) fn change_pit(&self, change: impl FnOnce(&mut kvm_pit_state2)) -> Result<()> {
        let failed = || Error::kvm("program the timer");
        let mut state = self.fd.get_pit2().map_err(failed())?;
        change(&mut state);
        self.fd.set_pit2(&state).map_err(failed())
    }

    /// Lets a guest's write of `number` to the 32-bit register at `address` ring `bell`, without a way through this process.
    pub(crate) fn bell(&self, bell: &EventFd, address: u64, number: u32) -> Result<()> {
        self.fd
            .register_ioevent(bell, &IoEventAddress::Mmio(address), number)
            .map_err(Error::kvm("connect a queue's notifications"))
    }

    /// An event that raises an interrupt line each time it is written to, without a way through this process.
    pub(crate) fn line(&self, irq: u32) -> Result<EventFd> {
        let event = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).map_err(|source| Error::Events {
            operation: "create an event",
            source,
        })?;
        self.connect(&event, irq)?;
        Ok(event)
    }

    /// Raises an interrupt line once.
    pub(crate) fn pulse(&self, irq: u32) -> Result<()> {
        let mut levels = [true, false].into_iter();
        levels
            .try_for_each(|level| self.fd.set_irq_line(irq, level))
            .map_err(Error::kvm("raise an interrupt"))
    }

    /// Lets `event` raise an interrupt line each time it is written to.
    pub(crate) fn connect(&self, event: &EventFd, irq: u32) -> Result<()> {
        self.fd
            .register_irqfd(event, irq)
            .map_err(Error::kvm("connect an interrupt line"))
    }
}
