//! Resource use of a container: its cgroup's counters, and its interfaces' from `/proc/<init>/net/dev`.

use std::io;

use berth_cgroups::{Cgroup, CgroupPath, Hierarchy, Stats};
use jiff::Timestamp;

use crate::container::State;
use crate::engine::Engine;
use crate::flags::Isolation;
use crate::id::ContainerId;
use crate::isolation::vm;

/// One reading. Two of them make a percentage.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was taken.
    pub time: Timestamp,
    /// The cgroup's counters.
    pub cgroup: Stats,
    /// Bytes the container received, all interfaces but loopback.
    pub rx_bytes: u64,
    /// Bytes the container sent.
    pub tx_bytes: u64,
    /// CPUs of the host that are on.
    pub online_cpus: u32,
    /// Bytes of memory the host has: the limit of a container without one.
    pub host_memory: u64,
}

/// Why no reading could be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container is unknown.
    #[error(transparent)]
    Engine(#[from] crate::Error),
    /// Its cgroup cannot be read.
    #[error("read cgroup of container {id}")]
    Cgroup {
        /// The container.
        id: ContainerId,
        /// What failed.
        #[source]
        source: berth_cgroups::Error,
    },
    /// A file of /proc cannot be read.
    #[error("read {path}")]
    Proc {
        /// The file.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Engine {
    /// Reads the counters of a container; none when it does not run.
    pub fn stats(&self, id: &ContainerId) -> Result<Option<Sample>, Error> {
        let state = self.state(id)?;
        if state.pid <= 0 || !state.status.needs_shim() {
            return Ok(None);
        }
        let config = self.config(id)?;
        if config.host.isolation == Isolation::Vm {
            return self.stats_of_guest(id, &state);
        }
        let fail = |source| Error::Cgroup {
            id: id.clone(),
            source,
        };
        let path = CgroupPath::parse(config.cgroup()).map_err(fail)?;
        let hierarchy = Hierarchy::detect().map_err(fail)?;
        let cgroup = Cgroup::open(&hierarchy, &path)
            .and_then(|cgroup| cgroup.stats())
            .map_err(fail)?;
        let net = format!("/proc/{}/net/dev", state.pid);
        let Some(text) = of_process(net)? else {
            return Ok(None);
        };
        let (rx_bytes, tx_bytes) = traffic(&text, |link| link != "lo");
        Ok(Some(Sample::now(cgroup, rx_bytes, tx_bytes)))
    }

    /// The counters of the guest's own cgroup, and its TAPs' in the shim's network namespace. What the monitor itself uses is
    /// not among them.
    fn stats_of_guest(&self, id: &ContainerId, state: &State) -> Result<Option<Sample>, Error> {
        let cgroup = match vm::stats(&self.paths.run_dir(id)) {
            Ok(cgroup) => cgroup,
            // It ended in between.
            Err(_) if !self.state(id)?.status.needs_shim() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let Some(text) = of_process(format!("/proc/{}/net/dev", state.shim_pid))? else {
            return Ok(None);
        };
        let taps = |link: &str| state.endpoints.iter().any(|endpoint| endpoint.link == link);
        // What a TAP receives the guest has sent.
        let (tx_bytes, rx_bytes) = traffic(&text, taps);
        Ok(Some(Sample::now(cgroup, rx_bytes, tx_bytes)))
    }
}

impl Sample {
    fn now(cgroup: Stats, rx_bytes: u64, tx_bytes: u64) -> Sample {
        let info = rustix::system::sysinfo();
        Sample {
            time: Timestamp::now(),
            cgroup,
            rx_bytes,
            tx_bytes,
            online_cpus: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
            host_memory: info.totalram.saturating_mul(u64::from(info.mem_unit)),
        }
    }

    /// CPU use since `before`, 100 a CPU. docker divides by the host's CPU time; the clock says the same without it.
    #[allow(clippy::cast_precision_loss)] // a percentage for people
    pub fn cpu_percent(&self, before: &Sample) -> f64 {
        let elapsed = self.time.as_nanosecond() - before.time.as_nanosecond();
        if elapsed <= 0 {
            return 0.0;
        }
        let used = self
            .cgroup
            .cpu
            .usage_ns
            .saturating_sub(before.cgroup.cpu.usage_ns);
        used as f64 / elapsed as f64 * 100.0
    }

    /// The memory limit in force, in bytes.
    pub fn memory_limit(&self) -> u64 {
        self.cgroup.memory.limit.unwrap_or(u64::MAX).min(self.host_memory)
    }
}

/// A file of a process; none when the process has ended in between.
fn of_process(path: String) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Proc { path, source }),
    }
}

/// Received and sent bytes in the format of proc_pid_net(5), of the links that `counts` picks.
fn traffic(text: &str, counts: impl Fn(&str) -> bool) -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);
    for line in text.lines().skip(2) {
        let Some((name, counters)) = line.split_once(':') else {
            continue;
        };
        if !counts(name.trim()) {
            continue;
        }
        let mut fields = counters
            .split_ascii_whitespace()
            .map(|n| n.parse::<u64>().unwrap_or(0));
        sums.0 = sums.0.saturating_add(fields.next().unwrap_or(0));
        sums.1 = sums.1.saturating_add(fields.nth(7).unwrap_or(0));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_summed_over_the_links_that_count() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets\n    lo: 500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 2 2 0 0 0 0 0 0\n";
        assert_eq!(traffic(text, |link| link != "lo"), (101, 202));
        assert_eq!(traffic(text, |link| link == "eth1"), (1, 2));
        assert_eq!(traffic("garbage", |_| true), (0, 0));
    }
}
