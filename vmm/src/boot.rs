//! The recipe: a configuration becomes a machine that only has to be let run.

mod devices;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use berth_sys::credentials;
use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::arch::x86_64::{
    acpi, cpuid, generation, layout, pvh, registers, reset_vector, template, vm_clock, zero_page,
};
use crate::bus::Bus;
use crate::config::Config;
use crate::devices::keyboard::{I8042_PARTS, Keyboard};
use crate::devices::pit::{self, PIT_LEN, Pit};
use crate::devices::power::{AcpiPower, POWER_LEN};
use crate::devices::pvpanic::{PVPANIC_LEN, PvPanic};
use crate::devices::serial::{self, Line, Output, SERIAL_LEN, SerialPort};
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::endpoint::{Endpoint, Shared};
use crate::devices::virtio::slots::{self, Slots};
use crate::error::{Error, Result};
use crate::keeper::Door;
use crate::loader::Entry;
use crate::socket_file::SocketFile;
use crate::vm::Vm;
use crate::{kvm, loader, memory};
pub(crate) use devices::{Devices, Drives, Interfaces};

/// A machine whose processors stand at their first instruction.
pub struct Machine {
    pub(crate) vcpus: Vec<VcpuFd>,
    pub(crate) ports: Arc<Bus>,
    pub(crate) mmio: Arc<Bus>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Those of the shared directories, which have threads of their own.
    pub(crate) shares: Vec<Endpoint>,
    pub(crate) slots: Slots,
    /// Names that go with the machine.
    pub(crate) sockets: Vec<SocketFile>,
    pub(crate) drives: Drives,
    pub(crate) interfaces: Interfaces,
    pub(crate) balloon: Option<Arc<Shared<Balloon>>>,
    pub(crate) serial: Arc<Mutex<SerialPort>>,
    pub(crate) keyboard: Arc<Mutex<Keyboard>>,
    /// Keeps guest memory mapped: shared by whoever runs a processor, for KVM goes on using the addresses.
    pub(crate) vm: Arc<Vm>,
}

/// Builds a machine; the console's output goes to `console`. Reads the kernel and the initial file system. In a jail, who
/// listens for the guest is reached by `door`.
///
/// # Errors
///
/// Any [`Error`]; what was made goes with it.
pub(crate) fn boot(config: &Config, door: Option<Door>, console: Output) -> Result<Machine> {
    let kvm = kvm::open(&config.cpu.kvm_capabilities)?;
    let kvm = Arc::new(kvm);
    let (answer, asking) = ask_beside(kvm.clone())?;
    let memory = memory::map(config.memory_mib)?;
    let entry = load(config, &memory)?;
    let devices = Devices::of(config, door)?;
    acpi::write(&memory, config.vcpus, devices.devices.len())?;
    registers::write_tables(&memory)?;
    reset_vector::write(&memory)?;
    generation::renew(&memory)?;
    vm_clock::write(&memory)?;
    let vm = Vm::new(kvm, memory)?;
    let mut machine = Machine::assemble(vm, devices, console, &serial::Saved::default())?;

    let mut table = answer.recv().expect("asking does not panic")?;
    template::change_cpuid(&config.cpu, &mut table)?;
    for id in 0..config.vcpus {
        let vcpu = machine.create_processor(id)?;
        vcpu.set_cpuid2(&cpuid::of_vcpu(table.clone(), id, config.vcpus))
            .map_err(Error::kvm("tell a processor what it is"))?;
        // Before the registers of the boot protocol, which are the kernel's to rely on.
        template::change_msrs(&config.cpu, &vcpu)?;
        registers::set_common(&vcpu)?;
        if id == 0 {
            registers::set_entry(&vcpu, entry)?;
        }
        machine.vcpus.push(vcpu);
    }
    // It has long ended by now. It must have, because nobody confines it.
    asking.join().expect("asking does not panic");
    Ok(machine)
}

/// Asks for what processors can be, on a thread of its own that ends when it has answered. KVM asks the processor hundreds of things for it;
/// where the host is a virtual machine, each of them is an exit, and together a fifth of a start.
fn ask_beside(kvm: Arc<Kvm>) -> Result<(mpsc::Receiver<Result<CpuId>>, JoinHandle<()>)> {
    let (sender, answer) = mpsc::channel();
    let thread = std::thread::Builder::new().name("cpuid".into());
    let asking = thread.spawn(move || {
        // Root and working directory of its own: who shares his with a thread, one that is about to end even, enters no mount
        // namespace (setns(2)).
        let _ = credentials::unshare(libc::CLONE_FS);
        // Fails when the machine could not be built meanwhile.
        let _ = sender.send(cpuid::supported(&kvm));
    });
    let asking = asking.map_err(|source| Error::Events {
        operation: "start a thread",
        source,
    })?;
    Ok((answer, asking))
}

impl Machine {
    /// Connects everything but processors. COM1 is as it was saved.
    ///
    /// # Errors
    ///
    /// When KVM, or the kernel, has no more events.
    pub(crate) fn assemble(
        vm: Vm,
        devices: Devices,
        console: Output,
        com1: &serial::Saved,
    ) -> Result<Machine> {
        let vm = Arc::new(vm);
        let line = Line(vm.line(layout::SERIAL_IRQ)?);
        let serial = SerialPort::new(line, console, com1).map_err(|source| Error::Events {
            operation: "create an event",
            source,
        })?;
        let serial = Arc::new(Mutex::new(serial));
        let mut ports = Bus::default();
        ports.attach(layout::SERIAL_PORT.into(), SERIAL_LEN, serial.clone());
        let keyboard = Arc::new(Mutex::new(Keyboard::new(vm.line(layout::KEYBOARD_IRQ)?)));
        for part in I8042_PARTS {
            ports.attach_part(layout::I8042_PORT.into(), part, keyboard.clone());
        }
        let pit = Arc::new(Mutex::new(Pit::new(vm.clone())));
        for part in [0..PIT_LEN, pit::SPEAKER..pit::SPEAKER + 1] {
            ports.attach_part(layout::PIT_PORT.into(), part, pit.clone());
        }
        let power = Arc::new(Mutex::new(AcpiPower));
        ports.attach(layout::POWER_PORT.into(), POWER_LEN, power);
        let pvpanic = Arc::new(Mutex::new(PvPanic));
        ports.attach(layout::PVPANIC_PORT.into(), PVPANIC_LEN, pvpanic);

        let mut mmio = Bus::default();
        let (mut endpoints, slots) = slots::fill(devices.devices, &vm, &mut mmio)?;
        let shares = endpoints.split_off(endpoints.len() - devices.shares);
        Ok(Machine {
            vcpus: Vec::new(),
            ports: Arc::new(ports),
            mmio: Arc::new(mmio),
            endpoints,
            shares,
            slots,
            sockets: devices.sockets,
            drives: devices.drives,
            interfaces: devices.interfaces,
            balloon: devices.balloon,
            serial,
            keyboard,
            vm,
        })
    }

    /// Makes processor number `id`, as KVM leaves it.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`].
    pub(crate) fn create_processor(&self, id: u8) -> Result<VcpuFd> {
        self.vm
            .fd
            .create_vcpu(id.into())
            .map_err(Error::kvm("create a virtual processor"))
    }

    /// The keyboard, to oneself.
    pub(crate) fn keyboard(&self) -> MutexGuard<'_, Keyboard> {
        self.keyboard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kernel, initial file system, command line and what names them in the way of the entry; the kernel's entry.
fn load(config: &Config, memory: &GuestMemoryMmap) -> Result<Entry> {
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
    match kernel.entry {
        Entry::Long(_) => zero_page::write(memory, bytes, config.cmdline.len(), initrd)?,
        Entry::Pvh(_) => pvh::write(memory, bytes, initrd)?,
    }
    Ok(kernel.entry)
}
