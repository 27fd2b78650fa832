//! The figures of a cgroup in the JSON that readers of `runc events` know.

use berth_cgroups::{Layout, Stats};
use serde_json::{Map, Value, json};

/// `data` of an event of type `stats`.
pub fn event(stats: &Stats, layout: Layout) -> Value {
    // No limit: what the kernel's own file says on v1, the largest number on v2, where the file says `max`.
    let unlimited = if layout == Layout::V2 {
        u64::MAX
    } else {
        0x7fff_ffff_ffff_f000
    };
    let cpu = &stats.cpu;
    let memory = &stats.memory;
    let mut usage = json!({"total": cpu.usage_ns, "kernel": cpu.system_ns, "user": cpu.user_ns});
    for (key, list) in [
        ("percpu", &cpu.per_cpu_ns),
        ("percpu_kernel", &cpu.per_cpu_system_ns),
        ("percpu_user", &cpu.per_cpu_user_ns),
    ] {
        if !list.is_empty() {
            usage[key] = json!(list);
        }
    }
    let entry = |limit: u64, usage: u64, max: u64, failcnt: u64| {
        let mut entry = json!({"limit": limit, "failcnt": failcnt});
        for (key, value) in [("usage", usage), ("max", max)] {
            if value != 0 {
                entry[key] = json!(value);
            }
        }
        entry
    };
    let mut pids = json!({});
    for (key, value) in [
        ("current", stats.pids.current),
        ("limit", stats.pids.limit.unwrap_or(0)),
    ] {
        if value != 0 {
            pids[key] = json!(value);
        }
    }
    let hugetlb: Map<String, Value> = stats
        .hugetlb
        .iter()
        .map(|(size, used)| {
            let value = json!({"usage": used.usage, "max": used.peak, "failcnt": used.failcnt});
            (size.clone(), value)
        })
        .collect();
    json!({
        "cpu": {
            "usage": usage,
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns
            }
        },
        "memory": {
            "cache": memory.cache,
            "usage": entry(memory.limit.unwrap_or(unlimited), memory.usage, memory.peak, memory.failcnt),
            "swap": entry(memory.swap_limit.unwrap_or(unlimited), memory.swap_usage, memory.swap_peak, memory.swap_failcnt),
            "kernel": entry(unlimited, memory.kernel_usage, memory.kernel_peak, 0),
            "kernelTCP": entry(unlimited, memory.kernel_tcp_usage, 0, 0),
            "raw": memory.raw
        },
        "pids": pids,
        "blkio": blkio(stats),
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": null
    })
}

fn blkio(stats: &Stats) -> Value {
    let mut bytes = Vec::new();
    let mut operations = Vec::new();
    for device in &stats.io.devices {
        let entry = |op: &str, value: u64| json!({"major": device.major, "minor": device.minor, "op": op, "value": value});
        bytes.extend([
            entry("Read", device.read_bytes),
            entry("Write", device.write_bytes),
        ]);
        operations.extend([entry("Read", device.read_ops), entry("Write", device.write_ops)]);
    }
    let mut all = json!({});
    for (key, list) in [
        ("ioServiceBytesRecursive", bytes),
        ("ioServicedRecursive", operations),
    ] {
        if !list.is_empty() {
            all[key] = Value::Array(list);
        }
    }
    all
}
