//! From the configuration of devices to devices, with everything of the host's opened.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, CacheType, Config, Drive, Id, NetworkInterface, RateLimiter, SharedDirectory};
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::block::{Block, Disk};
use crate::devices::virtio::endpoint::Shared;
use crate::devices::virtio::fs::{Budget, Directory, Fs};
use crate::devices::virtio::net::{Net, Tap};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::throttle::Throttle;
use crate::devices::virtio::vsock::{Peers, Vsock};
use crate::error::{Error, Result};
use crate::keeper::Door;
use crate::socket_file::SocketFile;

/// The virtio devices.
pub(crate) struct Devices {
    /// In the order in which the guest finds them: its kernel names disks in that order.
    pub(super) devices: Vec<Arc<Shared>>,
    /// So many of them, the last, are each served by a thread of its own.
    pub(super) shares: usize,
    /// What they listen on.
    pub(super) sockets: Vec<SocketFile>,
    pub(super) drives: Drives,
    pub(super) interfaces: Interfaces,
    pub(super) balloon: Option<Arc<Shared<Balloon>>>,
}

/// Disks by their names.
pub(crate) type Drives = Vec<(Id, Arc<Shared<Block>>)>;

/// Network cards by their names.
pub(crate) type Interfaces = Vec<(Id, Arc<Shared<Net>>)>;

impl Devices {
    /// The programs that listen for the guest are reached by `door`, or without one by vsock's path.
    pub(crate) fn of(config: &Config, door: Option<Door>) -> Result<Devices> {
        let mut devices: Vec<Arc<Shared>> = Vec::new();
        let (mut sockets, mut drives, mut interfaces) = (Vec::new(), Vec::new(), Vec::new());
        for drive in &config.drives {
            let disk = Shared::new(disk(drive)?)?;
            drives.push((drive.drive_id.clone(), disk.clone()));
            devices.push(disk);
        }
        for interface in &config.network_interfaces {
            let card = Shared::new(network_card(interface)?)?;
            interfaces.push((interface.iface_id.clone(), card.clone()));
            devices.push(card);
        }
        if let Some(entropy) = &config.entropy {
            let throttle = throttle(entropy.rate_limiter)?;
            devices.push(Shared::new(Rng::new(throttle))?);
        }
        if let Some(vsock) = &config.vsock {
            let path = &vsock.uds_path;
            let peers = door.map_or_else(|| Peers::At(path.clone()), Peers::Beyond);
            let (device, socket) =
                Vsock::new(vsock.guest_cid, path, peers).map_err(|source| Error::Vsock {
                    path: path.clone(),
                    source,
                })?;
            devices.push(Shared::new(device)?);
            sockets.push(socket);
        }
        let balloon = config.balloon.as_ref().map(balloon).transpose()?;
        devices.extend(balloon.iter().map(|balloon| balloon.clone() as Arc<Shared>));
        if let count @ 1.. = config.shared_directories.len() {
            let budget = Budget::among(count);
            for share in &config.shared_directories {
                devices.push(Shared::new(shared_directory(share, budget)?)?);
            }
        }
        Ok(Devices {
            devices,
            shares: config.shared_directories.len(),
            sockets,
            drives,
            interfaces,
            balloon,
        })
    }
}

fn no_timer(source: io::Error) -> Error {
    Error::Events {
        operation: "create a timer",
        source,
    }
}

fn throttle(limits: Option<RateLimiter>) -> Result<Throttle> {
    Throttle::new(limits, Instant::now()).map_err(no_timer)
}

fn balloon(config: &config::Balloon) -> Result<Arc<Shared<Balloon>>> {
    Shared::new(Balloon::new(config).map_err(no_timer)?)
}

fn disk(drive: &Drive) -> Result<Block> {
    let flushes = drive.cache_type == CacheType::Writeback;
    let id = drive.drive_id.as_str();
    let disk =
        Disk::open(&drive.path_on_host, id, drive.is_read_only, flushes).map_err(|source| Error::Drive {
            id: id.into(),
            path: drive.path_on_host.clone(),
            source,
        })?;
    Ok(Block::new(disk, throttle(drive.rate_limiter)?))
}

fn shared_directory(share: &SharedDirectory, budget: Budget) -> Result<Fs> {
    let path = &share.path_on_host;
    let directory =
        Directory::share(path, share.is_read_only, budget).map_err(|source| Error::SharedDirectory {
            tag: share.tag.to_string(),
            path: path.clone(),
            source,
        })?;
    Ok(Fs::new(share.tag.as_str(), directory))
}

fn network_card(interface: &NetworkInterface) -> Result<Net> {
    let tap = Tap::open(&interface.host_dev_name).map_err(|source| Error::NetworkInterface {
        id: interface.iface_id.to_string(),
        tap: interface.host_dev_name.clone(),
        source,
    })?;
    let receive = throttle(interface.rx_rate_limiter)?;
    let send = throttle(interface.tx_rate_limiter)?;
    Ok(Net::new(tap, interface.guest_mac, interface.mtu, receive, send))
}
