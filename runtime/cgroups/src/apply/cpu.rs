//! Processor time and processor sets.

use oci_spec::runtime::LinuxCpu;

use super::{check_line, invalid, unsupported};
use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::Result;
use crate::hierarchy::Controller;

pub(super) fn apply(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<()> {
    if cgroup.is_v2() {
        apply_v2(cgroup, cpu)?
    } else {
        apply_v1(cgroup, cpu)?
    }
    cpuset(cgroup, cpu)
}

fn apply_v1(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<()> {
    let dir = |setting| cgroup.v1_dir_for(Controller::Cpu, setting);
    // Idle first: while it is set the kernel refuses shares.
    if let Some(idle) = cpu.idle() {
        dir("linux.resources.cpu.idle")?.write("cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = nonzero(cpu.shares()) {
        dir("linux.resources.cpu.shares")?.write("cpu.shares", &shares.to_string())?;
    }
    if let Some(period) = nonzero(cpu.realtime_period()) {
        dir("linux.resources.cpu.realtimePeriod")?.write("cpu.rt_period_us", &period.to_string())?;
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        dir("linux.resources.cpu.realtimeRuntime")?.write("cpu.rt_runtime_us", &runtime.to_string())?;
    }
    let period = nonzero(cpu.period());
    let quota = cpu.quota().filter(|quota| *quota != 0);
    if period.is_none() && quota.is_none() && cpu.burst().is_none() {
        return Ok(());
    }
    let dir = dir("linux.resources.cpu.quota")?;
    // Each write is judged against the other values in force (quota/period within the parent's, burst within the
    // quota), so on update the order that works depends on the direction. What is refused at first is tried again.
    let mut refused = Vec::new();
    let burst = cpu.burst().map(|burst| ("cpu.cfs_burst_us", burst.to_string()));
    let period = period.map(|period| ("cpu.cfs_period_us", period.to_string()));
    let quota = quota.map(|quota| {
        (
            "cpu.cfs_quota_us",
            if quota < 0 {
                "-1".to_owned()
            } else {
                quota.to_string()
            },
        )
    });
    for (file, value) in [burst, period, quota].into_iter().flatten() {
        if let Err(error) = dir.try_write(file, &value) {
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(dir.write_error(file, &value, error));
            }
            refused.push((file, value));
        }
    }
    refused
        .iter()
        .rev()
        .try_for_each(|(file, value)| dir.write(file, value))
}

fn apply_v2(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<()> {
    let dir = |setting| cgroup.v2_dir_for("cpu", "cpu.max", setting);
    if cpu.realtime_runtime().is_some_and(|value| value != 0) || nonzero(cpu.realtime_period()).is_some() {
        return Err(unsupported(
            "linux.resources.cpu.realtimeRuntime",
            "cgroup v2 has no real-time scheduling limits",
        ));
    }
    if let Some(idle) = cpu.idle() {
        dir("linux.resources.cpu.idle")?.write("cpu.idle", &idle.to_string())?;
    }
    // A weight written to an idle cgroup is refused, and would mean nothing.
    if let Some(shares) = nonzero(cpu.shares())
        && cpu.idle() != Some(1)
    {
        dir("linux.resources.cpu.shares")?.write("cpu.weight", &weight_of_shares(shares).to_string())?;
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = nonzero(cpu.period());
    if quota.is_none() && period.is_none() && cpu.burst().is_none() {
        return Ok(());
    }
    let dir = dir("linux.resources.cpu.quota")?;
    let burst = cpu.burst().map(|burst| burst.to_string());
    // A burst must not exceed the quota: a smaller one goes first, a larger one after the quota has grown.
    let burst_late = match &burst {
        Some(value) => match dir.try_write("cpu.max.burst", value) {
            Ok(()) => None,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Some(value),
            Err(error) => return Err(dir.write_error("cpu.max.burst", value, error)),
        },
        None => None,
    };
    if quota.is_some() || period.is_some() {
        dir.write("cpu.max", &cpu_max(dir, quota, period)?)?;
    }
    burst_late.map_or(Ok(()), |value| dir.write("cpu.max.burst", value))
}

/// `QUOTA PERIOD`, the quota taken over when only the period changes.
fn cpu_max(dir: &Dir, quota: Option<i64>, period: Option<u64>) -> Result<String> {
    let quota = match quota {
        Some(quota) if quota > 0 => quota.to_string(),
        Some(_) => "max".to_owned(),
        None => dir
            .read("cpu.max")?
            .split_ascii_whitespace()
            .next()
            .unwrap_or("max")
            .to_owned(),
    };
    Ok(period.map_or(quota.clone(), |period| format!("{quota} {period}")))
}

fn cpuset(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<()> {
    let lists = [
        ("linux.resources.cpu.cpus", "cpuset.cpus", cpu.cpus()),
        ("linux.resources.cpu.mems", "cpuset.mems", cpu.mems()),
    ];
    for (setting, file, list) in lists {
        let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else {
            continue;
        };
        check_line(setting, list)?;
        if !list
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b",-: /".contains(&byte))
        {
            return Err(invalid(setting, &list, "is not a list like 0-3,7"));
        }
        let dir = if cgroup.is_v2() {
            cgroup.v2_dir_for("cpuset", file, setting)?
        } else {
            cgroup.v1_dir_for(Controller::Cpuset, setting)?
        };
        dir.write(file, list)?;
    }
    Ok(())
}

fn nonzero(value: Option<u64>) -> Option<u64> {
    value.filter(|value| *value != 0)
}

/// v1's 2..262144 onto v2's 1..10000 such that the defaults (1024, 100) and both ends meet: 10 to the power of a
/// quadratic in log2(shares) through these three points.
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => return 1,
        262_144.. => return 10_000,
        _ => {}
    }
    #[allow(clippy::cast_precision_loss, reason = "below 2^18 here")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The defaults meet exactly in the reals; floats may land a hair above.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 10000"
    )]
    let weight = (10f64.powf(exponent) - 1e-9).ceil() as u64;
    weight.clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_and_default_of_the_weight() {
        for (shares, weight) in [
            (0, 1),
            (1, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    proptest! {
        #[test]
        fn weight_grows_with_shares(a in 0u64..300_000, b in 0u64..300_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(weight_of_shares(low) <= weight_of_shares(high));
            prop_assert!((1..=10_000).contains(&weight_of_shares(a)));
        }
    }
}
