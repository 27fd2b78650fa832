//! `struct boot_params`: what the kernel is told of the machine (Documentation/arch/x86/zero-page.rst).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::layout;
use super::memory_map::memory_map;
use crate::error::{Error, Result};

/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
const ALIGNMENT: u32 = 0x0100_0000;

/// Where and how long the initial file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Initrd {
    pub(crate) at: u64,
    pub(crate) length: u64,
}

/// Writes the page. `memory_bytes` is all RAM, however it lies; `cmdline_length` counts without the closing zero.
pub(crate) fn write(
    memory: &GuestMemoryMmap,
    memory_bytes: u64,
    cmdline_length: usize,
    initrd: Option<Initrd>,
) -> Result<()> {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut page = boot_params {
        hdr: setup_header {
            type_of_loader: LOADER_UNDEFINED,
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            kernel_alignment: ALIGNMENT,
            cmd_line_ptr: small(layout::CMDLINE),
            cmdline_size: small(cmdline_length as u64),
            // Both are below the hole, so 32 bits hold them.
            ramdisk_image: initrd.map_or(0, |i| small(i.at)),
            ramdisk_size: initrd.map_or(0, |i| small(i.length)),
            ..setup_header::default()
        },
        acpi_rsdp_addr: layout::RSDP,
        ..boot_params::default()
    };
    let map = memory_map(memory_bytes);
    for (slot, (addr, size, kind)) in page.e820_table.iter_mut().zip(&map) {
        *slot = boot_e820_entry {
            addr: *addr,
            size: *size,
            r#type: *kind,
        };
    }
    page.e820_entries = u8::try_from(map.len()).expect("a handful of entries");
    memory
        .write_obj(page, GuestAddress(layout::ZERO_PAGE))
        .map_err(Error::write("the zero page"))
}
