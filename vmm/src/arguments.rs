//! The command line: Firecracker's flags. Those that ask for something that is not there are refused by name.

use std::path::{Path, PathBuf};

use berth_cgroups::CgroupPath;
use berth_vmm::Exit;
use berth_vmm::api::BODY_MAX;
use berth_vmm::config::{Level, Logger, Metrics};
use berth_vmm::jail::{Jail, Limit, Placement};
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
    #[arg(long, default_value = ANONYMOUS, value_parser = instance_id)]
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
    /// Let the machine stay among the host's files, networks and processes, as the user who starts it
    #[arg(long, conflicts_with_all = [
        "jail", "uid", "gid", "netns", "parent_cgroup", "cgroup", "resource_limit", "new_pid_ns",
    ])]
    no_jail: bool,
    /// What is so anyway: a jail for the machine, before its guest runs
    #[arg(long, hide = true)]
    jail: bool,
    /// User of the jail; unless given, one of this process alone: 1879048192 and its pid
    #[arg(long, value_name = "ID")]
    uid: Option<u32>,
    /// Group of the jail; unless given, the number of its own user
    #[arg(long, value_name = "ID")]
    gid: Option<u32>,
    /// Network namespace of the jail, where TAPs are looked for; unless given, an empty one, and TAPs are the starter's
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// Cgroup, from the root, in which the machine's is made, with the name of --id; unless given, it is in the starter's
    #[arg(long, value_name = "PATH", value_parser = cgroup_path)]
    parent_cgroup: Option<CgroupPath>,
    /// Control file of the machine's cgroup, and what to write to it; any number of times
    #[arg(long, value_name = "FILE=VALUE", value_parser = control_file)]
    cgroup: Vec<(String, String)>,
    /// Bound of the machine's process: fsize=BYTES or no-file=NUMBER; any number of times
    #[arg(long, value_name = "RESOURCE=VALUE")]
    resource_limit: Vec<Limit>,
    /// What is so anyway: a pid namespace for the machine's process
    #[arg(long, hide = true)]
    new_pid_ns: bool,
    #[arg(long, hide = true)]
    cgroup_version: Option<String>,
    #[arg(long, hide = true)]
    daemonize: bool,
    #[arg(long, hide = true)]
    chroot_base_dir: Option<PathBuf>,
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

/// The name of microVMs that were given none, as in Firecracker.
const ANONYMOUS: &str = "anonymous-instance";

/// Firecracker's rule.
fn instance_id(text: &str) -> Result<String, String> {
    let fine = |c: char| c == '-' || c.is_alphanumeric();
    if (1..=64).contains(&text.len()) && text.chars().all(fine) {
        Ok(text.to_owned())
    } else {
        Err("it must be 1 to 64 letters, digits and '-'".into())
    }
}

fn cgroup_path(text: &str) -> Result<CgroupPath, String> {
    CgroupPath::parse(text).map_err(|e| e.to_string())
}

fn control_file(text: &str) -> Result<(String, String), String> {
    let (file, value) = text.split_once('=').ok_or("it must be FILE=VALUE")?;
    Ok((file.to_owned(), value.to_owned()))
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
            (
                self.cgroup_version.is_some(),
                "--cgroup-version",
                "the machine's cgroup is of the host's version",
            ),
            (
                self.daemonize,
                "--daemonize",
                "who starts this monitor says where its streams go",
            ),
            (
                self.chroot_base_dir.is_some(),
                "--chroot-base-dir",
                "the root of the jail is empty and has no path",
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

    /// The jail, unless it is not wanted.
    pub fn jail(&self) -> Option<Jail> {
        let placement = || Placement {
            parent: self.parent_cgroup.clone(),
            name: (self.id != ANONYMOUS).then(|| self.id.clone()),
            files: self.cgroup.clone(),
        };
        (!self.no_jail).then(|| {
            let mut jail = Jail::new(self.uid, self.gid, placement());
            jail.network.clone_from(&self.netns);
            jail.limits.clone_from(&self.resource_limit);
            jail
        })
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
