//! The least that a monitor has to ask of KVM before a guest runs, for `scripts/bench-vm` to compare berth-vmm with: one processor,
//! its CPUID, interrupt controllers in the kernel, the memory, the registers of a 64-bit guest. No configuration, no devices,
//! no threads, no confinement.
//!
//! Usage: `vmm-floor MIB CODE [MEMORY]`; the flat CODE runs at 16 MiB, in memory of nothing, or in a private map of the file MEMORY. What
//! it writes to COM1 goes to standard output; whatever else leaves the guest ends the program.
#![allow(unsafe_code)] // KVM is given an address range to treat as guest memory

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

const MIB: u64 = 1 << 20;
const CODE: u64 = 16 * MIB;
/// Page tables that map the first GiB one to one.
const TABLES: u64 = 0x9000;
/// Devices lie from here to 4 GiB; memory goes on after.
const HOLE: u64 = 0xc000_0000;
const ABOVE_HOLE: u64 = 1 << 32;
const COM1: u16 = 0x3f8;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mib, code, file) = match &words[..] {
        [mib, code] => (mib, code, None),
        [mib, code, file] => (mib, code, Some(File::open(file)?)),
        _ => return Err("usage: vmm-floor MIB CODE [MEMORY]".into()),
    };
    let bytes = mib.parse::<u64>()? * MIB;
    let code = std::fs::read(code)?;

    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    let below = bytes.min(HOLE);
    let memory = give_memory(&vm, 0, 0, below, file.as_ref())?;
    if bytes > below {
        give_memory(&vm, 1, ABOVE_HOLE, bytes - below, file.as_ref())?;
    }
    // After the memory: a slot waits for what the controllers leave to a grace period, which takes milliseconds.
    vm.set_identity_map_address(0xfffb_c000)?;
    vm.set_tss_address(0xfffb_d000)?;
    vm.create_irq_chip()?;
    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;

    write(memory, CODE, &code);
    write(memory, TABLES, &(TABLES + 0x1003).to_le_bytes());
    write(memory, TABLES + 0x1000, &(TABLES + 0x2003).to_le_bytes());
    for page in 0..512_u64 {
        write(
            memory,
            TABLES + 0x2000 + page * 8,
            &(page << 21 | 0x83).to_le_bytes(),
        );
    }
    enter_long_mode(&vcpu)?;
    loop {
        match vcpu.run()? {
            VcpuExit::IoOut(COM1, bytes) => std::io::stdout().write_all(bytes)?,
            _ => return Ok(()),
        }
        std::io::stdout().flush()?;
    }
}

/// Maps memory and makes it the guest's.
fn give_memory(
    vm: &VmFd,
    slot: u32,
    at: u64,
    length: u64,
    file: Option<&File>,
) -> Result<*mut u8, Box<dyn Error>> {
    let (kind, fd): (i32, RawFd) = match file {
        Some(file) => (0, file.as_raw_fd()),
        None => (libc::MAP_ANONYMOUS, -1),
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | kind;
    let offset = if at == 0 { 0 } else { HOLE.cast_signed() };
    // SAFETY: a fresh map where the kernel chooses; it lasts as long as the process.
    let map = unsafe {
        let (read, write) = (libc::PROT_READ, libc::PROT_WRITE);
        libc::mmap(
            std::ptr::null_mut(),
            usize::try_from(length)?,
            read | write,
            flags,
            fd,
            offset,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().into());
    }
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: at,
        memory_size: length,
        userspace_addr: map as u64,
    };
    // SAFETY: the range is the map above, which is never unmapped; the two slots do not overlap.
    unsafe { vm.set_user_memory_region(region) }?;
    Ok(map.cast())
}

/// Writes near the beginning of guest memory, of which there are 17 MiB at least.
fn write(memory: *mut u8, at: u64, bytes: &[u8]) {
    let at = usize::try_from(at).expect("a 64-bit host");
    assert!(at + bytes.len() <= usize::try_from(17 * MIB).expect("a 64-bit host"));
    // SAFETY: within the map, as was just checked; the guest does not run yet.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.add(at), bytes.len()) }
}

fn enter_long_mode(vcpu: &VcpuFd) -> Result<(), Box<dyn Error>> {
    let mut special = vcpu.get_sregs()?;
    let flat = kvm_segment {
        limit: 0xffff_ffff,
        present: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    special.cs = kvm_segment {
        selector: 16,
        type_: 0xb,
        l: 1,
        ..flat
    };
    let data = kvm_segment {
        selector: 24,
        type_: 3,
        db: 1,
        ..flat
    };
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    // Protected and paged, physical addresses extended, long mode on.
    (special.cr0, special.cr3, special.cr4, special.efer) = (0x8000_0011, TABLES, 0x20, 0x500);
    vcpu.set_sregs(&special)?;
    let mut registers = vcpu.get_regs()?;
    (registers.rip, registers.rflags) = (CODE, 2);
    vcpu.set_regs(&registers)?;
    Ok(())
}
