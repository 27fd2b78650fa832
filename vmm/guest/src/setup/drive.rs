//! Drives by the serial number the monitor gave them (virtio 1.2 §5.2.6.1, `VIRTIO_BLK_T_GET_ID`).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{At, Error, Result};

/// How long a drive may take to appear; its driver looks for it while the guest goes on.
const APPEAR_MAX: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(2);

/// The device of a drive. Waits for it.
///
/// # Errors
///
/// There is none with this serial number after five seconds.
pub(super) fn find(serial: &str) -> Result<PathBuf> {
    let until = Instant::now() + APPEAR_MAX;
    loop {
        if let Some(device) = look(serial)? {
            return Ok(device);
        }
        if Instant::now() >= until {
            return Err(Error::refused(
                format!("drive {serial:?}"),
                "no virtio disk has this serial number",
            ));
        }
        std::thread::sleep(STEP);
    }
}

fn look(serial: &str) -> Result<Option<PathBuf>> {
    const BLOCK: &str = "/sys/block";
    for entry in std::fs::read_dir(BLOCK).at("list", BLOCK)? {
        let entry = entry.at("list", BLOCK)?;
        // Absent for disks that have none.
        let Ok(found) = std::fs::read_to_string(entry.path().join("serial")) else {
            continue;
        };
        if found.trim_end() == serial {
            let device = PathBuf::from("/dev").join(entry.file_name());
            // The driver shows itself in sysfs a moment before its node is in devtmpfs.
            return Ok(device.exists().then_some(device));
        }
    }
    Ok(None)
}
