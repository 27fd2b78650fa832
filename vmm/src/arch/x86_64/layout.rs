//! The map of guest physical memory and I/O ports.
//!
//! ```text
//! 0000_0500 GDT, IDT          0000_6000 PVH start info   0000_7000 zero page
//! 0000_9000 page tables of the first GiB (3 pages)
//! 0002_0000 command line      0009_fc00 end of low RAM   000e_0000 ACPI tables
//! 000f_e000 clock             000f_f000 generation id    000f_fff0 reset vector
//! 0100_0000 kernel (where its image says)                below 3 GiB, at its end: initrd
//! c000_0000 hole: local APIC fee0_0000, I/O APIC fec0_0000, virtio-mmio d000_0000, KVM's own pages fffb_c000
//! 1_0000_0000 the rest of RAM
//! ```

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;

/// The descriptor table of the boot processor.
pub const GDT: u64 = 0x500;
/// Its empty interrupt table.
pub const IDT: u64 = 0x520;
/// `struct hvm_start_info`, its list of modules and its map of memory; a page.
pub const PVH_START_INFO: u64 = 0x6000;
/// `struct boot_params`.
pub const ZERO_PAGE: u64 = 0x7000;
/// Page map level 4; the two tables below follow it.
pub const PML4: u64 = 0x9000;
/// Page directory pointers.
pub const PDPT: u64 = 0xa000;
/// Page directory: 512 pages of 2 MiB.
pub const PD: u64 = 0xb000;
/// Where the boot processor's stack begins, downwards.
pub const BOOT_STACK: u64 = 0x8ff0;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Room for it, with the closing zero; what Linux takes (`COMMAND_LINE_SIZE`).
pub const CMDLINE_MAX: usize = 2048;
/// Where RAM that a PC's firmware leaves alone ends.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// The root pointer of ACPI, and the tables behind it.
pub const RSDP: u64 = 0xe_0000;
/// First byte after the area for ACPI tables.
pub const ACPI_END: u64 = VM_CLOCK;
/// The time of day, for who was restored; a page.
pub const VM_CLOCK: u64 = 0xf_e000;
/// The machine's generation id.
pub const GENERATION_ID: u64 = 0xf_f000;
/// Where a processor begins after a reset, as seen from real mode.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Where a kernel image may begin.
pub const HIGH_RAM: u64 = 0x10_0000;

/// Devices lie from here to 4 GiB; RAM goes on after.
pub const HOLE: u64 = 0xc000_0000;
/// Where RAM goes on.
pub const ABOVE_HOLE: u64 = 1 << 32;

/// The I/O APIC's registers.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Every local APIC's registers.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page KVM uses to run real mode on old processors.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages KVM uses for the same.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// COM1.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Its interrupt.
pub const SERIAL_IRQ: u32 = 4;
/// The timer.
pub const PIT_PORT: u16 = 0x40;
/// The keyboard controller.
pub const I8042_PORT: u16 = 0x60;
/// Its interrupt.
pub const KEYBOARD_IRQ: u32 = 1;
/// Interrupt of ACPI's event device, which tells of another generation id.
pub const GENERATION_IRQ: u32 = 5;
/// Interrupt of the same device, which tells that the power button was pressed.
pub const POWER_BUTTON_IRQ: u32 = 3;
/// ACPI's sleep control and status (one port), then the reset register.
pub const POWER_PORT: u16 = 0x600;
/// Where a panic is told, as in QEMU.
pub const PVPANIC_PORT: u16 = 0x505;

/// Where the registers of the first virtio device lie; a page each.
const VIRTIO: u64 = 0xd000_0000;
/// Between these interrupts virtio devices choose; those below belong to COM1 and what else a PC has.
const VIRTIO_IRQS: std::ops::Range<u32> = 6..24;
/// So many virtio devices there can be. The area has room for more; a guest with this many has lost its way.
pub const VIRTIO_MAX: usize = 256;

/// Registers and interrupt of a virtio device. Devices share interrupts when there are more than lines of the I/O APIC: the
/// driver asks each whether it was the one, and the lines are edges, so that none is missed.
///
/// # Panics
///
/// At [`VIRTIO_MAX`]: who numbers devices counts them.
#[must_use]
pub fn virtio(number: usize) -> (u64, u32) {
    assert!(number < VIRTIO_MAX, "there are {VIRTIO_MAX} places for devices");
    let irqs = u64::from(VIRTIO_IRQS.end - VIRTIO_IRQS.start);
    let number = number as u64;
    let irq = VIRTIO_IRQS.start + u32::try_from(number % irqs).expect("less than 24");
    (VIRTIO + number * 0x1000, irq)
}

/// Guest memory as (start, length) pairs: one below the hole, and one above it when there is more.
#[must_use]
pub fn ram(bytes: u64) -> Vec<(u64, u64)> {
    let below = bytes.min(HOLE);
    let mut regions = vec![(0, below)];
    if bytes > below {
        regions.push((ABOVE_HOLE, bytes - below));
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtio_devices_lie_in_the_hole_and_share_what_lines_there_are() {
        assert_eq!(virtio(0), (0xd000_0000, 6));
        assert_eq!(virtio(17).1, 23);
        assert_eq!(virtio(18), (0xd001_2000, 6));
        assert!(virtio(VIRTIO_MAX - 1).0 < u64::from(IO_APIC));
    }

    #[test]
    fn ram_goes_around_the_hole() {
        assert_eq!(ram(128 * MIB), [(0, 128 * MIB)]);
        assert_eq!(ram(HOLE), [(0, HOLE)]);
        assert_eq!(ram(HOLE + MIB), [(0, HOLE), (ABOVE_HOLE, MIB)]);
    }
}
