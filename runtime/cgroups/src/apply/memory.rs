//! Memory and swap. The spec's `swap` is v1's: memory and swap together. v2 limits swap alone.

use oci_spec::runtime::LinuxMemory;

use super::{invalid, max_or, unsupported};
use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::hierarchy::Controller;

const SWAP: &str = "linux.resources.memory.swap";
const LIMIT: &str = "linux.resources.memory.limit";

pub(super) fn apply(cgroup: &Cgroup, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap > 0
        && (limit < 0 || swap < limit)
    {
        return Err(invalid(
            SWAP,
            &swap,
            "counts memory and swap together and is less than the memory limit",
        ));
    }
    if cgroup.is_v2() {
        apply_v2(cgroup, memory, limit, swap)
    } else {
        apply_v1(cgroup, memory, limit, swap)
    }
}

fn apply_v1(cgroup: &Cgroup, memory: &LinuxMemory, limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    let dir = |setting| cgroup.v1_dir_for(Controller::Memory, setting);
    if limit.is_some() || swap.is_some() {
        let dir = dir(LIMIT)?;
        if let Some(limit) = limit.filter(|limit| *limit > 0)
            && memory.check_before_update() == Some(true)
        {
            check_usage(dir, "memory.usage_in_bytes", limit)?;
        }
        limits_v1(dir, limit, swap)?;
    }
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        dir("linux.resources.memory.reservation")?
            .write("memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(kernel_tcp) = memory.kernel_tcp().filter(|value| *value != 0) {
        dir("linux.resources.memory.kernelTCP")?
            .write("memory.kmem.tcp.limit_in_bytes", &kernel_tcp.to_string())?;
    }
    // `kernel` is accepted and without effect, as the spec has it since kernel 5.4 dropped the limit.
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(invalid(
                "linux.resources.memory.swappiness",
                &swappiness,
                "is not within 0 to 100",
            ));
        }
        dir("linux.resources.memory.swappiness")?.write("memory.swappiness", &swappiness.to_string())?;
    }
    if let Some(disable) = memory.disable_oom_killer() {
        let dir = dir("linux.resources.memory.disableOOMKiller")?;
        // Newer kernels deprecate the knob: only touch it where it makes a difference.
        let disabled = dir
            .read("memory.oom_control")?
            .lines()
            .any(|line| line == "oom_kill_disable 1");
        if disabled != disable {
            dir.write("memory.oom_control", if disable { "1" } else { "0" })?;
        }
    }
    Ok(())
}

/// The kernel keeps memory <= memory+swap at every instant, so a rise starts with the sum and a cut with the memory.
fn limits_v1(dir: &Dir, limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const MEMSW: &str = "memory.memsw.limit_in_bytes";
    let write_limit = |limit: i64| {
        dir.try_write(MEMORY, &limit.to_string())
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EBUSY) => Error::LimitBelowUsage {
                    path: dir.path().to_owned(),
                    limit,
                    usage: dir.read_u64("memory.usage_in_bytes").unwrap_or_default(),
                },
                _ => dir.write_error(MEMORY, &limit.to_string(), error),
            })
    };
    let write_swap = |swap: i64| {
        if !dir.has(MEMSW) {
            return Err(unsupported(
                SWAP,
                "the kernel does not account swap (boot with swapaccount=1)",
            ));
        }
        dir.write(MEMSW, &swap.to_string())
    };
    match (limit, swap) {
        // Without limit on memory no limit on the sum can be meant; a file that is absent limits nothing.
        (Some(-1), None) => {
            if dir.has(MEMSW) {
                write_swap(-1)?;
            }
            write_limit(-1)
        }
        (Some(limit), Some(swap)) => {
            let current = dir.read_u64_if_present(MEMSW)?.unwrap_or_default();
            let rises = swap < 0 || u64::try_from(swap).is_ok_and(|swap| swap > current);
            if rises {
                write_swap(swap)?;
                write_limit(limit)
            } else {
                write_limit(limit)?;
                write_swap(swap)
            }
        }
        (Some(limit), None) => write_limit(limit),
        (None, Some(swap)) => write_swap(swap),
        (None, None) => Ok(()),
    }
}

fn apply_v2(cgroup: &Cgroup, memory: &LinuxMemory, limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    let dir = |setting| cgroup.v2_dir_for("memory", "memory.max", setting);
    if memory.disable_oom_killer() == Some(true) {
        return Err(unsupported(
            "linux.resources.memory.disableOOMKiller",
            "cgroup v2 cannot switch the OOM killer off",
        ));
    }
    if memory.swappiness().is_some() {
        return Err(unsupported(
            "linux.resources.memory.swappiness",
            "cgroup v2 has no swappiness per cgroup",
        ));
    }
    if memory.kernel_tcp().is_some_and(|value| value > 0) {
        return Err(unsupported(
            "linux.resources.memory.kernelTCP",
            "cgroup v2 has no limit for TCP buffers alone",
        ));
    }
    if let Some(limit) = limit.filter(|limit| *limit > 0)
        && memory.check_before_update() == Some(true)
    {
        // v2 takes any limit and kills until it is met; the caller asked to be told instead.
        check_usage(dir(LIMIT)?, "memory.current", limit)?;
    }
    if let Some(value) = swap_max(limit, swap)? {
        let dir = dir(SWAP)?;
        // Absent without swap accounting, where "no limit" and "none at all" hold anyway.
        if dir.has("memory.swap.max") {
            dir.write("memory.swap.max", &value)?;
        } else if value != "max" && value != "0" {
            return Err(unsupported(
                SWAP,
                "the kernel does not account swap (boot with swapaccount=1)",
            ));
        }
    }
    if let Some(limit) = limit {
        dir(LIMIT)?.write("memory.max", &max_or(limit))?;
    }
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        dir("linux.resources.memory.reservation")?.write("memory.low", &max_or(reservation))?;
    }
    Ok(())
}

/// The spec's memory+swap as v2's swap alone. `None`: leave it.
fn swap_max(limit: Option<i64>, swap: Option<i64>) -> Result<Option<String>> {
    match (limit, swap) {
        (_, Some(swap)) if swap < 0 => Ok(Some("max".to_owned())),
        (Some(limit), Some(swap)) if limit > 0 => Ok(Some((swap - limit).to_string())),
        (_, Some(swap)) => Err(invalid(
            SWAP,
            &swap,
            "counts memory and swap together and needs memory.limit on cgroup v2",
        )),
        (Some(limit), None) if limit < 0 => Ok(Some("max".to_owned())),
        (_, None) => Ok(None),
    }
}

fn check_usage(dir: &Dir, file: &str, limit: i64) -> Result<()> {
    let usage = dir.read_u64(file)?;
    if u64::try_from(limit).is_ok_and(|limit| limit < usage) {
        return Err(Error::LimitBelowUsage {
            path: dir.path().to_owned(),
            limit,
            usage,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_of_v1_terms_in_v2() {
        let text = |value: &str| Some(value.to_owned());
        assert_eq!(swap_max(Some(100), Some(300)).unwrap(), text("200"));
        assert_eq!(swap_max(Some(100), Some(100)).unwrap(), text("0"));
        assert_eq!(swap_max(Some(100), Some(-1)).unwrap(), text("max"));
        assert_eq!(swap_max(Some(-1), None).unwrap(), text("max"));
        assert_eq!(swap_max(Some(100), None).unwrap(), None);
        assert!(swap_max(None, Some(100)).is_err());
    }
}
