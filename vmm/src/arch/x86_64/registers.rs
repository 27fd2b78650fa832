//! The state a kernel's entry asks for. The 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"): long
//! mode, the first memory mapped one to one, flat segments, the zero page in RSI. PVH (xen/docs/misc/pvh.pandoc): protected
//! mode without paging, flat segments, the start information in EBX. The other processors wait for the first to wake them.

use kvm_bindings::{Msrs, kvm_fpu, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::layout;
use crate::error::{Error, Result};
use crate::loader::Entry;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const FLAGS_RESERVED: u64 = 1 << 1;
const PAGE_PRESENT_WRITABLE: u64 = 3;
const PAGE_LARGE: u64 = 1 << 7;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_FAST_STRINGS: u64 = 1;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
/// MTRRs enabled, everything write-back.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const MODE_NMI: u32 = 4 << 8;
const MODE_EXTINT: u32 = 7 << 8;

/// Code and data descriptors by their place in the table; `__BOOT_CS` and `__BOOT_DS` of the protocol.
const DESCRIPTORS: [(u16, u8); 2] = [(2, 0xb), (3, 0x3)];

/// Writes descriptor and page tables into guest memory.
pub(crate) fn write_tables(memory: &GuestMemoryMmap) -> Result<()> {
    let fail = || Error::write("the boot processor's tables");
    for (index, kind) in DESCRIPTORS {
        memory
            .write_obj(descriptor(kind), GuestAddress(layout::GDT + u64::from(index) * 8))
            .map_err(fail())?;
    }
    memory
        .write_obj(0_u64, GuestAddress(layout::IDT))
        .map_err(fail())?;
    let tables = [
        (layout::PML4, layout::PDPT | PAGE_PRESENT_WRITABLE),
        (layout::PDPT, layout::PD | PAGE_PRESENT_WRITABLE),
    ];
    for (at, entry) in tables {
        memory.write_obj(entry, GuestAddress(at)).map_err(fail())?;
    }
    for page in 0..512_u64 {
        let entry = page << 21 | PAGE_PRESENT_WRITABLE | PAGE_LARGE;
        memory
            .write_obj(entry, GuestAddress(layout::PD + page * 8))
            .map_err(fail())?;
    }
    Ok(())
}

/// A flat, present, 4 GiB segment of type `kind`; code of 64 bits, data of 32 (Intel SDM 3A §3.4.5).
fn descriptor(kind: u8) -> u64 {
    let long_or_big: u64 = if kind & 8 != 0 { 1 << 53 } else { 1 << 54 };
    0x000f_0000_0000_ffff | u64::from(kind) << 40 | 1 << 44 | 1 << 47 | long_or_big | 1 << 55
}

/// A flat segment; code of 64 bits if `long`, else of 32 as data is.
fn segment(index: u16, kind: u8, long: bool) -> kvm_segment {
    let long = u8::from(long && kind & 8 != 0);
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: index * 8,
        type_: kind,
        present: 1,
        dpl: 0,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        ..kvm_segment::default()
    }
}

/// Puts the boot processor at the kernel's entry.
pub(crate) fn set_entry(vcpu: &VcpuFd, entry: Entry) -> Result<()> {
    let long = matches!(entry, Entry::Long(_));
    let mut special = vcpu.get_sregs().map_err(Error::kvm("read a processor's state"))?;
    let [(code_index, code), (data_index, data)] = DESCRIPTORS;
    special.cs = segment(code_index, code, long);
    let data = segment(data_index, data, long);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.gdt.base = layout::GDT;
    special.gdt.limit = 4 * 8 - 1;
    special.idt.base = layout::IDT;
    special.idt.limit = 7;
    special.cr0 = CR0_PE | CR0_ET;
    if long {
        special.cr0 |= CR0_PG;
        special.cr3 = layout::PML4;
        special.cr4 = CR4_PAE;
        special.efer = EFER_LME | EFER_LMA;
    }
    vcpu.set_sregs(&special)
        .map_err(Error::kvm("set a processor's mode"))?;
    let registers = kvm_regs {
        rflags: FLAGS_RESERVED,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&match entry {
        Entry::Long(rip) => kvm_regs {
            rip,
            rsi: layout::ZERO_PAGE,
            rsp: layout::BOOT_STACK,
            rbp: layout::BOOT_STACK,
            ..registers
        },
        Entry::Pvh(rip) => kvm_regs {
            rip,
            rbx: layout::PVH_START_INFO,
            ..registers
        },
    })
    .map_err(Error::kvm("set a processor's registers"))
}

/// What every processor gets: floating point, machine registers, and the local APIC's two pins as a PC wires them.
pub(crate) fn set_common(vcpu: &VcpuFd) -> Result<()> {
    vcpu.set_fpu(&kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..kvm_fpu::default()
    })
    .map_err(Error::kvm("set a processor's floating point state"))?;
    let msrs = [
        (MSR_MISC_ENABLE, MISC_FAST_STRINGS),
        (MSR_MTRR_DEFAULT, MTRR_WRITE_BACK),
    ]
    .map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    let msrs = Msrs::from_entries(&msrs).expect("two entries fit");
    let set = vcpu
        .set_msrs(&msrs)
        .map_err(Error::kvm("set a processor's machine registers"))?;
    if set != msrs.as_slice().len() {
        return Err(Error::Lacking("a machine register every kernel expects"));
    }
    let mut lapic = vcpu.get_lapic().map_err(Error::kvm("read a local APIC"))?;
    set_lvt(&mut lapic, LVT_LINT0, MODE_EXTINT);
    set_lvt(&mut lapic, LVT_LINT1, MODE_NMI);
    vcpu.set_lapic(&lapic).map_err(Error::kvm("set a local APIC"))
}

/// A table entry's delivery mode is its bits 8 to 10.
fn set_lvt(lapic: &mut kvm_lapic_state, at: usize, mode: u32) {
    for (slot, byte) in lapic.regs[at..at + 4].iter_mut().zip(mode.to_le_bytes()) {
        *slot = byte.cast_signed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_protocols() {
        assert_eq!(descriptor(0xb), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(0x3), 0x00cf_9300_0000_ffff);
    }
}
