//! Counters of what happened, as one line of JSON at a time, with Firecracker's keys.
//!
//! Each line holds what happened since the line before it. Only what is counted is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use rustix::time::ClockId;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::config;
use crate::error::{Error, Result};
use crate::logger::{self, open_output};

/// How often they are written without being asked for.
pub const PERIOD: Duration = Duration::from_secs(60);

/// Something that is counted, by any thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Once more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many times more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }
}

/// Writing it begins it anew: a line tells of the time since the last.
impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.swap(0, Relaxed))
    }
}

/// How long something took the last time, in microseconds.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

impl Latency {
    /// Does something, and keeps how long it took.
    pub(crate) fn of(&self, work: impl FnOnce()) {
        let begin = Instant::now();
        work();
        self.since(begin);
    }

    /// Keeps how long something took that has just been done.
    pub(crate) fn since(&self, begin: Instant) {
        self.took(begin.elapsed());
    }

    fn took(&self, time: Duration) {
        self.0
            .store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.load(Relaxed))
    }
}

/// Everything that is counted.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // Firecracker's groups
pub struct Metrics {
    pub api_server: Startup,
    pub get_api_requests: Requests,
    pub put_api_requests: Requests,
    pub patch_api_requests: Requests,
    pub deprecated_api: Deprecated,
    pub latencies_us: Latencies,
    pub logger: Lost,
    pub vcpu: Vcpu,
}

/// How long the process took to be there for the API.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Startup {
    pub process_startup_time_us: Latency,
    pub process_startup_time_cpu_us: Latency,
}

/// What who started this process knows of that, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Started {
    /// When, by the monotonic clock.
    pub monotonic_us: Option<u64>,
    /// When, by this process's own clock.
    pub cpu_us: Option<u64>,
    /// What was spent before by others.
    pub parent_cpu_us: Option<u64>,
}

impl Startup {
    /// The process is there now.
    pub fn is_up(&self, started: Started) {
        let since = |clock, begin: u64| {
            let now = rustix::time::clock_gettime(clock);
            let now = Duration::try_from(now).unwrap_or_default();
            now.saturating_sub(Duration::from_micros(begin))
        };
        if let Some(begin) = started.monotonic_us {
            self.process_startup_time_us
                .took(since(ClockId::Monotonic, begin));
        }
        if let Some(begin) = started.cpu_us {
            let parent = Duration::from_micros(started.parent_cpu_us.unwrap_or(0));
            let own = since(ClockId::ProcessCPUTime, begin);
            self.process_startup_time_cpu_us.took(own.saturating_add(parent));
        }
    }
}

/// Requests by what they are about: how many, and how many of them were refused or failed.
#[derive(Debug)]
pub struct Requests(Vec<(Kind, Counter, Counter)>);

/// The first part of a path, and its name among the counters.
type Kind = (&'static str, &'static str);

const GET: [Kind; 5] = [
    ("", "instance_info"),
    ("version", "vmm_version"),
    ("machine-config", "machine_cfg"),
    ("vm", "vm_cfg"),
    ("balloon", "balloon"),
];
const PUT: [Kind; 12] = [
    ("actions", "actions"),
    ("boot-source", "boot_source"),
    ("drives", "drive"),
    ("logger", "logger"),
    ("machine-config", "machine_cfg"),
    ("cpu-config", "cpu_cfg"),
    ("metrics", "metrics"),
    ("network-interfaces", "network"),
    ("vsock", "vsock"),
    ("entropy", "entropy"),
    ("balloon", "balloon"),
    ("snapshot", "snapshot"),
];
const PATCH: [Kind; 5] = [
    ("drives", "drive"),
    ("network-interfaces", "network"),
    ("machine-config", "machine_cfg"),
    ("balloon", "balloon"),
    ("vm", "vm"),
];

impl Requests {
    fn of(kinds: &[Kind]) -> Requests {
        let counters = |kind: &Kind| (*kind, Counter::new(), Counter::new());
        Requests(kinds.iter().map(counters).collect())
    }

    fn count(&self, first: &str, failed: bool) {
        if let Some((_, all, failures)) = self.0.iter().find(|(kind, ..)| kind.0 == first) {
            all.inc();
            if failed {
                failures.inc();
            }
        }
    }
}

impl Serialize for Requests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len() * 2))?;
        for ((_, name), all, failures) in &self.0 {
            map.serialize_entry(&format!("{name}_count"), all)?;
            map.serialize_entry(&format!("{name}_fails"), failures)?;
        }
        map.end()
    }
}

/// Requests written in a way that will go.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Deprecated {
    pub deprecated_http_api_calls: Counter,
}

/// How long changes of the machine's state took, the last time.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Latencies {
    pub full_create_snapshot: Latency,
    pub load_snapshot: Latency,
    pub pause_vm: Latency,
    pub resume_vm: Latency,
}

/// What the reader of the log or of these lines will not see.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Lost {
    pub missed_log_count: &'static Counter,
    pub missed_metrics_count: Counter,
}

/// Why the processors came back to this process.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Vcpu {
    pub exit_io_in: Counter,
    pub exit_io_out: Counter,
    pub exit_mmio_read: Counter,
    pub exit_mmio_write: Counter,
    pub failures: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            api_server: Startup::default(),
            get_api_requests: Requests::of(&GET),
            put_api_requests: Requests::of(&PUT),
            patch_api_requests: Requests::of(&PATCH),
            deprecated_api: Deprecated::default(),
            latencies_us: Latencies::default(),
            logger: Lost {
                missed_log_count: &logger::MISSED,
                missed_metrics_count: Counter::new(),
            },
            vcpu: Vcpu::default(),
        }
    }
}

impl Metrics {
    /// A request was answered.
    pub(crate) fn request(&self, method: &str, path: &str, failed: bool) {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match method {
            "GET" => self.get_api_requests.count(first, failed),
            "PUT" => self.put_api_requests.count(first, failed),
            "PATCH" => self.patch_api_requests.count(first, failed),
            _ => {}
        }
    }
}

/// Where the lines go.
#[derive(Debug)]
pub struct Writer {
    metrics: Arc<Metrics>,
    output: Option<(File, BTreeMap<String, String>)>,
}

#[derive(Serialize)]
struct Line<'a> {
    utc_timestamp_ms: u128,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    properties: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    metrics: &'a Metrics,
}

impl Writer {
    /// One that writes nowhere yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Writer {
        Writer {
            metrics,
            output: None,
        }
    }

    /// Says where to, once.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] the second time, [`Error::File`] when the file cannot be opened.
    pub fn open(&mut self, settings: &config::Metrics) -> Result<()> {
        if self.output.is_some() {
            return Err(Error::Invalid {
                field: "metrics.metrics_path",
                // Firecracker's words, which clients look for.
                why: "Reinitialization of metrics not allowed.".into(),
            });
        }
        let file = open_output(&settings.metrics_path)?;
        self.output = Some((file, settings.properties.clone()));
        Ok(())
    }

    /// Where they go, if it is known.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.output.as_ref().map(|(file, _)| file.as_raw_fd())
    }

    /// Writes a line, if it is known where to. A reader that does not keep up loses it.
    ///
    /// # Errors
    ///
    /// [`Error::Events`] with the reason why it was not written.
    pub fn flush(&self) -> Result<()> {
        let Some((mut output, properties)) = self.output.as_ref().map(|(file, map)| (file, map)) else {
            return Ok(());
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let line = Line {
            utc_timestamp_ms: now.unwrap_or_default().as_millis(),
            properties,
            metrics: &self.metrics,
        };
        let mut line = serde_json::to_vec(&line).expect("its keys are strings");
        line.push(b'\n');
        let written = output.write(&line).and_then(|count| match count == line.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        });
        written.map_err(|source| {
            self.metrics.logger.missed_metrics_count.inc();
            Error::Events {
                operation: "write the metrics",
                source,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_line_tells_of_the_time_since_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics");
        let metrics = Arc::new(Metrics::default());
        let mut writer = Writer::new(metrics.clone());
        writer.flush().unwrap();
        let settings: config::Metrics =
            serde_json::from_value(serde_json::json!({"metrics_path": path, "properties": {"of": "mine"}}))
                .unwrap();
        writer.open(&settings).unwrap();
        assert!(
            writer
                .open(&settings)
                .unwrap_err()
                .to_string()
                .contains("Reinitialization")
        );
        metrics.vcpu.exit_io_in.add(5);
        metrics.request("PUT", "/drives/root", true);
        metrics.request("GET", "/", false);
        metrics.latencies_us.pause_vm.took(Duration::from_millis(2));
        writer.flush().unwrap();
        metrics.vcpu.exit_io_in.inc();
        writer.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let told = |line: usize, path: &str| lines[line].pointer(path).unwrap().as_u64().unwrap();
        assert_eq!((told(0, "/vcpu/exit_io_in"), told(1, "/vcpu/exit_io_in")), (5, 1));
        assert_eq!(
            (
                told(0, "/put_api_requests/drive_count"),
                told(0, "/put_api_requests/drive_fails")
            ),
            (1, 1)
        );
        assert_eq!(
            (
                told(0, "/get_api_requests/instance_info_count"),
                told(1, "/put_api_requests/drive_count")
            ),
            (1, 0)
        );
        assert_eq!(
            (
                told(0, "/latencies_us/pause_vm"),
                told(1, "/latencies_us/pause_vm")
            ),
            (2000, 2000)
        );
        assert!(told(0, "/utc_timestamp_ms") > 1_700_000_000_000);
        assert_eq!(lines[0]["properties"]["of"], "mine");
    }
}
