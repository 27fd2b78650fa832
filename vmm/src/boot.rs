//! The recipe: a configuration becomes a machine that only has to be let run.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::arch::x86_64::{acpi, cpuid, layout, registers, reset_vector, template, zero_page};
use crate::bus::Bus;
use crate::config::{CacheType, Config, Drive};
use crate::devices::keyboard::{I8042_LEN, Keyboard};
use crate::devices::power::{AcpiPower, POWER_LEN};
use crate::devices::serial::{Line, Output, SERIAL_LEN, SerialPort};
use crate::devices::virtio::block::{Block, Disk};
use crate::devices::virtio::endpoint::{Endpoint, Shared};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::slots;
use crate::devices::virtio::throttle::Throttle;
use crate::error::{Error, Result};
use crate::vm::Vm;
use crate::{kvm, loader, memory};

/// A machine whose processors stand at their first instruction.
pub struct Machine {
    pub(crate) vcpus: Vec<VcpuFd>,
    pub(crate) ports: Arc<Bus>,
    pub(crate) mmio: Arc<Bus>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) serial: Arc<Mutex<SerialPort>>,
    pub(crate) keyboard: Arc<Mutex<Keyboard>>,
    /// Keeps guest memory mapped: shared by whoever runs a processor, for KVM goes on using the addresses.
    pub(crate) vm: Arc<Vm>,
}

/// Builds a machine; the console's output goes to `console`. Reads the kernel and the initial file system.
///
/// # Errors
///
/// Any [`Error`]; what was made goes with it.
pub fn boot(config: &Config, console: Output) -> Result<Machine> {
    let kvm = kvm::open(&config.cpu.kvm_capabilities)?;
    let memory = memory::map(config.memory_mib)?;
    let entry = load(config, &memory)?;
    let devices = devices(config)?;
    acpi::write(&memory, config.vcpus, devices.len())?;
    registers::write_tables(&memory)?;
    reset_vector::write(&memory)?;
    let vm = Vm::new(&kvm, memory)?;

    let serial =
        SerialPort::new(Line(vm.line(layout::SERIAL_IRQ)?), console).map_err(|source| Error::Events {
            operation: "create an event",
            source,
        })?;
    let serial = Arc::new(Mutex::new(serial));
    let mut ports = Bus::default();
    ports.attach(layout::SERIAL_PORT.into(), SERIAL_LEN, serial.clone());
    let keyboard = Arc::new(Mutex::new(Keyboard::new(vm.line(layout::KEYBOARD_IRQ)?)));
    ports.attach(layout::I8042_PORT.into(), I8042_LEN, keyboard.clone());
    let power = Arc::new(Mutex::new(AcpiPower));
    ports.attach(layout::POWER_PORT.into(), POWER_LEN, power);

    let mut mmio = Bus::default();
    let endpoints = slots::fill(devices, &vm, &mut mmio)?;

    let mut table = cpuid::supported(&kvm)?;
    template::change_cpuid(&config.cpu, &mut table)?;
    let mut vcpus = Vec::with_capacity(config.vcpus.into());
    for id in 0..config.vcpus {
        let vcpu = vm
            .fd
            .create_vcpu(id.into())
            .map_err(Error::kvm("create a virtual processor"))?;
        vcpu.set_cpuid2(&cpuid::of_vcpu(table.clone(), id, config.vcpus))
            .map_err(Error::kvm("tell a processor what it is"))?;
        // Before the registers of the boot protocol, which are the kernel's to rely on.
        template::change_msrs(&config.cpu, &vcpu)?;
        registers::set_common(&vcpu)?;
        if id == 0 {
            registers::set_entry(&vcpu, entry)?;
        }
        vcpus.push(vcpu);
    }
    Ok(Machine {
        vcpus,
        ports: Arc::new(ports),
        mmio: Arc::new(mmio),
        endpoints,
        serial,
        keyboard,
        vm: Arc::new(vm),
    })
}

/// The virtio devices, in the order in which the guest finds them: its kernel names disks in that order.
fn devices(config: &Config) -> Result<Vec<Arc<Shared>>> {
    let mut devices: Vec<Arc<Shared>> = Vec::new();
    for drive in &config.drives {
        devices.push(Shared::new(disk(drive)?)?);
    }
    if let Some(entropy) = &config.entropy {
        let throttle =
            Throttle::new(entropy.rate_limiter, Instant::now()).map_err(|source| Error::Events {
                operation: "create a timer",
                source,
            })?;
        devices.push(Shared::new(Rng::new(throttle))?);
    }
    if devices.len() > layout::VIRTIO_MAX {
        return Err(Error::Invalid {
            field: "drives",
            why: format!("there is room for {} devices", layout::VIRTIO_MAX),
        });
    }
    Ok(devices)
}

fn disk(drive: &Drive) -> Result<Block> {
    let cannot = |source| Error::Drive {
        id: drive.drive_id.to_string(),
        path: drive.path_on_host.clone(),
        source,
    };
    let flushes = drive.cache_type == CacheType::Writeback;
    let disk = Disk::open(
        &drive.path_on_host,
        drive.drive_id.as_str(),
        drive.is_read_only,
        flushes,
    )
    .map_err(cannot)?;
    let throttle = Throttle::new(drive.rate_limiter, Instant::now()).map_err(cannot)?;
    Ok(Block::new(disk, throttle))
}

/// Kernel, initial file system, command line and the page that names them; the kernel's entry.
fn load(config: &Config, memory: &GuestMemoryMmap) -> Result<u64> {
    let kernel = loader::kernel(memory, &config.kernel).map_err(|source| Error::Kernel {
        path: config.kernel.clone(),
        source,
    })?;
    let initrd = match &config.initrd {
        Some(path) => {
            let (at, length) = loader::initrd(memory, path, kernel.end).map_err(|source| Error::Initrd {
                path: path.clone(),
                source,
            })?;
            Some(zero_page::Initrd { at, length })
        }
        None => None,
    };
    // Checked to be short enough and without a zero inside.
    let mut cmdline = config.cmdline.clone().into_bytes();
    cmdline.push(0);
    memory
        .write_slice(&cmdline, GuestAddress(layout::CMDLINE))
        .map_err(Error::write("the command line"))?;
    let bytes = u64::from(config.memory_mib) * layout::MIB;
    zero_page::write(memory, bytes, config.cmdline.len(), initrd)?;
    Ok(kernel.entry)
}
