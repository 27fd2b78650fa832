//! ACPI tables of a machine with reduced hardware: processors, interrupt controllers, COM1, keyboard, power button, virtio devices,
//! where a panic is told, generation id, clock, sleep and reset.
//!
//! ```text
//! RSDP ─► XSDT ─┬─► FADT ─► DSDT      how to switch off and reset; devices
//!               └─► MADT              processors and I/O APIC
//! ```

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{layout, vm_clock};
use crate::devices::power::{RESET_AT, RESET_VALUE, S5};
use crate::devices::serial::SERIAL_LEN;
use crate::devices::virtio::mmio::MMIO_LEN;
use crate::error::{Error, Result};

const OEM: [u8; 6] = *b"BERTH ";
const OEM_TABLE: [u8; 8] = *b"BERTHVMM";
const REVISION: u32 = 1;
/// Tables begin here, behind the root pointer.
const TABLES: u64 = layout::RSDP + 64;
const SDT_HEADER: usize = 36;
const GENERATION_DEVICE: &str = "_SB_.VGEN";
const BUTTON_DEVICE: &str = "_SB_.PWRB";
/// What drivers of the power button are notified with (ACPI 6.5 §5.6.6).
const BUTTON_PRESSED: u8 = 0x80;
/// What drivers of the generation id are notified with.
const GENERATION_CHANGED: u8 = 0x80;

/// Writes all tables for `vcpus` processors and `virtio` devices.
pub(crate) fn write(memory: &GuestMemoryMmap, vcpus: u8, virtio: usize) -> Result<()> {
    let mut writer = Writer { memory, next: TABLES };
    let dsdt = writer.put(&dsdt(vcpus, virtio))?;
    let fadt = writer.put(&bytes(&fadt(dsdt)))?;
    let madt = writer.put(&bytes(&madt(vcpus)))?;
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = writer.put(&bytes(&xsdt))?;
    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    memory
        .write_slice(&rsdp, GuestAddress(layout::RSDP))
        .map_err(Error::write("the root of ACPI"))
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Puts tables one behind the other.
struct Writer<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl Writer<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64> {
        let at = self.next;
        self.next = (at + table.len() as u64).next_multiple_of(16);
        assert!(
            self.next <= layout::ACPI_END,
            "32 processors' tables take a hundredth of the area"
        );
        self.memory
            .write_slice(table, GuestAddress(at))
            .map_err(Error::write("ACPI tables"))?;
        Ok(at)
    }
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let port = |offset: u8| {
        let address = u64::from(layout::POWER_PORT) + u64::from(offset);
        GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, address)
    };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.sleep_control_reg = port(0);
    fadt.sleep_status_reg = port(1);
    fadt.reset_reg = port(RESET_AT);
    fadt.reset_value = RESET_VALUE;
    // IAPC_BOOT_ARCH (ACPI 6.5 §5.2.9.3): no VGA, no CMOS clock; the keyboard controller is there.
    fadt.iapc_boot_arch = (1 << 1 | 1 << 2 | 1 << 5).into();
    fadt.finalize()
}

fn madt(vcpus: u8) -> MADT {
    let local = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM, OEM_TABLE, REVISION, local);
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    madt
}

fn dsdt(vcpus: u8, virtio: usize) -> Vec<u8> {
    let names: Vec<String> = (0..vcpus).map(|id| format!("C{id:03}")).collect();
    let hid = aml::Name::new("_HID".into(), &"ACPI0007");
    let uids: Vec<aml::Name> = (0..vcpus).map(|id| aml::Name::new("_UID".into(), &id)).collect();
    let processors: Vec<aml::Device> = names
        .iter()
        .zip(&uids)
        .map(|(name, uid)| aml::Device::new(name.as_str().into(), vec![&hid, uid]))
        .collect();

    let devices: Vec<&dyn Aml> = processors.iter().map(|p| p as &dyn Aml).collect();
    let mut body = bytes(&aml::Scope::new("_SB_".into(), devices));
    body.extend(com1());
    body.extend(keyboard());
    body.extend(pvpanic());
    body.extend(power_button());
    body.extend(generation_id());
    body.extend(clock());
    body.extend(events());
    for number in 0..virtio {
        body.extend(virtio_device(number));
    }
    aml::Name::new("_S5_".into(), &aml::Package::new(vec![&S5])).to_aml_bytes(&mut body);

    let length = u32::try_from(SDT_HEADER).expect("36");
    let mut table = Sdt::new(*b"DSDT", length, 6, OEM, OEM_TABLE, REVISION);
    table.append_slice(&body);
    table.as_slice().to_vec()
}

/// A PC's COM1.
fn com1() -> Vec<u8> {
    let ports = u8::try_from(SERIAL_LEN).expect("8 ports");
    let registers = aml::IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 0, ports);
    pc_device("_SB_.COM1", "PNP0501", layout::SERIAL_IRQ, &[&registers])
}

/// A PC's keyboard: data port, then command port. Without it a kernel looks for the controller all the same, and finds
/// its interrupt with nobody to say how it is wired.
fn keyboard() -> Vec<u8> {
    let [data, command] =
        [layout::I8042_PORT, layout::I8042_PORT + 4].map(|port| aml::IO::new(port, port, 0, 1));
    pc_device("_SB_.KBD0", "PNP0303", layout::KEYBOARD_IRQ, &[&data, &command])
}

/// Where a panic is told; Linux takes the one of QEMU's id (drivers/misc/pvpanic/pvpanic-mmio.c).
fn pvpanic() -> Vec<u8> {
    let port = aml::IO::new(layout::PVPANIC_PORT, layout::PVPANIC_PORT, 0, 1);
    let hid = aml::Name::new("_HID".into(), &"QEMU0001");
    let resources = aml::ResourceTemplate::new(vec![&port]);
    let resources = aml::Name::new("_CRS".into(), &resources);
    bytes(&aml::Device::new("_SB_.PEVT".into(), vec![&hid, &resources]))
}

/// A control-method power button (ACPI 6.5 §4.8.3.2.1.2): hardware of its own there is none.
fn power_button() -> Vec<u8> {
    let hid = aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0C0C"));
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    bytes(&aml::Device::new(BUTTON_DEVICE.into(), vec![&hid, &uid]))
}

/// Where the generation id lies ("Virtual Machine Generation ID", Microsoft 2012).
fn generation_id() -> Vec<u8> {
    const KIND: &str = "VM_Gen_Counter";
    let hid = aml::Name::new("_HID".into(), &"VMGENCTR");
    let cid = aml::Name::new("_CID".into(), &KIND);
    let ddn = aml::Name::new("_DDN".into(), &KIND);
    let (low, high) = (
        layout::GENERATION_ID & u64::from(u32::MAX),
        layout::GENERATION_ID >> 32,
    );
    let address = aml::Package::new(vec![&low, &high]);
    let address = aml::Name::new("ADDR".into(), &address);
    bytes(&aml::Device::new(
        GENERATION_DEVICE.into(),
        vec![&hid, &cid, &ddn, &address],
    ))
}

/// Where the time of day lies (UAPI.13, with the id of the first to have one).
fn clock() -> Vec<u8> {
    const KIND: &str = "VMCLOCK";
    let hid = aml::Name::new("_HID".into(), &"AMZNC10C");
    let cid = aml::Name::new("_CID".into(), &KIND);
    let ddn = aml::Name::new("_DDN".into(), &KIND);
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let at = u32::try_from(layout::VM_CLOCK).expect("below 4 GiB");
    let page = aml::Memory32Fixed::new(false, at, vm_clock::SIZE);
    let resources = aml::ResourceTemplate::new(vec![&page]);
    let resources = aml::Name::new("_CRS".into(), &resources);
    bytes(&aml::Device::new(
        "_SB_.VCLK".into(),
        vec![&hid, &cid, &ddn, &uid, &resources],
    ))
}

/// The device that tells of events where there is no fixed hardware for it (ACPI 6.5 §5.6.9): one interrupt says that there
/// is another generation id, the other that somebody pressed the power button.
fn events() -> Vec<u8> {
    let id = aml::Path::new(&format!("\\{GENERATION_DEVICE}"));
    let changed = aml::Notify::new(&id, &GENERATION_CHANGED);
    let button = aml::Path::new(&format!("\\{BUTTON_DEVICE}"));
    let pressed = aml::Notify::new(&button, &BUTTON_PRESSED);
    let [for_id, for_button] = [layout::GENERATION_IRQ, layout::POWER_BUTTON_IRQ];
    let of_id = aml::Equal::new(&aml::Arg(0), &for_id);
    let of_button = aml::Equal::new(&aml::Arg(0), &for_button);
    let if_id = aml::If::new(&of_id, vec![&changed]);
    let if_button = aml::If::new(&of_button, vec![&pressed]);
    let hear = aml::Method::new("_EVT".into(), 1, true, vec![&if_id, &if_button]);
    let line = |irq| aml::Interrupt::new(true, true, false, false, irq);
    let (id_line, button_line) = (line(for_id), line(for_button));
    let resources = aml::ResourceTemplate::new(vec![&id_line, &button_line]);
    let hid = aml::Name::new("_HID".into(), &"ACPI0013");
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let resources = aml::Name::new("_CRS".into(), &resources);
    bytes(&aml::Device::new(
        "_SB_.GED0".into(),
        vec![&hid, &uid, &resources, &hear],
    ))
}

/// A device of a PC, whose interrupt is an edge.
fn pc_device(name: &str, id: &str, irq: u32, ports: &[&dyn Aml]) -> Vec<u8> {
    let line = aml::Interrupt::new(true, true, false, false, irq);
    let mut resources: Vec<&dyn Aml> = vec![&line];
    resources.extend(ports);
    let resources = aml::ResourceTemplate::new(resources);
    let hid = aml::Name::new("_HID".into(), &aml::EISAName::new(id));
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let resources = aml::Name::new("_CRS".into(), &resources);
    bytes(&aml::Device::new(name.into(), vec![&hid, &uid, &resources]))
}

/// A virtio device as Linux finds it (drivers/virtio/virtio_mmio.c: `LNRO0005`).
fn virtio_device(number: usize) -> Vec<u8> {
    let (registers, irq) = layout::virtio(number);
    let registers = u32::try_from(registers).expect("below 4 GiB");
    let length = u32::try_from(MMIO_LEN).expect("a page");
    let memory = aml::Memory32Fixed::new(true, registers, length);
    let line = aml::Interrupt::new(true, true, false, true, irq);
    let resources = aml::ResourceTemplate::new(vec![&memory, &line]);
    let number = u32::try_from(number).expect("few");
    let hid = aml::Name::new("_HID".into(), &"LNRO0005");
    let uid = aml::Name::new("_UID".into(), &number);
    // Without it the kernel thinks that the device's view of memory is not the processors'.
    let coherent = aml::Name::new("_CCA".into(), &aml::ONE);
    let resources = aml::Name::new("_CRS".into(), &resources);
    let name = format!("_SB_.V{number:03X}");
    bytes(&aml::Device::new(
        name.as_str().into(),
        vec![&hid, &uid, &coherent, &resources],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums_to_zero(table: &[u8]) -> bool {
        table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    }

    #[test]
    fn tables_hang_together() {
        let memory = crate::memory::map(16).unwrap();
        write(&memory, 32, layout::VIRTIO_MAX).unwrap();
        let read = |at: u64, length: usize| {
            let mut bytes = vec![0; length];
            memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            bytes
        };
        let table = |at: u64| {
            let length = u32::from_le_bytes(read(at + 4, 4).try_into().unwrap());
            read(at, usize::try_from(length).unwrap())
        };
        let pointer = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let rsdp = read(layout::RSDP, 36);
        assert!(rsdp.starts_with(b"RSD PTR ") && sums_to_zero(&rsdp[..20]) && sums_to_zero(&rsdp));
        let xsdt = table(pointer(&rsdp, 24));
        assert!(xsdt.starts_with(b"XSDT") && sums_to_zero(&xsdt));
        let (fadt, madt) = (table(pointer(&xsdt, 36)), table(pointer(&xsdt, 44)));
        assert!(fadt.starts_with(b"FACP") && sums_to_zero(&fadt));
        assert!(madt.starts_with(b"APIC") && sums_to_zero(&madt));
        assert_eq!(madt.len(), 44 + 32 * 8 + 12);
        let dsdt = table(pointer(&fadt, 140));
        assert!(dsdt.starts_with(b"DSDT") && sums_to_zero(&dsdt));
    }
}
