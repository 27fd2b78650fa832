//! What PVH tells the kernel of the machine: `struct hvm_start_info`, in EBX at its 32-bit entry
//! (xen/include/public/arch-x86/hvm/start_info.h, version 1).

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::layout;
use super::memory_map::memory_map;
use super::zero_page::Initrd;
use crate::error::{Error, Result};

/// The first version with a map of memory.
const VERSION: u32 = 1;
/// Behind the structure: the initial file system's entry, then the map.
const MODULES: u64 = layout::PVH_START_INFO + size_of::<hvm_start_info>() as u64;
const MAP: u64 = MODULES + size_of::<hvm_modlist_entry>() as u64;

/// Writes it. `memory_bytes` is all RAM, however it lies; the command line ends with a zero.
pub(crate) fn write(memory: &GuestMemoryMmap, memory_bytes: u64, initrd: Option<Initrd>) -> Result<()> {
    let fail = || Error::write("PVH's start information");
    let map = memory_map(memory_bytes);
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: initrd.is_some().into(),
        modlist_paddr: if initrd.is_some() { MODULES } else { 0 },
        cmdline_paddr: layout::CMDLINE,
        rsdp_paddr: layout::RSDP,
        memmap_paddr: MAP,
        memmap_entries: u32::try_from(map.len()).expect("a handful of entries"),
        ..hvm_start_info::default()
    };
    memory
        .write_obj(info, GuestAddress(layout::PVH_START_INFO))
        .map_err(fail())?;
    if let Some(Initrd { at, length }) = initrd {
        let module = hvm_modlist_entry {
            paddr: at,
            size: length,
            ..hvm_modlist_entry::default()
        };
        memory.write_obj(module, GuestAddress(MODULES)).map_err(fail())?;
    }
    for (place, (addr, size, type_)) in (MAP..).step_by(size_of::<hvm_memmap_table_entry>()).zip(map) {
        let entry = hvm_memmap_table_entry {
            addr,
            size,
            type_,
            reserved: 0,
        };
        memory.write_obj(entry, GuestAddress(place)).map_err(fail())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_names_what_lies_behind_it() {
        let memory = crate::memory::map(16).unwrap();
        let initrd = Initrd {
            at: 0x80_0000,
            length: 5000,
        };
        write(&memory, 16 << 20, Some(initrd)).unwrap();
        let info: hvm_start_info = memory.read_obj(GuestAddress(layout::PVH_START_INFO)).unwrap();
        assert_eq!((info.magic, info.version, info.nr_modules), (0x336e_c578, 1, 1));
        let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0x80_0000, 5000));
        let last = u64::from(info.memmap_entries - 1) * 24;
        let last: hvm_memmap_table_entry = memory.read_obj(GuestAddress(info.memmap_paddr + last)).unwrap();
        assert_eq!((last.addr, last.size, last.type_), (1 << 20, 15 << 20, 1));
        let end = info.memmap_paddr + u64::from(info.memmap_entries) * 24;
        assert!(end <= layout::ZERO_PAGE, "{end:x}");

        write(&memory, 16 << 20, None).unwrap();
        let info: hvm_start_info = memory.read_obj(GuestAddress(layout::PVH_START_INFO)).unwrap();
        assert_eq!((info.nr_modules, info.modlist_paddr), (0, 0));
    }
}
