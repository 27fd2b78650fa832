//! A virtio device, its registers and its event loop.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use event_manager::{EventManager, SubscriberOps};
use vm_memory::GuestMemoryMmap;

use super::network::Network;
use super::no_device;
use crate::bus::Registers;
use crate::config::{self, MacAddress, RateLimiter};
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::block::{Block, Disk, open_file};
use crate::devices::virtio::device::Device;
use crate::devices::virtio::endpoint::{Endpoint, Shared};
use crate::devices::virtio::fs::{Budget, Directory, Fs};
use crate::devices::virtio::mmio::Transport;
use crate::devices::virtio::net::Net;
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::saved::Saved;
use crate::devices::virtio::throttle::Throttle;
use crate::devices::virtio::vsock::{Peers, Vsock};
use crate::error::Result;
use crate::socket_file::SocketFile;

/// A virtio device with its registers and an event loop of its own, and what the API can change of it.
pub struct VirtioDevice {
    registers: Transport,
    shared: Arc<Shared>,
    events: EventManager<Endpoint>,
    changed: Changed,
    /// The name of a vsock device's socket, which goes with it.
    _socket: Option<SocketFile>,
}

/// Where a queue's rings lie, as the driver has set them up.
#[derive(Debug, Clone, Copy)]
pub struct Rings {
    /// Descriptors.
    pub size: u16,
    /// Whether the driver said that it is set up.
    pub ready: bool,
    /// The guest's address of the descriptor table.
    pub descriptors: u64,
    /// Of the available ring.
    pub available: u64,
    /// Of the used ring.
    pub used: u64,
}

/// What kind it is, for those that the API can change.
enum Changed {
    Nothing,
    Block(Arc<Shared<Block>>),
    Balloon(Arc<Shared<Balloon>>),
    Net(Arc<Shared<Net>>),
}

impl VirtioDevice {
    /// A disk.
    ///
    /// # Errors
    ///
    /// Those of opening the file, and of descriptors.
    pub fn block(
        disk: &Path,
        read_only: bool,
        limits: Option<RateLimiter>,
        memory: &GuestMemoryMmap,
    ) -> Result<VirtioDevice> {
        let disk = Disk::open(disk, "fuzz", read_only, true).map_err(no_device)?;
        let shared = Shared::new(Block::new(disk, throttle(limits)?))?;
        VirtioDevice::new(shared.clone(), Changed::Block(shared), memory)
    }

    /// A source of random numbers.
    ///
    /// # Errors
    ///
    /// Those of descriptors.
    pub fn rng(limits: Option<RateLimiter>, memory: &GuestMemoryMmap) -> Result<VirtioDevice> {
        VirtioDevice::new(
            Shared::new(Rng::new(throttle(limits)?))?,
            Changed::Nothing,
            memory,
        )
    }

    /// A network card on this network, with limits for both directions.
    ///
    /// # Errors
    ///
    /// Those of descriptors.
    pub fn net(
        network: &Network,
        mtu: Option<u16>,
        limits: Option<RateLimiter>,
        memory: &GuestMemoryMmap,
    ) -> Result<VirtioDevice> {
        let tap = network.tap.again().map_err(no_device)?;
        let address = Some(MacAddress([6, 0, 0, 0, 0, 1]));
        let card = Net::new(tap, address, mtu, throttle(limits)?, throttle(limits)?);
        let shared = Shared::new(card)?;
        VirtioDevice::new(shared.clone(), Changed::Net(shared), memory)
    }

    /// Sockets, at `path` for who asks from the host.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`.
    pub fn vsock(
        guest_cid: u32,
        path: &Path,
        peers: &Path,
        memory: &GuestMemoryMmap,
    ) -> Result<VirtioDevice> {
        let (vsock, socket) = Vsock::new(guest_cid, path, Peers::At(peers.into())).map_err(no_device)?;
        let mut device = VirtioDevice::new(Shared::new(vsock)?, Changed::Nothing, memory)?;
        device._socket = Some(socket);
        Ok(device)
    }

    /// A directory of the host's, of which the guest may hold so many objects.
    ///
    /// # Errors
    ///
    /// Those of sharing it: `EPERM` without root.
    pub fn fs(
        path: &Path,
        read_only: bool,
        objects: usize,
        memory: &GuestMemoryMmap,
    ) -> Result<VirtioDevice> {
        let directory = Directory::share(path, read_only, Budget::of(objects)).map_err(no_device)?;
        VirtioDevice::new(Shared::new(Fs::new("fuzz", directory))?, Changed::Nothing, memory)
    }

    /// A balloon.
    ///
    /// # Errors
    ///
    /// Those of descriptors.
    pub fn balloon(config: &config::Balloon, memory: &GuestMemoryMmap) -> Result<VirtioDevice> {
        let shared = Shared::new(Balloon::new(config).map_err(no_device)?)?;
        VirtioDevice::new(shared.clone(), Changed::Balloon(shared), memory)
    }

    fn new<D: Device + 'static>(
        shared: Arc<Shared<D>>,
        changed: Changed,
        memory: &GuestMemoryMmap,
    ) -> Result<VirtioDevice> {
        let shared: Arc<Shared> = shared;
        let mut events = EventManager::new().map_err(|e| no_device(io::Error::other(e.to_string())))?;
        events.add_subscriber(Endpoint::new(shared.clone()));
        Ok(VirtioDevice {
            registers: Transport::new(shared.clone(), memory.clone()),
            shared,
            events,
            changed,
            _socket: None,
        })
    }

    /// A guest's read of registers, `offset` bytes behind the device's first.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.registers.read(offset, data);
    }

    /// A guest's write.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let exit = self.registers.write(offset, data);
        assert_eq!(exit, None, "no virtio device ends the machine");
    }

    /// Lets the event loop work until nothing is left to do now, or for `turns` turns; whether it came to rest.
    pub fn run(&mut self, turns: usize) -> bool {
        (0..turns).any(|_| self.events.run_with_timeout(0).expect("epoll waits") == 0)
    }

    /// The most descriptors of each of its queues.
    #[must_use]
    pub fn queue_sizes(&self) -> Vec<u16> {
        self.shared.read(|device| device.queue_sizes().to_vec())
    }

    /// Where its queues lie.
    #[must_use]
    pub fn rings(&self) -> Vec<Rings> {
        self.registers.rings()
    }

    /// Whether the device interrupted its guest since the last time.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.shared.line().read().is_ok()
    }

    /// What a snapshot holds of it, if it can be part of one.
    #[must_use]
    pub fn save(&self) -> Option<Vec<u8>> {
        let saved = self.registers.save().ok()?;
        Some(postcard::to_stdvec(&saved).expect("a state can be written"))
    }

    /// Goes on from what a snapshot says, in a device that nobody has touched; whether that was believed.
    pub fn restore(&mut self, saved: &[u8]) -> bool {
        let Ok(saved) = postcard::from_bytes::<Saved>(saved) else {
            return false;
        };
        let believed = self.registers.restore(&saved).is_ok();
        if believed {
            self.registers.interrupt_again();
        }
        believed
    }

    /// Gives a disk or a network card other limits.
    pub fn change_limits(&mut self, limits: RateLimiter) {
        match &self.changed {
            Changed::Block(block) => block.change(|block| block.change_limits(limits)),
            Changed::Net(card) => card.change(|card| card.change_limits(limits, limits)),
            Changed::Balloon(_) | Changed::Nothing => {}
        }
    }

    /// Puts another file in a disk's place.
    pub fn change_file(&mut self, path: &Path, read_only: bool) {
        if let (Changed::Block(block), Ok(file)) = (&self.changed, open_file(path, read_only)) {
            // As the API does: one that is no disk changes nothing.
            let _ = block.change(|block| block.change_file(file));
        }
    }

    /// Gives a balloon another size, which the API has checked to be no more than the memory.
    pub fn resize_balloon(&mut self, amount_mib: u32) {
        if let Changed::Balloon(balloon) = &self.changed {
            balloon.change(|balloon| balloon.resize(amount_mib));
        }
    }

    /// Asks a balloon's guest for its statistics, now and every so many seconds, and tells the last.
    pub fn ask_statistics(&mut self, interval_s: u16) -> Option<String> {
        let Changed::Balloon(balloon) = &self.changed else {
            return None;
        };
        balloon.change(|balloon| balloon.poll_every(interval_s));
        let statistics = balloon.read(Balloon::statistics)?;
        Some(serde_json::to_string(&statistics).expect("numbers by their names"))
    }
}

fn throttle(limits: Option<RateLimiter>) -> Result<Throttle> {
    Throttle::new(limits, Instant::now()).map_err(no_device)
}
