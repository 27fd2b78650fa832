//! What a container is: everything the user asked for, resolved against the image.
//!
//! ```text
//! CreateRequest (flags) ─ create ─► ContainerConfig (ROOT/containers/<id>/config.json) ─ shim, at each start ─► OCI spec
//! ```
//!
//! The record is written once; `rename` and `update` replace it whole. It holds all that a start needs, so that a
//! restart asks neither the user nor the image store.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::flags::{
    CgroupnsMode, Cpus, DeviceCgroupRule, DeviceMapping, Healthcheck, IpcMode, Isolation, MemorySize,
    MemorySwap, MountSpec, NetworkMode, PidMode, RestartPolicy, Seccomp, SecurityOpt, Signal, Ulimit,
    UserSpec, UsernsMode, UtsMode,
};
use crate::id::{ContainerId, ContainerName};
use crate::network::{DEFAULT_NETWORK, DnsOptions, Endpoint, Mac, PortMapping};

/// Limits of a container; what `berth update` may change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// `--memory`.
    pub memory: Option<MemorySize>,
    /// `--memory-swap`, memory and swap together; twice the memory when not given.
    pub memory_swap: Option<MemorySwap>,
    /// `--memory-reservation`.
    pub memory_reservation: Option<MemorySize>,
    /// `--cpus`.
    pub cpus: Option<Cpus>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpu-quota`, microseconds a period.
    pub cpu_quota: Option<i64>,
    /// `--cpu-period`, microseconds.
    pub cpu_period: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--pids-limit`; -1 or 0 is none.
    pub pids_limit: Option<i64>,
    /// `--blkio-weight`, 10 to 1000.
    pub blkio_weight: Option<u16>,
}

/// Rotation of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// `--log-opt max-size`; none is no bound.
    pub max_size: Option<MemorySize>,
    /// `--log-opt max-file`: files kept, this one included.
    pub max_file: u32,
    /// `--log-driver none`: nothing is kept.
    pub disabled: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            max_size: None,
            max_file: 1,
            disabled: false,
        }
    }
}

/// What the host does for a container: flags that need no image to be understood.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// `--isolation`.
    pub isolation: Isolation,
    /// `-v`, `--mount`, `--tmpfs`, in order.
    pub mounts: Vec<MountSpec>,
    /// `-p`.
    pub ports: Vec<PortMapping>,
    /// `-P`: publish every exposed port at a free one.
    pub publish_all: bool,
    /// `--network`.
    pub network: NetworkMode,
    /// `--network-alias`.
    pub network_aliases: Vec<String>,
    /// `--ip`.
    pub ip: Option<Ipv4Addr>,
    /// `--mac-address`.
    pub mac: Option<Mac>,
    /// `--dns`, `--dns-search`, `--dns-option`, `--add-host`.
    pub dns: DnsOptions,
    /// Limits.
    pub resources: Resources,
    /// `--restart`.
    pub restart: RestartPolicy,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--security-opt`.
    pub security: Vec<SecurityOpt>,
    /// `--privileged`.
    pub privileged: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `--init`.
    pub init: bool,
    /// `--pid`.
    pub pid: PidMode,
    /// `--ipc`.
    pub ipc: IpcMode,
    /// `--uts`.
    pub uts: UtsMode,
    /// `--userns`.
    pub userns: UsernsMode,
    /// `--cgroupns`.
    pub cgroupns: CgroupnsMode,
    /// `--cgroup-parent`; `/berth` when not given.
    pub cgroup_parent: Option<String>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
    /// `--device`.
    pub devices: Vec<DeviceMapping>,
    /// `--device-cgroup-rule`.
    pub device_cgroup_rules: Vec<DeviceCgroupRule>,
    /// `--group-add`.
    pub group_add: Vec<String>,
    /// `--shm-size`; 64 MiB when not given.
    pub shm_size: Option<MemorySize>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
    /// `--log-driver`, `--log-opt`.
    pub log: LogConfig,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// `--cidfile`, removed with the container by nobody; kept for inspect.
    pub cidfile: Option<PathBuf>,
}

/// What `create` is asked for: docker's flags, parsed. None or empty means "not given", and the image decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateRequest {
    /// The image as the user wrote it; it must be in the store (pulling is the caller's).
    pub image: String,
    /// `--name`; one is made up when not given.
    pub name: Option<ContainerName>,
    /// Arguments after the image.
    pub command: Vec<String>,
    /// `--entrypoint`; empty clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `-e` and `--env-file`, `KEY=VALUE`, in order; a `KEY` alone takes that variable out.
    pub env: Vec<String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `-w`.
    pub working_dir: Option<String>,
    /// `-u`.
    pub user: Option<UserSpec>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--domainname`.
    pub domainname: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub open_stdin: bool,
    /// Standard input ends when the first client that attached goes away: `run -i` without `-d`.
    pub stdin_once: bool,
    /// `--expose`, such as `80/tcp`.
    pub expose: Vec<String>,
    /// `--stop-signal`.
    pub stop_signal: Option<Signal>,
    /// `--stop-timeout`, seconds; negative waits for ever.
    pub stop_timeout: Option<i64>,
    /// `--health-*`; merged over the image's field by field.
    pub healthcheck: Option<Healthcheck>,
    /// `--no-healthcheck`.
    pub no_healthcheck: bool,
    /// Everything that concerns the host.
    pub host: HostConfig,
}

/// The image a container was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOrigin {
    /// As the user wrote it.
    pub name: String,
    /// The config's digest, `sha256:…`.
    pub id: String,
    /// Unpacked layers, lowest first.
    pub layers: Vec<PathBuf>,
}

/// A container, as `ROOT/containers/<id>/config.json` keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// When it was created.
    pub created: Timestamp,
    /// What it was made of.
    pub image: ImageOrigin,
    /// Entrypoint, resolved.
    pub entrypoint: Vec<String>,
    /// Command, resolved.
    pub cmd: Vec<String>,
    /// Environment, the image's with the user's over it.
    pub env: Vec<String>,
    /// Labels, the image's with the user's over them.
    pub labels: BTreeMap<String, String>,
    /// Working directory; empty is `/`.
    pub working_dir: String,
    /// Whom it runs as, names not yet looked up.
    pub user: UserSpec,
    /// Host name inside.
    pub hostname: String,
    /// Domain name inside.
    pub domainname: Option<String>,
    /// It has a terminal.
    pub tty: bool,
    /// Standard input is open.
    pub open_stdin: bool,
    /// Standard input ends with the first client.
    pub stdin_once: bool,
    /// Exposed ports, such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// What `stop` sends.
    pub stop_signal: Signal,
    /// Seconds `stop` waits; 10 when not given.
    pub stop_timeout: Option<i64>,
    /// Its health check.
    pub healthcheck: Option<Healthcheck>,
    /// The seccomp profile, file contents included.
    pub seccomp: Seccomp,
    /// Everything that concerns the host; volumes have names, `-P` is expanded.
    pub host: HostConfig,
    /// Its networks, once `network connect` or `disconnect` has changed them; until then the flags say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<Endpoint>>,
}

impl ContainerConfig {
    /// Program and arguments.
    pub fn args(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).cloned().collect()
    }

    /// The networks it joins when it starts.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        if let Some(networks) = &self.networks {
            return networks.clone();
        }
        let host = &self.host;
        let network = match &host.network {
            NetworkMode::Bridge => DEFAULT_NETWORK.to_owned(),
            NetworkMode::Named(name) => name.clone(),
            NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => return Vec::new(),
        };
        vec![Endpoint {
            network,
            ip: host.ip,
            mac: host.mac,
            aliases: host.network_aliases.clone(),
        }]
    }

    /// The cgroup's path below each hierarchy's mount, `/berth/<id>`.
    pub fn cgroup(&self) -> String {
        let parent = self.host.cgroup_parent.as_deref().unwrap_or("/berth");
        format!("{}/{}", parent.trim_end_matches('/'), self.id)
    }
}
