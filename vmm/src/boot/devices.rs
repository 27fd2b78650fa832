//! From the configuration of devices to devices, with everything of the host's opened.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::arch::x86_64::layout;
use crate::config::{CacheType, Config, Drive, Id, RateLimiter};
use crate::devices::virtio::block::{Block, Disk};
use crate::devices::virtio::endpoint::Shared;
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::throttle::Throttle;
use crate::devices::virtio::vsock::Vsock;
use crate::error::{Error, Result};
use crate::socket_file::SocketFile;

/// The virtio devices.
pub(super) struct Devices {
    /// In the order in which the guest finds them: its kernel names disks in that order.
    pub(super) devices: Vec<Arc<Shared>>,
    /// What they listen on.
    pub(super) sockets: Vec<SocketFile>,
    pub(super) drives: Drives,
}

/// Disks by their names.
pub(crate) type Drives = Vec<(Id, Arc<Shared<Block>>)>;

impl Devices {
    pub(super) fn of(config: &Config) -> Result<Devices> {
        let mut devices: Vec<Arc<Shared>> = Vec::new();
        let (mut sockets, mut drives) = (Vec::new(), Vec::new());
        for drive in &config.drives {
            let disk = Shared::new(disk(drive)?)?;
            drives.push((drive.drive_id.clone(), disk.clone()));
            devices.push(disk);
        }
        if let Some(entropy) = &config.entropy {
            let throttle = throttle(entropy.rate_limiter)?;
            devices.push(Shared::new(Rng::new(throttle))?);
        }
        if let Some(vsock) = &config.vsock {
            let (device, socket) =
                Vsock::new(vsock.guest_cid, &vsock.uds_path).map_err(|source| Error::Vsock {
                    path: vsock.uds_path.clone(),
                    source,
                })?;
            devices.push(Shared::new(device)?);
            sockets.push(socket);
        }
        if devices.len() > layout::VIRTIO_MAX {
            return Err(Error::Invalid {
                field: "drives",
                why: format!("there is room for {} devices", layout::VIRTIO_MAX),
            });
        }
        Ok(Devices {
            devices,
            sockets,
            drives,
        })
    }
}

fn throttle(limits: Option<RateLimiter>) -> Result<Throttle> {
    Throttle::new(limits, Instant::now()).map_err(|source: io::Error| Error::Events {
        operation: "create a timer",
        source,
    })
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
