//! Everything KVM keeps of a virtual processor, for a snapshot.
//!
//! The order matters (Documentation/virt/kvm/api.rst): reading its pending events and what a processor waits for may change its
//! registers, so those come first; writing, the CPUID table decides which registers there are, and the local APIC whether its timer takes a deadline.
#![allow(unsafe_code)] // KVM reads as many bytes of extended state as it has

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::snapshot::bounded::at_most;

/// So many machine registers at once; KVM takes up to 256.
const REGISTERS_AT_ONCE: usize = 128;
/// More than any KVM has; it lists some 300 for its largest processors.
const REGISTERS_MAX: usize = 4096;
/// When the local APIC's timer fires; set after the time stamp counter it is compared with.
const MSR_TSC_DEADLINE: u32 = 0x6e0;

const CR4_VMXE: u64 = 1 << 13;
const EFER_SVME: u64 = 1 << 12;

/// One processor.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Processor {
    #[serde(deserialize_with = "at_most::<_, _, KVM_MAX_CPUID_ENTRIES>")]
    cpuid: Vec<kvm_cpuid_entry2>,
    /// How fast its time stamp counter runs, where KVM knows.
    tsc_khz: Option<u32>,
    waiting: kvm_mp_state,
    registers: kvm_regs,
    special: kvm_sregs,
    extended: Box<kvm_xsave>,
    extended_control: kvm_xcrs,
    debug: kvm_debugregs,
    local_apic: Box<kvm_lapic_state>,
    /// Machine registers and their values.
    #[serde(deserialize_with = "at_most::<_, _, REGISTERS_MAX>")]
    machine: Vec<(u32, u64)>,
    events: kvm_vcpu_events,
}

impl Processor {
    /// Of a processor that stands; `machine` are the machine registers KVM knows.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`]; [`Error::Unsupported`] when the guest runs guests of its own.
    #[inline(never)] // several pages of stack, which threads that save nothing should not touch
    pub(crate) fn save(vcpu: &VcpuFd, machine: &[u32]) -> Result<Processor> {
        let failed = || Error::kvm("read a processor's state");
        // With an exception that is on its way KVM writes to control registers what belongs to it.
        let events = vcpu.get_vcpu_events().map_err(failed())?;
        let waiting = vcpu.get_mp_state().map_err(failed())?;
        let special = vcpu.get_sregs().map_err(failed())?;
        if special.cr4 & CR4_VMXE != 0 || special.efer & EFER_SVME != 0 {
            return Err(Error::Unsupported {
                what: "snapshot/create",
                why: "the guest runs virtual machines of its own, whose state KVM keeps apart",
            });
        }
        Ok(Processor {
            waiting,
            registers: vcpu.get_regs().map_err(failed())?,
            special,
            extended: Box::new(vcpu.get_xsave().map_err(failed())?),
            extended_control: vcpu.get_xcrs().map_err(failed())?,
            debug: vcpu.get_debug_regs().map_err(failed())?,
            local_apic: Box::new(vcpu.get_lapic().map_err(failed())?),
            tsc_khz: vcpu.get_tsc_khz().ok(),
            cpuid: vcpu
                .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
                .map_err(failed())?
                .as_slice()
                .to_vec(),
            machine: read(vcpu, machine)?,
            events,
        })
    }

    /// Makes a fresh processor of `vm` this one.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] for what KVM refuses; [`Error::Restore`] for what this host does not have.
    pub(crate) fn restore(&self, vm: &VmFd, vcpu: &VcpuFd) -> Result<()> {
        let failed = || Error::kvm("restore a processor's state");
        let cpuid = CpuId::from_entries(&self.cpuid).expect("no more entries than there may be");
        vcpu.set_cpuid2(&cpuid)
            .map_err(Error::kvm("tell a processor what it is"))?;
        self.restore_pace(vcpu)?;
        vcpu.set_mp_state(self.waiting).map_err(failed())?;
        vcpu.set_regs(&self.registers).map_err(failed())?;
        vcpu.set_sregs(&self.special).map_err(failed())?;
        if vm.check_extension_int(Cap::Xsave2) > 4096 {
            return Err(Error::Restore("an extended state of more than 4 KiB".into()));
        }
        // SAFETY: the kernel reads the 4096 bytes of a `kvm_xsave`, and no more: it just said so, and this process never asks for
        // features that take more (arch_prctl(2)).
        unsafe { vcpu.set_xsave(&self.extended) }.map_err(failed())?;
        vcpu.set_xcrs(&self.extended_control).map_err(failed())?;
        vcpu.set_debug_regs(&self.debug).map_err(failed())?;
        vcpu.set_lapic(&self.local_apic).map_err(failed())?;
        let (last, first): (Vec<_>, Vec<_>) = self
            .machine
            .iter()
            .partition(|(index, _)| *index == MSR_TSC_DEADLINE);
        write(vcpu, &first)?;
        write(vcpu, &last)?;
        vcpu.set_vcpu_events(&self.events).map_err(failed())?;
        // Fails for a guest that does not use KVM's clock. The guest is to know that it stood: who tells it when it is paused
        // told the processor that was saved, and KVM forgot.
        let _ = vcpu.kvmclock_ctrl();
        Ok(())
    }

    /// Time stamps go on as fast as before, which takes hardware where the host's own differ.
    fn restore_pace(&self, vcpu: &VcpuFd) -> Result<()> {
        let (Some(saved), Ok(here)) = (self.tsc_khz, vcpu.get_tsc_khz()) else {
            return Ok(());
        };
        // Measured anew at each start of a host; NTP corrects as much.
        if u64::from(saved.abs_diff(here)) * 4000 <= u64::from(saved) {
            return Ok(());
        }
        vcpu.set_tsc_khz(saved)
            .map_err(|_| Error::Restore(format!("time stamps of {saved} kHz, its own have {here}")))
    }
}

/// The values of those this host has.
fn read(vcpu: &VcpuFd, indexes: &[u32]) -> Result<Vec<(u32, u64)>> {
    let mut values = Vec::with_capacity(indexes.len());
    let mut rest = indexes;
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(REGISTERS_AT_ONCE)];
        let mut entries = entries(some.iter().map(|index| (*index, 0)));
        let count = vcpu
            .get_msrs(&mut entries)
            .map_err(Error::kvm("read a processor's machine registers"))?;
        let read = entries.as_slice().iter().take(count);
        values.extend(read.map(|entry| (entry.index, entry.data)));
        // KVM stops at one it lists and does not have.
        rest = &rest[(count + 1).min(some.len()).max(count)..];
    }
    Ok(values)
}

/// Writes all of them, as far as they do not read so anyway.
fn write(vcpu: &VcpuFd, registers: &[(u32, u64)]) -> Result<()> {
    let mut rest = registers;
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(REGISTERS_AT_ONCE)];
        let count = vcpu
            .set_msrs(&entries(some.iter().copied()))
            .map_err(Error::kvm("restore a processor's machine registers"))?;
        let Some((index, value)) = some.get(count).copied() else {
            rest = &rest[some.len()..];
            continue;
        };
        // KVM stops at one it does not let be written.
        if read(vcpu, &[index])? != [(index, value)] {
            return Err(Error::Restore(format!(
                "machine register {index:#x} with {value:#x}"
            )));
        }
        rest = &rest[count + 1..];
    }
    Ok(())
}

fn entries(registers: impl Iterator<Item = (u32, u64)>) -> Msrs {
    let entries: Vec<_> = registers
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        })
        .collect();
    Msrs::from_entries(&entries).expect("no more than KVM takes at once")
}
