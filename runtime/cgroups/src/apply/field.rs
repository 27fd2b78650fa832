//! Which field of `linux.resources` a control file carries: who wrote config.json knows its fields, not the kernel's files.

use crate::error::Error;

/// The same error, with the field that asked for a write that failed.
pub(super) fn named(error: Error) -> Error {
    match error {
        Error::Write {
            setting: None,
            file,
            value,
            source,
        } => Error::Write {
            setting: file.file_name().and_then(|name| of(name.to_str()?)),
            file,
            value,
            source,
        },
        other => other,
    }
}

fn of(file: &str) -> Option<&'static str> {
    Some(match file {
        "cpu.idle" => "linux.resources.cpu.idle",
        "cpu.shares" | "cpu.weight" => "linux.resources.cpu.shares",
        "cpu.rt_period_us" => "linux.resources.cpu.realtimePeriod",
        "cpu.rt_runtime_us" => "linux.resources.cpu.realtimeRuntime",
        "cpu.cfs_period_us" => "linux.resources.cpu.period",
        "cpu.cfs_quota_us" => "linux.resources.cpu.quota",
        // One file for both.
        "cpu.max" => "linux.resources.cpu.quota and period",
        "cpu.cfs_burst_us" | "cpu.max.burst" => "linux.resources.cpu.burst",
        "cpuset.cpus" => "linux.resources.cpu.cpus",
        "cpuset.mems" => "linux.resources.cpu.mems",
        "memory.limit_in_bytes" | "memory.max" => "linux.resources.memory.limit",
        "memory.memsw.limit_in_bytes" | "memory.swap.max" => "linux.resources.memory.swap",
        "memory.soft_limit_in_bytes" | "memory.low" => "linux.resources.memory.reservation",
        "memory.kmem.tcp.limit_in_bytes" => "linux.resources.memory.kernelTCP",
        "memory.swappiness" => "linux.resources.memory.swappiness",
        "memory.oom_control" => "linux.resources.memory.disableOOMKiller",
        "pids.max" => "linux.resources.pids.limit",
        "net_cls.classid" => "linux.resources.network.classID",
        "net_prio.ifpriomap" => "linux.resources.network.priorities",
        "rdma.max" => "linux.resources.rdma",
        "devices.allow" | "devices.deny" => "linux.resources.devices",
        _ if file.starts_with("hugetlb.") => "linux.resources.hugepageLimits",
        _ if file.starts_with("blkio.") || file.starts_with("io.") => "linux.resources.blockIO",
        _ => return None,
    })
}
