//! A snapshot's state file, and devices that go on from what it says: who is believed is a device like any other.

use std::cell::RefCell;
use std::path::PathBuf;

use berth_vmm::config;
use berth_vmm::fuzzing::{Snapshot, VirtioDevice};
use virtio_bindings::virtio_ids as ids;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::memory::{MEMORY, guest};
use sha2::{Digest, Sha256};

/// What a file begins with, and its version.
const MAGIC: &[u8; 8] = b"berth-vm";
const VERSION: u32 = berth_vmm::snapshot::VERSION;
/// What an input begins with that is a device's alone. No state begins so: its first number is larger.
const DEVICE: u8 = 0;
/// Turns of the event loop a device gets.
const TURNS: usize = 20;

struct Place {
    memory: GuestMemoryMmap,
    directory: tempfile::TempDir,
    disk: PathBuf,
}

thread_local! {
    static PLACE: RefCell<Place> = RefCell::new({
        let directory = tempfile::tempdir().expect("a directory");
        let disk = directory.path().join("disk");
        std::fs::write(&disk, [0; 8 * 512]).expect("room");
        Place { memory: guest(&[0, MEMORY], false), directory, disk }
    });
}

impl Place {
    fn device(&self, kind: u32) -> Option<VirtioDevice> {
        let balloon = config::Balloon {
            amount_mib: 1,
            deflate_on_oom: true,
            stats_polling_interval_s: 60,
            free_page_hinting: false,
            free_page_reporting: true,
        };
        let socket = self.directory.path().join("socket");
        match kind {
            ids::VIRTIO_ID_BLOCK => VirtioDevice::block(&self.disk, false, None, &self.memory),
            ids::VIRTIO_ID_RNG => VirtioDevice::rng(None, &self.memory),
            ids::VIRTIO_ID_BALLOON => VirtioDevice::balloon(&balloon, &self.memory),
            ids::VIRTIO_ID_VSOCK => VirtioDevice::vsock(3, &socket, &socket, &self.memory),
            _ => return None,
        }
        .ok()
    }

    /// A device of this kind goes on from what was saved, if it believes it.
    fn go_on(&self, kind: u32, saved: &[u8]) {
        // Rings full of small numbers, which are what comes far.
        let pattern: Vec<u8> = [1, 0, 0, 0, 2, 0].into_iter().cycle().take(MEMORY).collect();
        self.memory
            .write_slice(&pattern, GuestAddress(0))
            .expect("all of it");
        let Some(mut device) = self.device(kind) else {
            return;
        };
        if device.restore(saved) {
            device.run(TURNS);
            let again = device.save().expect("it has been saved before");
            drop(device);
            let third = self.device(kind);
            assert!(
                third.is_none_or(|mut third| third.restore(&again)),
                "not believed again"
            );
        }
    }
}

/// A state with a head that is right.
fn file(state: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend((state.len() as u64).to_le_bytes());
    file.extend(Sha256::digest(state));
    file.extend(state);
    file
}

/// A state file, what comes behind its head, or what it says of one device.
pub(super) fn snapshot(bytes: &[u8]) {
    if let [DEVICE, kind, saved @ ..] = bytes {
        PLACE.with_borrow(|place| place.go_on((*kind).into(), saved));
        return;
    }
    let decoded = if bytes.starts_with(MAGIC) {
        Snapshot::decode(bytes)
    } else {
        Snapshot::decode(&file(bytes))
    };
    let Ok(snapshot) = decoded else { return };
    let _ = snapshot.config();
    if let Some(ports) = snapshot.ports() {
        for port in [0x60, 0x64, 0x3f8, 0x3fd] {
            ports.read(port, &mut [0]);
            ports.write(port, &[0x20]);
        }
        ports.input(&[7; 5000]);
        let _ = ports.save();
    }
    PLACE.with_borrow(|place| {
        for (kind, saved) in snapshot.devices().into_iter().take(8) {
            place.go_on(kind, &saved);
        }
    });
}
