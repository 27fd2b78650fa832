//! Block devices: weights and throttles.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::{invalid, unsupported};
use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::Result;
use crate::hierarchy::Controller;

const WEIGHT: &str = "linux.resources.blockIO.weight";
const WEIGHT_DEVICE: &str = "linux.resources.blockIO.weightDevice";
const LEAF_WEIGHT: &str = "linux.resources.blockIO.leafWeight";
const THROTTLE: &str = "linux.resources.blockIO.throttle";

/// v1 file, v2 key of `io.max`, and the devices they are for.
type Throttle<'a> = (&'static str, &'static str, &'a Option<Vec<LinuxThrottleDevice>>);

pub(super) fn apply(cgroup: &Cgroup, io: &LinuxBlockIo) -> Result<()> {
    // leaf_weight went with CFQ in kernel 5.0.
    let leaf_device = io
        .weight_device()
        .iter()
        .flatten()
        .any(|device| device.leaf_weight().is_some_and(|w| w != 0));
    if io.leaf_weight().is_some_and(|weight| weight != 0) || leaf_device {
        return Err(unsupported(LEAF_WEIGHT, "no kernel since 5.0 has it"));
    }
    let throttles: [Throttle<'_>; 4] = [
        (
            "blkio.throttle.read_bps_device",
            "rbps",
            io.throttle_read_bps_device(),
        ),
        (
            "blkio.throttle.write_bps_device",
            "wbps",
            io.throttle_write_bps_device(),
        ),
        (
            "blkio.throttle.read_iops_device",
            "riops",
            io.throttle_read_iops_device(),
        ),
        (
            "blkio.throttle.write_iops_device",
            "wiops",
            io.throttle_write_iops_device(),
        ),
    ];
    weights(cgroup, io)?;
    for (file, key, devices) in throttles {
        for device in devices.iter().flatten() {
            let number = format!("{}:{}", device.major(), device.minor());
            if cgroup.is_v2() {
                // 0 lifts the limit in v1 and in the spec's callers; v2 wants the word.
                let rate = if device.rate() == 0 {
                    "max".to_owned()
                } else {
                    device.rate().to_string()
                };
                cgroup
                    .v2_dir_for("io", "io.max", THROTTLE)?
                    .write("io.max", &format!("{number} {key}={rate}"))?;
            } else {
                cgroup
                    .v1_dir_for(Controller::Blkio, THROTTLE)?
                    .write(file, &format!("{number} {}", device.rate()))?;
            }
        }
    }
    Ok(())
}

fn weights(cgroup: &Cgroup, io: &LinuxBlockIo) -> Result<()> {
    let weight = io.weight().filter(|weight| *weight != 0);
    if let Some(weight) = weight {
        let (dir, file) = weight_file(cgroup, WEIGHT)?;
        dir.write(file, &weight_value(file, WEIGHT, weight)?)?;
    }
    for device in io.weight_device().iter().flatten() {
        let Some(weight) = device.weight().filter(|weight| *weight != 0) else {
            continue;
        };
        let (dir, file) = weight_file(cgroup, WEIGHT_DEVICE)?;
        let value = weight_value(file, WEIGHT_DEVICE, weight)?;
        let file = match file {
            "blkio.weight" => "blkio.weight_device",
            "blkio.bfq.weight" => "blkio.bfq.weight_device",
            both => both,
        };
        if !dir.has(file) {
            return Err(unsupported(
                WEIGHT_DEVICE,
                "the I/O scheduler of this kernel has no weights per device",
            ));
        }
        dir.write(file, &format!("{}:{} {value}", device.major(), device.minor()))?;
    }
    Ok(())
}

/// The file in which this kernel keeps I/O weights, if it has any: BFQ's, or the cost model's on v2.
fn weight_file<'a>(cgroup: &'a Cgroup, setting: &'static str) -> Result<(&'a Dir, &'static str)> {
    let (dir, files) = if cgroup.is_v2() {
        (
            cgroup.v2_dir_for("io", "io.max", setting)?,
            ["io.bfq.weight", "io.weight"],
        )
    } else {
        (
            cgroup.v1_dir_for(Controller::Blkio, setting)?,
            ["blkio.weight", "blkio.bfq.weight"],
        )
    };
    match files.into_iter().find(|file| dir.has(file)) {
        Some(file) => Ok((dir, file)),
        None => Err(unsupported(
            setting,
            "this kernel has no I/O scheduler with weights (BFQ or iocost)",
        )),
    }
}

/// 10..1000 as the spec has it; `io.weight` counts to 10000.
fn weight_value(file: &str, setting: &'static str, weight: u16) -> Result<String> {
    if !(10..=1000).contains(&weight) {
        return Err(invalid(setting, &weight, "is not within 10 to 1000"));
    }
    let weight = u32::from(weight);
    Ok(if file == "io.weight" {
        (1 + (weight - 10) * 9999 / 990).to_string()
    } else {
        weight.to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_cover_the_range_of_io_weight() {
        assert_eq!(weight_value("io.weight", WEIGHT, 10).unwrap(), "1");
        assert_eq!(weight_value("io.weight", WEIGHT, 1000).unwrap(), "10000");
        assert_eq!(weight_value("io.bfq.weight", WEIGHT, 500).unwrap(), "500");
        assert!(weight_value("blkio.weight", WEIGHT, 9).is_err());
        assert!(weight_value("blkio.weight", WEIGHT, 1001).is_err());
    }
}
