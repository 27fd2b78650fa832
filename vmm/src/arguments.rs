//! The command line: Firecracker's flags. Those that ask for something that is not there are refused by name.

use std::path::{Path, PathBuf};

use berth_vmm::Exit;
use berth_vmm::api::BODY_MAX;
use berth_vmm::config::{Level, Logger, Metrics};
use berth_vmm::jail::Jail;
use berth_vmm::metrics::Started;
use berth_vmm::seccomp::Seccomp;
use clap::{CommandFactory, Parser};

/// Runs one microVM
#[derive(Debug, Parser)]
#[command(name = "berth-vmm", version)]
pub struct Arguments {
    /// Socket of the API
    #[arg(long, value_name = "PATH", default_value = "/run/firecracker.socket")]
    api_sock: PathBuf,
    /// Serve no API; the configuration file says everything
    #[arg(long, requires = "config_file")]
    no_api: bool,
    /// Configuration in JSON; the microVM starts at once
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Name of the microVM: letters, digits and '-', at most 64
    #[arg(long, default_value = "anonymous-instance", value_parser = instance_id)]
    pub id: String,
    /// File or named pipe for the log
    #[arg(long, value_name = "PATH")]
    log_path: Option<PathBuf>,
    /// Least severe line of the log: Off, Error, Warning, Info, Debug, Trace
    #[arg(long)]
    level: Option<Level>,
    /// Only lines of this module
    #[arg(long)]
    module: Option<String>,
    /// Name the level in each line of the log
    #[arg(long)]
    show_level: bool,
    /// Name the place in the source in each line of the log
    #[arg(long)]
    show_log_origin: bool,
    /// File or named pipe for metrics: a line of JSON each minute and when the API asks for it
    #[arg(long, value_name = "PATH")]
    metrics_path: Option<PathBuf>,
    /// Largest body of an API request
    #[arg(long, value_name = "BYTES", default_value_t = BODY_MAX)]
    pub http_api_max_payload_size: usize,
    /// When the process was started, in microseconds of the monotonic clock; for the metrics
    #[arg(long, value_name = "US")]
    start_time_us: Option<u64>,
    /// Processor time spent before, in microseconds of this process's clock; for the metrics
    #[arg(long, value_name = "US")]
    start_time_cpu_us: Option<u64>,
    /// Processor time spent by who started it, in microseconds; for the metrics
    #[arg(long, value_name = "US")]
    parent_cpu_time_us: Option<u64>,
    /// Confine no thread to the system calls it needs
    #[arg(long, conflicts_with = "seccomp_filter")]
    no_seccomp: bool,
    /// Print the version of the state files this monitor writes and reads, and nothing else
    #[arg(long)]
    pub snapshot_version: bool,
    /// Print the version of a state file, and nothing else
    #[arg(long, value_name = "FILE")]
    pub describe_snapshot: Option<PathBuf>,
    /// Before the guest runs: leave the host's namespaces, files and user
    #[arg(long)]
    jail: bool,
    /// User of the jail; unless given, one of this process alone: 1879048192 and its pid
    #[arg(long, value_name = "ID", requires = "jail")]
    uid: Option<u32>,
    /// Group of the jail; unless given, the number of its own user
    #[arg(long, value_name = "ID", requires = "jail")]
    gid: Option<u32>,
    #[arg(long, hide = true)]
    boot_timer: bool,
    #[arg(long, hide = true)]
    seccomp_filter: Option<PathBuf>,
    #[arg(long, hide = true)]
    metadata: Option<PathBuf>,
    #[arg(long, hide = true)]
    mmds_size_limit: Option<String>,
    #[arg(long, hide = true)]
    enable_pci: bool,
}

/// Firecracker's rule.
fn instance_id(text: &str) -> Result<String, String> {
    let fine = |c: char| c == '-' || c.is_alphanumeric();
    if (1..=64).contains(&text.len()) && text.chars().all(fine) {
        Ok(text.to_owned())
    } else {
        Err("it must be 1 to 64 letters, digits and '-'".into())
    }
}

impl Arguments {
    /// Reads this process's. What is wrong with them has been said when there are none.
    pub fn read() -> Result<Arguments, Exit> {
        let arguments = Arguments::try_parse().and_then(Arguments::check);
        arguments.map_err(|e| {
            // Nowhere to say that nothing can be said.
            let _ = e.print();
            if e.use_stderr() {
                Exit::BadArguments
            } else {
                Exit::PoweredOff
            }
        })
    }

    /// What is not there is refused by name.
    fn check(self) -> Result<Arguments, clap::Error> {
        let mmds = "this monitor has no metadata service";
        for (asked, flag, why) in [
            (
                self.boot_timer,
                "--boot-timer",
                "this monitor has no device that a guest tells its start",
            ),
            (
                self.seccomp_filter.is_some(),
                "--seccomp-filter",
                "this monitor has filters of its own, made for what its threads do",
            ),
            (self.metadata.is_some(), "--metadata", mmds),
            (self.mmds_size_limit.is_some(), "--mmds-size-limit", mmds),
            (
                self.enable_pci,
                "--enable-pci",
                "devices of this monitor are found through ACPI alone",
            ),
        ] {
            if asked {
                let text = format!("not supported: {flag}: {why}\n");
                return Err(Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, text));
            }
        }
        Ok(self)
    }

    /// Where the API is served.
    pub fn socket(&self) -> Option<&Path> {
        (!self.no_api).then_some(&self.api_sock)
    }

    /// Whether threads are confined.
    pub fn seccomp(&self) -> Seccomp {
        if self.no_seccomp {
            Seccomp::Off
        } else {
            Seccomp::On
        }
    }

    /// The jail, if one is asked for.
    pub fn jail(&self) -> Option<Jail> {
        self.jail.then(|| Jail::new(self.uid, self.gid))
    }

    /// What is asked of the log, if anything is.
    pub fn logger(&self) -> Option<Logger> {
        let settings = Logger {
            log_path: self.log_path.clone(),
            level: self.level,
            show_level: self.show_level.then_some(true),
            show_log_origin: self.show_log_origin.then_some(true),
            module: self.module.clone(),
        };
        (settings != Logger::default()).then_some(settings)
    }

    /// What is asked of the metrics.
    pub fn metrics(&self) -> Option<Metrics> {
        self.metrics_path.clone().map(Metrics::to)
    }

    /// When who started this process did so.
    pub fn started(&self) -> Started {
        Started {
            monotonic_us: self.start_time_us,
            cpu_us: self.start_time_cpu_us,
            parent_cpu_us: self.parent_cpu_time_us,
        }
    }
}
