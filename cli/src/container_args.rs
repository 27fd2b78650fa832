//! The flags `run` and `create` share, and what they ask of the engine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use berth_engine::flags::{
    CgroupnsMode, Cpus, DeviceCgroupRule, DeviceMapping, Healthcheck, IpcMode, Isolation, MemorySize,
    MemorySwap, MountSpec, NetworkMode, PidMode, RestartPolicy, SecurityOpt, Signal, Ulimit, UserSpec,
    UsernsMode, UtsMode, parse_tmpfs, parse_volume,
};
use berth_engine::network::{DnsOptions, HostTarget, Mac, Word, port};
use berth_engine::{ContainerName, CreateRequest, HostConfig, LogConfig, Resources};
use clap::Args;

use crate::failure::{Failure, Result};
use crate::printer::parse_duration;

#[derive(Debug, Args)]
pub struct ContainerArgs {
    /// Image, then the command to run in place of the image's own, and its arguments
    // One argument: what follows the image is the command's, also what looks like a flag of ours.
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    pub words: Vec<String>,
    /// Name of the container
    #[arg(long)]
    pub name: Option<ContainerName>,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Set an environment variable
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long)]
    workdir: Option<String>,
    /// User and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<UserSpec>,
    /// Replace the image's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Mount a volume or host path
    #[arg(short, long = "volume", value_name = "[SOURCE:]TARGET[:OPTIONS]", value_parser = parse_volume)]
    volume: Vec<MountSpec>,
    /// Mount something
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<MountSpec>,
    /// Mount a tmpfs
    #[arg(long, value_name = "TARGET[:OPTIONS]", value_parser = parse_tmpfs)]
    tmpfs: Vec<MountSpec>,
    /// Publish a port
    #[arg(short, long = "publish", value_name = "[[IP:]HOST:]PORT[/PROTOCOL]")]
    publish: Vec<String>,
    /// Publish all exposed ports
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port
    #[arg(long)]
    expose: Vec<String>,
    /// Network: bridge, none, host, container:NAME or a network's name
    #[arg(long, visible_alias = "net", default_value = "bridge")]
    network: NetworkMode,
    /// What stands between the container and the host: container (namespaces) or vm (a microVM)
    #[arg(long, default_value = "container", value_name = "container|vm")]
    isolation: Isolation,
    /// Another name on the network
    #[arg(long)]
    network_alias: Vec<String>,
    /// Address on the network
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// Ethernet address
    #[arg(long)]
    mac_address: Option<Mac>,
    /// Name server
    #[arg(long)]
    dns: Vec<IpAddr>,
    /// Search domain
    #[arg(long)]
    dns_search: Vec<Word>,
    /// Resolver option
    #[arg(long, visible_alias = "dns-opt")]
    dns_option: Vec<Word>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:IP", value_parser = parse_host)]
    add_host: Vec<(Word, HostTarget)>,
    /// Host name inside
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Domain name inside
    #[arg(long)]
    domainname: Option<String>,
    #[command(flatten)]
    resources: ResourceArgs,
    /// Restart policy: no, on-failure[:MAX], always, unless-stopped
    #[arg(long, default_value = "no")]
    restart: RestartPolicy,
    /// Add a capability
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long)]
    cap_drop: Vec<String>,
    /// Security option
    #[arg(long)]
    security_opt: Vec<SecurityOpt>,
    /// Give all capabilities and devices
    #[arg(long)]
    privileged: bool,
    /// Root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Run an init inside that forwards signals and reaps
    #[arg(long)]
    init: bool,
    /// Pid namespace
    #[arg(long, default_value = "")]
    pid: PidMode,
    /// IPC namespace
    #[arg(long, default_value = "")]
    ipc: IpcMode,
    /// UTS namespace
    #[arg(long, default_value = "")]
    uts: UtsMode,
    /// User namespace
    #[arg(long, default_value = "")]
    userns: UsernsMode,
    /// Cgroup namespace
    #[arg(long, default_value = "")]
    cgroupns: CgroupnsMode,
    /// Parent cgroup
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// Kernel parameter
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    sysctl: Vec<(String, String)>,
    /// Device of the host
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]")]
    device: Vec<DeviceMapping>,
    /// Rule for the devices cgroup
    #[arg(long)]
    device_cgroup_rule: Vec<DeviceCgroupRule>,
    /// Additional group
    #[arg(long)]
    group_add: Vec<String>,
    /// Size of /dev/shm
    #[arg(long)]
    shm_size: Option<MemorySize>,
    /// OOM preference, -1000 to 1000
    #[arg(long, allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    oom_score_adj: Option<i32>,
    /// Never kill for lack of memory
    #[arg(long)]
    oom_kill_disable: bool,
    /// Log driver: json-file or none
    #[arg(long)]
    log_driver: Option<String>,
    /// Log option: max-size, max-file
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    log_opt: Vec<(String, String)>,
    /// Label
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Annotation of the OCI runtime
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    annotation: Vec<(String, String)>,
    /// Signal that stops the container
    #[arg(long)]
    stop_signal: Option<Signal>,
    /// Seconds to wait before killing
    #[arg(long, allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Command that checks health
    #[arg(long)]
    health_cmd: Option<String>,
    /// Time between checks
    #[arg(long, value_parser = duration)]
    health_interval: Option<Duration>,
    /// Longest a check may take
    #[arg(long, value_parser = duration)]
    health_timeout: Option<Duration>,
    /// Time for the container to start up
    #[arg(long, value_parser = duration)]
    health_start_period: Option<Duration>,
    /// Time between checks while it starts up
    #[arg(long, value_parser = duration)]
    health_start_interval: Option<Duration>,
    /// Failures that make it unhealthy
    #[arg(long)]
    health_retries: Option<u32>,
    /// Switch the image's health check off
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period", "health_start_interval"])]
    no_healthcheck: bool,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Pull: always, missing or never
    #[arg(long, default_value = "missing", value_parser = ["always", "missing", "never"])]
    pub pull: String,
    /// Platform, such as linux/amd64
    #[arg(long, value_parser = berth_images::Platform::parse)]
    pub platform: Option<berth_images::Platform>,
    /// No progress while pulling
    #[arg(short, long)]
    pub quiet: bool,
}

/// The limits that `update` changes too.
#[derive(Debug, Args)]
pub struct ResourceArgs {
    /// Memory limit
    #[arg(short, long)]
    memory: Option<MemorySize>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<MemorySwap>,
    /// Soft memory limit
    #[arg(long)]
    memory_reservation: Option<MemorySize>,
    /// Number of CPUs
    #[arg(long)]
    cpus: Option<Cpus>,
    /// CPU weight
    #[arg(short, long)]
    cpu_shares: Option<u64>,
    /// CPU time per period, microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Length of a period, microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// CPUs to run on
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Most tasks; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Block I/O weight, 10 to 1000
    #[arg(long, value_parser = clap::value_parser!(u16).range(10..=1000))]
    blkio_weight: Option<u16>,
}

impl From<ResourceArgs> for Resources {
    fn from(args: ResourceArgs) -> Resources {
        Resources {
            memory: args.memory,
            memory_swap: args.memory_swap,
            memory_reservation: args.memory_reservation,
            cpus: args.cpus,
            cpu_shares: args.cpu_shares,
            cpu_quota: args.cpu_quota,
            cpu_period: args.cpu_period,
            cpuset_cpus: args.cpuset_cpus,
            cpuset_mems: args.cpuset_mems,
            pids_limit: args.pids_limit,
            blkio_weight: args.blkio_weight,
        }
    }
}

impl ContainerArgs {
    /// The image's name.
    pub fn image(&self) -> &str {
        &self.words[0]
    }

    /// What the engine is asked for.
    pub fn into_request(self, auto_remove: bool, detach: bool) -> Result<CreateRequest> {
        let log = log_config(self.log_driver.as_deref(), &self.log_opt)?;
        let mut ports = Vec::new();
        for text in &self.publish {
            ports.extend(port::parse(text)?);
        }
        let health = Healthcheck {
            test: self
                .health_cmd
                .map_or_else(Vec::new, |line| vec!["CMD-SHELL".to_owned(), line]),
            interval: self.health_interval,
            timeout: self.health_timeout,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            retries: self.health_retries,
        };
        let has_health = !health.test.is_empty()
            || health.interval.is_some()
            || health.timeout.is_some()
            || health.start_period.is_some()
            || health.start_interval.is_some()
            || health.retries.is_some();
        let env = crate::environment::gather(&self.env_file, &self.env)?;
        let mut labels = BTreeMap::new();
        for file in &self.label_file {
            labels.extend(
                crate::environment::read_lines(file)?
                    .iter()
                    .map(|line| pair_or_key(line)),
            );
        }
        labels.extend(self.label.iter().map(|line| pair_or_key(line)));
        let mut words = self.words.into_iter();
        Ok(CreateRequest {
            image: words.next().expect("clap requires the image"),
            name: self.name,
            command: words.collect(),
            entrypoint: self.entrypoint.map(|program| vec![program]),
            env,
            labels,
            working_dir: self.workdir,
            user: self.user,
            hostname: self.hostname,
            domainname: self.domainname,
            tty: self.tty,
            open_stdin: self.interactive,
            stdin_once: self.interactive && !detach,
            expose: self.expose,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            healthcheck: has_health.then_some(health),
            no_healthcheck: self.no_healthcheck,
            host: HostConfig {
                mounts: self
                    .volume
                    .into_iter()
                    .chain(self.mount)
                    .chain(self.tmpfs)
                    .collect(),
                ports,
                publish_all: self.publish_all,
                network: self.network,
                network_aliases: self.network_alias,
                ip: self.ip,
                mac: self.mac_address,
                dns: DnsOptions {
                    servers: self.dns,
                    search: self.dns_search,
                    options: self.dns_option,
                    extra_hosts: self.add_host,
                },
                resources: self.resources.into(),
                restart: self.restart,
                auto_remove,
                cap_add: self.cap_add,
                cap_drop: self.cap_drop,
                security: self.security_opt,
                isolation: self.isolation,
                privileged: self.privileged,
                read_only: self.read_only,
                init: self.init,
                pid: self.pid,
                ipc: self.ipc,
                uts: self.uts,
                userns: self.userns,
                cgroupns: self.cgroupns,
                cgroup_parent: self.cgroup_parent,
                ulimits: self.ulimit,
                sysctls: self.sysctl.into_iter().collect(),
                devices: self.device,
                device_cgroup_rules: self.device_cgroup_rule,
                group_add: self.group_add,
                shm_size: self.shm_size,
                oom_score_adj: self.oom_score_adj,
                oom_kill_disable: self.oom_kill_disable,
                log,
                annotations: self.annotation.into_iter().collect(),
                cidfile: self.cidfile,
            },
        })
    }
}

fn log_config(driver: Option<&str>, options: &[(String, String)]) -> Result<LogConfig> {
    let mut log = LogConfig::default();
    match driver {
        None | Some("json-file") => {}
        Some("none") => log.disabled = true,
        Some(other) => {
            return Err(Failure::unsupported(
                &format!("log driver {other}"),
                "berth writes json-file, or none",
            ));
        }
    }
    for (key, value) in options {
        match key.as_str() {
            "max-size" => log.max_size = Some(value.parse()?),
            "max-file" => {
                let count = value.parse().ok().filter(|count| *count > 0);
                log.max_file =
                    count.ok_or_else(|| Failure::new(format!("log option max-file: bad count {value:?}")))?;
            }
            other => {
                return Err(Failure::unsupported(
                    &format!("log option {other}"),
                    "known are max-size and max-file",
                ));
            }
        }
    }
    Ok(log)
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is no duration such as 30s or 1m30s"))
}

/// `KEY=VALUE`.
pub fn parse_pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form key=value")),
    }
}

/// `KEY` or `KEY=VALUE`.
pub fn pair_or_key(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

fn parse_host(text: &str) -> std::result::Result<(Word, HostTarget), String> {
    let bad = || format!("{text:?} is not of the form name:address");
    let (name, address) = text
        .split_once([':', '='])
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(bad)?;
    let target = match address {
        "host-gateway" => HostTarget::Gateway,
        address => {
            let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            HostTarget::Address(bracketed.unwrap_or(address).parse().map_err(|_| bad())?)
        }
    };
    let name = name.parse::<Word>().map_err(|e| e.to_string())?;
    Ok((name, target))
}
