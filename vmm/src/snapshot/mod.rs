//! A machine that stands, as two files, and machines that go on from there.
//!
//! ```text
//! memory ─► memory_file.rs ─► a file with holes ────────── mapped copy-on-write ─┐
//! processors, chips, devices, settings ─► State ─► state_file.rs ─► restore.rs ──┴─► a Machine that only has to be let run
//! ```
//!
//! Nothing a file says is believed: see docs/snapshots.md for what is checked where.

pub(crate) mod bounded;
mod error;
mod memory_file;
mod new_file;
mod restore;
mod state_file;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

pub use error::Error;
pub(crate) use new_file::NewFile;
pub(crate) use restore::Loaded;
#[cfg(feature = "fuzzing")]
pub(crate) use state_file::decode;
pub use state_file::{STATE_MAX, VERSION};

use crate::arch::x86_64::chips::Chips;
use crate::arch::x86_64::layout::VIRTIO_MAX;
use crate::arch::x86_64::processor::Processor;
use crate::config::{Settings, SnapshotCreate, SnapshotType, VCPUS_MAX};
use crate::devices::keyboard::{self, Keyboard};
use crate::devices::serial::{self, SerialPort};
use crate::devices::virtio::saved::Saved;
use crate::devices::virtio::slots::Slots;
use crate::error::{Error as Failure, Result};
use crate::processors::Processors;
use crate::vm::Vm;

/// The longest settings: hundreds of disks with long paths.
const SETTINGS_MAX: usize = 1 << 20;
/// Memory lies in two regions at most.
const REGIONS_MAX: usize = 2;

/// Everything of a machine but its memory.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    /// Who made the host's processors, as leaf 0 of CPUID says.
    maker: [u32; 3],
    /// [`Settings`] in JSON, without log and metrics, which are a process's.
    #[serde(deserialize_with = "bounded::at_most::<_, _, SETTINGS_MAX>")]
    settings: Vec<u8>,
    /// First address and length of each region of memory, in the order of the memory file.
    #[serde(deserialize_with = "bounded::at_most::<_, _, REGIONS_MAX>")]
    memory: Vec<(u64, u64)>,
    #[serde(deserialize_with = "bounded::at_most::<_, _, { VCPUS_MAX as usize }>")]
    processors: Vec<Processor>,
    chips: Chips,
    pub(crate) serial: serial::Saved,
    pub(crate) keyboard: keyboard::Saved,
    #[serde(deserialize_with = "bounded::at_most::<_, _, VIRTIO_MAX>")]
    pub(crate) devices: Vec<Saved>,
}

/// A machine whose processors and devices stand.
pub(crate) struct Standing<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) vm: &'a Vm,
    pub(crate) processors: &'a Processors,
    pub(crate) slots: &'a Slots,
    pub(crate) serial: &'a Mutex<SerialPort>,
    pub(crate) keyboard: &'a Mutex<Keyboard>,
}

/// Writes both files, which are empty, the memory's first; their names in `ask` are for errors alone. The machine is as before. Blocks
/// for as long as the disk takes for all of the memory.
///
/// # Errors
///
/// [`Failure::Snapshot`], [`Failure::Kvm`], and [`Failure::Unsupported`] for what cannot be saved.
pub(crate) fn save(machine: &Standing<'_>, ask: &SnapshotCreate, files: [&File; 2]) -> Result<()> {
    if ask.snapshot_type == SnapshotType::Diff {
        return Err(Failure::Unsupported {
            what: "snapshot/create with snapshot_type Diff",
            why: "this monitor does not keep track of written pages",
        });
    }
    let [memory, into] = files;
    let state = machine.state()?;
    memory_file::write(memory, &machine.vm.memory).map_err(in_file(&ask.mem_file_path))?;
    state_file::write(into, &state).map_err(in_file(&ask.snapshot_path))
}

/// Names the file of a snapshot that something is wrong with.
pub(crate) fn in_file(path: &Path) -> impl FnOnce(Error) -> Failure {
    let path = path.to_owned();
    move |source| Failure::Snapshot { path, source }
}

/// The version of a state file, whether this monitor reads it or not.
///
/// # Errors
///
/// [`Failure::Snapshot`] for a file that is none.
pub fn version(path: &Path) -> Result<u32> {
    state_file::version(path).map_err(in_file(path))
}

impl Standing<'_> {
    fn state(&self) -> Result<State> {
        let mut devices = Vec::with_capacity(self.slots.len());
        for slot in self.slots {
            let transport = slot.lock().unwrap_or_else(PoisonError::into_inner);
            devices.push(transport.save().map_err(|why| Failure::Unsupported {
                what: "snapshot/create",
                why,
            })?);
        }
        let registers = self
            .vm
            .kvm
            .get_msr_index_list()
            .map_err(Failure::kvm("ask KVM which machine registers it knows"))?;
        let regions = self.vm.memory.iter();
        Ok(State {
            maker: maker(),
            settings: serde_json::to_vec(&self.settings.of_machine()).expect("what was read can be written"),
            memory: regions
                .map(|region| (region.start_addr().raw_value(), region.len()))
                .collect(),
            processors: self.processors.save(registers.as_slice().to_vec())?,
            chips: Chips::save(&self.vm.fd)?,
            serial: self.serial.lock().unwrap_or_else(PoisonError::into_inner).save(),
            keyboard: self
                .keyboard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .save(),
            devices,
        })
    }
}

/// Who made this host's processors.
fn maker() -> [u32; 3] {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx]
}
