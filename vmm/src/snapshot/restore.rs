//! The recipe of a machine that goes on: `boot.rs` for one that begins.

use std::fs::File;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::{Error, State, in_file, maker, memory_file, state_file};
use crate::arch::x86_64::{generation, layout, vm_clock};
use crate::boot::{Devices, Machine};
use crate::config::{Config, MemoryBackendType, Settings, SnapshotLoad};
use crate::devices::serial::Output;
use crate::error::{Error as Failure, Result};
use crate::keeper::Door;
use crate::vm::Vm;
use crate::{kvm, memory};

/// A snapshot that was read and checked, and what it takes to go on from it.
pub(crate) struct Loaded {
    state: State,
    /// Those the machine was saved with, and what the load says otherwise.
    pub(crate) settings: Settings,
    config: Config,
    memory: File,
    load: SnapshotLoad,
    /// When it was asked for.
    pub(crate) begin: Instant,
}

impl Loaded {
    /// Reads the state and opens the memory.
    ///
    /// # Errors
    ///
    /// [`Failure::Snapshot`] for files that are none, [`Failure::Unsupported`], [`Failure::Invalid`].
    pub(crate) fn read(load: SnapshotLoad) -> Result<Loaded> {
        let begin = Instant::now();
        let backend = load.memory().map_err(|why| Failure::Invalid {
            field: "snapshot/load",
            why: why.into(),
        })?;
        supported(&load, backend.backend_type)?;
        let state = state_file::read(&load.snapshot_path).map_err(in_file(&load.snapshot_path))?;
        let saved = state.settings().map_err(in_file(&load.snapshot_path))?;
        let mut settings = Settings::default();
        settings.change(|new| *new = saved)?;
        replace(&mut settings, &load)?;
        let config = settings.complete()?;
        state
            .fits(config.vcpus, config.memory_mib)
            .map_err(in_file(&load.snapshot_path))?;
        let bytes = u64::from(config.memory_mib) * layout::MIB;
        let path = &backend.backend_path;
        let memory = memory_file::open(path, bytes).map_err(in_file(path))?;
        Ok(Loaded {
            state,
            settings,
            config,
            memory,
            load,
            begin,
        })
    }

    /// Whether it is to run at once.
    pub(crate) fn resumes(&self) -> bool {
        self.load.resume_vm
    }

    /// What becomes its memory.
    pub(crate) fn memory(&self) -> &File {
        &self.memory
    }

    /// Makes the machine, and the settings it has. The console's output goes to `console`. `door` is as in
    /// [`crate::boot::boot`].
    ///
    /// # Errors
    ///
    /// Any [`Failure`]; what was made goes with it.
    pub(crate) fn build(self, door: Option<Door>, console: Output) -> Result<(Machine, Settings)> {
        let Loaded {
            state,
            settings,
            config,
            memory,
            load,
            ..
        } = self;
        let memory = memory::map_file(config.memory_mib, memory)?;
        let kvm = kvm::open(&config.cpu.kvm_capabilities)?;
        let devices = Devices::of(&config, door)?;
        let vm = Vm::new(Arc::new(kvm), memory)?;
        let mut machine = Machine::assemble(vm, devices, console, &state.serial)?;
        state
            .restore_devices(&machine)
            .map_err(in_file(&load.snapshot_path))?;
        for (id, processor) in (0..).zip(&state.processors) {
            let vcpu = machine.create_processor(id)?;
            processor.restore(&machine.vm.fd, &vcpu)?;
            machine.vcpus.push(vcpu);
        }
        state.chips.restore(&machine.vm, load.clock_realtime)?;
        // What was on its way to the controllers when they were saved comes again, now that they are there.
        machine.vm.pulse(layout::SERIAL_IRQ)?;
        machine.keyboard().restore(&state.keyboard);
        for slot in &machine.slots {
            slot.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .interrupt_again();
        }
        if let Some(vcpu) = machine.vcpus.first() {
            vm_clock::set(&machine.vm.memory, vcpu)?;
        }
        generation::renew(&machine.vm.memory)?;
        machine.vm.pulse(layout::GENERATION_IRQ)?;
        Ok((machine, settings))
    }
}

/// What Firecracker's API can ask for and this monitor does not do.
fn supported(load: &SnapshotLoad, backend: MemoryBackendType) -> Result<()> {
    let tracks = "this monitor does not keep track of written pages";
    for (asked, what, why) in [
        (
            load.track_dirty_pages,
            "snapshot/load with track_dirty_pages",
            tracks,
        ),
        (
            load.enable_diff_snapshots,
            "snapshot/load with enable_diff_snapshots",
            tracks,
        ),
        (
            backend == MemoryBackendType::Uffd,
            "snapshot/load with backend_type Uffd",
            "this monitor takes memory from a file alone",
        ),
    ] {
        if asked {
            return Err(Failure::Unsupported { what, why });
        }
    }
    Ok(())
}

/// Puts the caller's TAPs and socket in the place of the snapshot's.
fn replace(settings: &mut Settings, load: &SnapshotLoad) -> Result<()> {
    let none = |field, why: String| Err(Failure::Invalid { field, why });
    let mut interfaces = settings.network_interfaces.clone();
    for change in &load.network_overrides {
        let Some(interface) = interfaces
            .iter_mut()
            .find(|interface| interface.iface_id == change.iface_id)
        else {
            let why = format!("the snapshot has no interface called {}", change.iface_id);
            return none("network_overrides", why);
        };
        interface.host_dev_name.clone_from(&change.host_dev_name);
    }
    let mut vsock = settings.vsock.clone();
    match (&mut vsock, &load.vsock_override) {
        (_, None) => {}
        (Some(vsock), Some(change)) => vsock.uds_path.clone_from(&change.uds_path),
        (None, Some(_)) => return none("vsock_override", "the snapshot has no vsock device".into()),
    }
    settings.change(|new| {
        new.network_interfaces = interfaces;
        new.vsock = vsock;
    })
}

impl State {
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        serde_json::from_slice(&self.settings).map_err(Error::Settings)
    }

    /// Whether it is of a machine with so many processors and so much memory, that ran on a host like this.
    pub(crate) fn fits(&self, vcpus: u8, memory_mib: u32) -> Result<(), Error> {
        let unfit = |part: &str, why| {
            Err(Error::Unfit {
                part: part.into(),
                why,
            })
        };
        if self.processors.len() != usize::from(vcpus) {
            return unfit("processors", "there are not as many as the settings say");
        }
        if self.memory != layout::ram(u64::from(memory_mib) * layout::MIB) {
            return unfit("memory", "it does not lie where it would with these settings");
        }
        if self.maker != maker() {
            return unfit("processors", "those of this host are another maker's");
        }
        Ok(())
    }

    fn restore_devices(&self, machine: &Machine) -> Result<(), Error> {
        if self.devices.len() != machine.slots.len() {
            return Err(Error::Unfit {
                part: "devices".into(),
                why: "there are not as many as the settings say",
            });
        }
        for (number, (slot, saved)) in machine.slots.iter().zip(&self.devices).enumerate() {
            let mut transport = slot.lock().unwrap_or_else(PoisonError::into_inner);
            transport.restore(saved).map_err(|malformed| Error::Unfit {
                part: format!("device {number}"),
                why: malformed.0,
            })?;
        }
        Ok(())
    }
}
