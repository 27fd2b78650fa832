//! What a cgroup has used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::Result;
use crate::hierarchy::Controller;

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
    /// User time on each processor; v1 only.
    pub per_cpu_user_ns: Vec<u64>,
    /// System time on each processor; v1 only.
    pub per_cpu_system_ns: Vec<u64>,
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
    /// Highest swap usage seen, in the terms of `swap_usage`; 0 when the kernel does not record it.
    pub swap_peak: u64,
    /// Times the swap limit was hit.
    pub swap_failcnt: u64,
    /// Kernel memory.
    pub kernel_usage: u64,
    /// Highest kernel memory seen; v1 only.
    pub kernel_peak: u64,
    /// Buffers of TCP sockets.
    pub kernel_tcp_usage: u64,
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

impl Cgroup {
    /// Reads every counter this cgroup has. A few dozen small reads; does not block.
    pub fn stats(&self) -> Result<Stats> {
        if self.is_v2() {
            v2::read(self)
        } else {
            v1::read(self)
        }
    }

    /// Processes of this cgroup (on v2: and of those below) killed for lack of memory so far.
    pub fn oom_kills(&self) -> Result<u64> {
        if self.is_v2() {
            let Some(dir) = &self.unified else { return Ok(0) };
            return Ok(flat(dir, "memory.events")?.remove("oom_kill").unwrap_or_default());
        }
        let Some(dir) = self.v1_dir(Controller::Memory) else {
            return Ok(0);
        };
        Ok(flat(dir, "memory.oom_control")?
            .remove("oom_kill")
            .unwrap_or_default())
    }
}

/// A file of `name number` lines; empty if absent.
fn flat(dir: &Dir, file: &str) -> Result<BTreeMap<String, u64>> {
    Ok(dir
        .read_if_present(file)?
        .map(|text| parse_flat(&text))
        .unwrap_or_default())
}

fn parse_flat(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// A counter whose controller or kernel may be missing.
fn counter(dir: &Dir, file: &str) -> Result<u64> {
    Ok(dir.read_u64_if_present(file)?.unwrap_or_default())
}

/// v2 says `max`, v1 the largest number of whole pages: neither is a limit.
fn limit(dir: &Dir, file: &str) -> Result<Option<u64>> {
    const UNLIMITED_V1: u64 = 0x7fff_ffff_ffff_0000;
    Ok(dir
        .read_u64_if_present(file)?
        .filter(|limit| *limit < UNLIMITED_V1))
}

/// Sizes of huge pages for which `dir` has files: `hugetlb.<size>.<file>`.
fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kib: u64 = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            Some(match kib {
                kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
                kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
                kib => format!("{kib}KB"),
            })
        })
        .collect()
}

fn hugetlb(dir: &Dir, usage: &str, peak: &str) -> Result<BTreeMap<String, HugetlbStats>> {
    let mut all = BTreeMap::new();
    for size in huge_page_sizes() {
        let Some(used) = dir.read_u64_if_present(&format!("hugetlb.{size}.{usage}"))? else {
            continue;
        };
        let stats = HugetlbStats {
            usage: used,
            peak: counter(dir, &format!("hugetlb.{size}.{peak}"))?,
            failcnt: match dir.read_u64_if_present(&format!("hugetlb.{size}.failcnt"))? {
                Some(count) => count,
                None => flat(dir, &format!("hugetlb.{size}.events"))?
                    .remove("max")
                    .unwrap_or_default(),
            },
        };
        all.insert(size, stats);
    }
    Ok(all)
}

impl IoStats {
    fn device(&mut self, number: &str) -> Option<&mut DeviceIo> {
        let (major, minor) = number.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let at = match self
            .devices
            .iter()
            .position(|known| (known.major, known.minor) == (major, minor))
        {
            Some(at) => at,
            None => {
                self.devices.push(DeviceIo {
                    major,
                    minor,
                    ..DeviceIo::default()
                });
                self.devices.len() - 1
            }
        };
        self.devices.get_mut(at)
    }

    fn sum_up(mut self) -> Self {
        for device in &self.devices {
            self.read_bytes = self.read_bytes.saturating_add(device.read_bytes);
            self.write_bytes = self.write_bytes.saturating_add(device.write_bytes);
            self.read_ops = self.read_ops.saturating_add(device.read_ops);
            self.write_ops = self.write_ops.saturating_add(device.write_ops);
        }
        self
    }
}

mod v1 {
    use super::*;

    pub(super) fn read(cgroup: &Cgroup) -> Result<Stats> {
        let mut stats = Stats::default();
        if let Some(dir) = cgroup.v1_dir(Controller::Cpuacct) {
            stats.cpu.usage_ns = counter(dir, "cpuacct.usage")?;
            stats.cpu.user_ns = counter(dir, "cpuacct.usage_user")?;
            stats.cpu.system_ns = counter(dir, "cpuacct.usage_sys")?;
            stats.cpu.per_cpu_ns = list(dir, "cpuacct.usage_percpu")?;
            stats.cpu.per_cpu_user_ns = list(dir, "cpuacct.usage_percpu_user")?;
            stats.cpu.per_cpu_system_ns = list(dir, "cpuacct.usage_percpu_sys")?;
        }
        if let Some(dir) = cgroup.v1_dir(Controller::Cpu) {
            let stat = flat(dir, "cpu.stat")?;
            let field = |name: &str| stat.get(name).copied().unwrap_or_default();
            stats.cpu.periods = field("nr_periods");
            stats.cpu.throttled_periods = field("nr_throttled");
            stats.cpu.throttled_ns = field("throttled_time");
        }
        if let Some(dir) = cgroup.v1_dir(Controller::Memory) {
            stats.memory = memory(dir)?;
            stats.memory.oom_kills = cgroup.oom_kills()?;
        }
        if let Some(dir) = cgroup.v1_dir(Controller::Pids) {
            stats.pids = PidsStats {
                current: counter(dir, "pids.current")?,
                limit: limit(dir, "pids.max")?,
            };
        }
        if let Some(dir) = cgroup.v1_dir(Controller::Blkio) {
            stats.io = io(
                &dir.read_if_present("blkio.throttle.io_service_bytes_recursive")?
                    .unwrap_or_default(),
                &dir.read_if_present("blkio.throttle.io_serviced_recursive")?
                    .unwrap_or_default(),
            );
        }
        match (cgroup.v1_dir(Controller::Hugetlb), &cgroup.unified) {
            (Some(dir), _) => stats.hugetlb = hugetlb(dir, "usage_in_bytes", "max_usage_in_bytes")?,
            (None, Some(dir)) => stats.hugetlb = hugetlb(dir, "current", "peak")?,
            (None, None) => {}
        }
        Ok(stats)
    }

    fn list(dir: &Dir, file: &str) -> Result<Vec<u64>> {
        let text = dir.read_if_present(file)?.unwrap_or_default();
        Ok(text.split_ascii_whitespace().flat_map(str::parse).collect())
    }

    fn memory(dir: &Dir) -> Result<MemoryStats> {
        let raw = flat(dir, "memory.stat")?;
        let usage = counter(dir, "memory.usage_in_bytes")?;
        Ok(MemoryStats {
            usage,
            working_set: usage.saturating_sub(raw.get("total_inactive_file").copied().unwrap_or_default()),
            cache: raw.get("total_cache").copied().unwrap_or_default(),
            peak: counter(dir, "memory.max_usage_in_bytes")?,
            limit: limit(dir, "memory.limit_in_bytes")?,
            swap_usage: counter(dir, "memory.memsw.usage_in_bytes")?,
            swap_limit: limit(dir, "memory.memsw.limit_in_bytes")?,
            swap_peak: counter(dir, "memory.memsw.max_usage_in_bytes")?,
            swap_failcnt: counter(dir, "memory.memsw.failcnt")?,
            kernel_usage: counter(dir, "memory.kmem.usage_in_bytes")?,
            kernel_peak: counter(dir, "memory.kmem.max_usage_in_bytes")?,
            kernel_tcp_usage: counter(dir, "memory.kmem.tcp.usage_in_bytes")?,
            failcnt: counter(dir, "memory.failcnt")?,
            oom_kills: 0,
            raw,
        })
    }

    /// Lines `MAJ:MIN Read N`, `MAJ:MIN Write N` and totals.
    pub(super) fn io(bytes: &str, operations: &str) -> IoStats {
        let mut stats = IoStats::default();
        for (text, is_bytes) in [(bytes, true), (operations, false)] {
            for line in text.lines() {
                let mut fields = line.split_ascii_whitespace();
                let (Some(number), Some(kind), Some(Ok(value))) =
                    (fields.next(), fields.next(), fields.next().map(str::parse))
                else {
                    continue;
                };
                let Some(device) = stats.device(number) else {
                    continue;
                };
                match (kind, is_bytes) {
                    ("Read", true) => device.read_bytes = value,
                    ("Write", true) => device.write_bytes = value,
                    ("Read", false) => device.read_ops = value,
                    ("Write", false) => device.write_ops = value,
                    _ => {}
                }
            }
        }
        stats.sum_up()
    }
}

mod v2 {
    use super::*;

    pub(super) fn read(cgroup: &Cgroup) -> Result<Stats> {
        let Some(dir) = &cgroup.unified else {
            return Ok(Stats::default());
        };
        let cpu = flat(dir, "cpu.stat")?;
        let ns = |name: &str| cpu.get(name).copied().unwrap_or_default().saturating_mul(1000);
        let count = |name: &str| cpu.get(name).copied().unwrap_or_default();
        let mut stats = Stats {
            cpu: CpuStats {
                usage_ns: ns("usage_usec"),
                user_ns: ns("user_usec"),
                system_ns: ns("system_usec"),
                per_cpu_ns: Vec::new(),
                per_cpu_user_ns: Vec::new(),
                per_cpu_system_ns: Vec::new(),
                periods: count("nr_periods"),
                throttled_periods: count("nr_throttled"),
                throttled_ns: ns("throttled_usec"),
            },
            pids: PidsStats {
                current: counter(dir, "pids.current")?,
                limit: limit(dir, "pids.max")?,
            },
            io: io(&dir.read_if_present("io.stat")?.unwrap_or_default()),
            hugetlb: hugetlb(dir, "current", "peak")?,
            memory: MemoryStats::default(),
        };
        let raw = flat(dir, "memory.stat")?;
        let field = |name: &str| raw.get(name).copied().unwrap_or_default();
        let events = flat(dir, "memory.events")?;
        let usage = counter(dir, "memory.current")?;
        stats.memory = MemoryStats {
            usage,
            working_set: usage.saturating_sub(field("inactive_file")),
            cache: field("file"),
            peak: counter(dir, "memory.peak")?,
            limit: limit(dir, "memory.max")?,
            swap_usage: counter(dir, "memory.swap.current")?,
            swap_limit: limit(dir, "memory.swap.max")?,
            swap_peak: counter(dir, "memory.swap.peak")?,
            swap_failcnt: flat(dir, "memory.swap.events")?.remove("max").unwrap_or_default(),
            kernel_usage: field("kernel"),
            kernel_peak: 0,
            kernel_tcp_usage: field("sock"),
            failcnt: events.get("max").copied().unwrap_or_default(),
            oom_kills: events.get("oom_kill").copied().unwrap_or_default(),
            raw,
        };
        Ok(stats)
    }

    /// Lines `MAJ:MIN rbytes=N wbytes=N rios=N wios=N …`.
    pub(super) fn io(text: &str) -> IoStats {
        let mut stats = IoStats::default();
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let Some(device) = fields.next().and_then(|number| stats.device(number)) else {
                continue;
            };
            for (key, value) in fields.filter_map(|field| field.split_once('=')) {
                let value = value.parse().unwrap_or_default();
                match key {
                    "rbytes" => device.read_bytes = value,
                    "wbytes" => device.write_bytes = value,
                    "rios" => device.read_ops = value,
                    "wios" => device.write_ops = value,
                    _ => {}
                }
            }
        }
        stats.sum_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_of_both_versions_reads_the_same() {
        let old = v1::io(
            "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\nTotal 31\n",
            "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
        );
        let new = v2::io("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0\n8:16 rbytes=1 wbytes=0\n");
        assert_eq!(old, new);
        assert_eq!((old.read_bytes, old.write_bytes, old.devices.len()), (11, 20, 2));
    }

    #[test]
    fn foreign_lines_are_skipped() {
        assert_eq!(
            parse_flat("a 1\nb\nc x\n\nd 2 "),
            BTreeMap::from([("a".into(), 1), ("d".into(), 2)])
        );
        assert_eq!(v2::io("x\n8: rbytes=1\n"), IoStats::default());
    }
}
