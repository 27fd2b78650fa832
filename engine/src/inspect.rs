//! `inspect` and `port`: the two records in docker's shape.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::{ContainerConfig, HostConfig, Resources};
use crate::container::{State, Status};
use crate::engine::Engine;
use crate::error::Result;
use crate::flags::{IpcMode, Isolation, MemorySwap, MountKind, MountSpec, NetworkMode, Seccomp, SecurityOpt};
use crate::id::ContainerId;
use crate::network::{self, HostTarget, PortMapping};
use crate::paths::Paths;
use crate::ports;

/// docker's word for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// The container as docker's `inspect` prints it: one JSON object.
    pub fn inspect(&self, id: &ContainerId) -> Result<Value> {
        let config = self.config(id)?;
        let state = self.state(id)?;
        let args = config.args();
        let run = |name: &str| {
            let path = self.paths.run_dir(id).join(name);
            if path.exists() {
                path.display().to_string()
            } else {
                String::new()
            }
        };
        let log = if config.host.log.disabled {
            String::new()
        } else {
            self.paths.log(id).display().to_string()
        };
        let mounts: Vec<Value> = config.host.mounts.iter().map(|m| mount(m, &self.paths)).collect();
        Ok(json!({
            "Id": config.id,
            "Created": time(Some(config.created)),
            "Path": args.first(),
            "Args": args.get(1..).unwrap_or_default(),
            "State": of_state(&state),
            "Image": config.image.id,
            "ResolvConfPath": run("resolv.conf"),
            "HostnamePath": run("hostname"),
            "HostsPath": run("hosts"),
            "LogPath": log,
            "Name": format!("/{}", config.name),
            "RestartCount": state.restart_count,
            "Driver": "overlay2",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": null,
            "HostConfig": of_host(&config),
            "GraphDriver": graph(&config, &self.paths),
            "Mounts": mounts,
            "Config": of_config(&config),
            "NetworkSettings": of_network(&config, &state, &self.paths),
        }))
    }

    /// Published ports while it runs.
    pub fn port(&self, id: &ContainerId) -> Result<Vec<PortMapping>> {
        Ok(self.state(id)?.ports)
    }
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| NEVER.to_owned(), |t| t.to_string())
}

fn of_state(state: &State) -> Value {
    let mut out = json!({
        "Status": state.status.name(),
        // docker's Running holds while frozen, and while the policy waits, too.
        "Running": state.status.needs_shim(),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time(state.started),
        "FinishedAt": time(state.finished),
    });
    if let Some(health) = &state.health {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|r| {
                json!({
                    "Start": time(Some(r.start)),
                    "End": time(Some(r.end)),
                    "ExitCode": r.exit_code,
                    "Output": r.output,
                })
            })
            .collect();
        out["Health"] =
            json!({ "Status": health.status, "FailingStreak": health.failing_streak, "Log": log });
    }
    out
}

fn of_config(config: &ContainerConfig) -> Value {
    let set = |names: &mut dyn Iterator<Item = String>| -> Value {
        Value::Object(names.map(|n| (n, json!({}))).collect::<Map<_, _>>())
    };
    let volumes = set(&mut config
        .host
        .mounts
        .iter()
        .filter(|m| matches!(m.kind, MountKind::Volume { .. }))
        .map(|m| m.target.display().to_string()));
    let mut out = json!({
        "Hostname": config.hostname,
        "Domainname": config.domainname.as_deref().unwrap_or_default(),
        "User": config.user.to_string(),
        "AttachStdin": config.stdin_once,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": set(&mut config.exposed_ports.iter().cloned()),
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": config.env,
        "Cmd": config.cmd,
        "Image": config.image.name,
        "Volumes": volumes,
        "WorkingDir": config.working_dir,
        "Entrypoint": (!config.entrypoint.is_empty()).then_some(&config.entrypoint),
        "OnBuild": null,
        "Labels": config.labels,
        "StopSignal": config.stop_signal.to_string(),
        "StopTimeout": config.stop_timeout,
    });
    if let Some(check) = &config.healthcheck {
        let nanos = |d: Option<std::time::Duration>| d.map_or(0, |d| d.as_nanos());
        out["Healthcheck"] = json!({
            "Test": check.test,
            "Interval": nanos(check.interval),
            "Timeout": nanos(check.timeout),
            "StartPeriod": nanos(check.start_period),
            "StartInterval": nanos(check.start_interval),
            "Retries": check.retries.unwrap_or(0),
        });
    }
    out
}

fn of_host(config: &ContainerConfig) -> Value {
    let host = &config.host;
    let mut log = Map::new();
    if let Some(size) = host.log.max_size {
        log.insert("max-size".into(), json!(size.to_string()));
        log.insert("max-file".into(), json!(host.log.max_file.to_string()));
    }
    let tmpfs: Map<String, Value> = host
        .mounts
        .iter()
        .filter_map(|m| match &m.kind {
            MountKind::Tmpfs { size, mode, options } => {
                let mut all = options.clone();
                all.extend(size.map(|size| format!("size={size}")));
                all.extend(mode.map(|mode| format!("mode={mode:o}")));
                Some((m.target.display().to_string(), json!(all.join(","))))
            }
            _ => None,
        })
        .collect();
    let network = match &host.network {
        NetworkMode::Bridge => "bridge".to_owned(),
        other => other.to_string(),
    };
    let rules = host.device_cgroup_rules.iter().map(|rule| {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        format!(
            "{} {}:{} {}",
            rule.kind,
            number(rule.major),
            number(rule.minor),
            rule.permissions
        )
    });
    let devices = host.devices.iter().map(|d| {
        json!({ "PathOnHost": d.host, "PathInContainer": d.container, "CgroupPermissions": d.permissions })
    });
    let ulimits = host
        .ulimits
        .iter()
        .map(|u| json!({ "Name": u.name, "Soft": u.soft, "Hard": u.hard }));
    let extra_hosts = host.dns.extra_hosts.iter().map(|(name, target)| match target {
        HostTarget::Address(address) => format!("{name}:{address}"),
        HostTarget::Gateway => format!("{name}:host-gateway"),
    });
    let mut out = json!({
        "Binds": host.mounts.iter().filter_map(bind).collect::<Vec<_>>(),
        "ContainerIDFile": host.cidfile.as_ref().map_or(String::new(), |p| p.display().to_string()),
        "LogConfig": { "Type": if host.log.disabled { "none" } else { "json-file" }, "Config": log },
        "NetworkMode": network,
        "PortBindings": bindings(&host.ports),
        "PublishAllPorts": host.publish_all,
        "RestartPolicy": {
            "Name": host.restart.name(),
            "MaximumRetryCount": host.restart.maximum_retries(),
        },
        "AutoRemove": host.auto_remove,
        "CapAdd": host.cap_add,
        "CapDrop": host.cap_drop,
        "CgroupnsMode": host.cgroupns.to_string(),
        "CgroupParent": host.cgroup_parent.as_deref().unwrap_or_default(),
        "Dns": host.dns.servers,
        "DnsOptions": host.dns.options,
        "DnsSearch": host.dns.search,
        "ExtraHosts": extra_hosts.collect::<Vec<_>>(),
        "GroupAdd": host.group_add,
        "IpcMode": host.ipc.to_string(),
        "PidMode": host.pid.to_string(),
        "UTSMode": host.uts.to_string(),
        "UsernsMode": host.userns.to_string(),
        "Isolation": match host.isolation {
            // docker's word for it on Linux is none.
            Isolation::Container => String::new(),
            vm @ Isolation::Vm => vm.to_string(),
        },
        "Privileged": host.privileged,
        "ReadonlyRootfs": host.read_only,
        "SecurityOpt": security(host, &config.seccomp),
        "ShmSize": if host.ipc == IpcMode::None { 0 } else { host.shm_size.map_or(64 << 20, |s| s.0) },
        "Sysctls": host.sysctls,
        "Tmpfs": tmpfs,
        "Runtime": "berth",
        "Init": host.init,
        "OomKillDisable": host.oom_kill_disable,
        "OomScoreAdj": host.oom_score_adj.unwrap_or(0),
        "Ulimits": ulimits.collect::<Vec<_>>(),
        "Devices": devices.collect::<Vec<_>>(),
        "DeviceCgroupRules": rules.collect::<Vec<_>>(),
        "Annotations": host.annotations,
    });
    if let (Value::Object(out), Value::Object(limits)) = (&mut out, limits(&host.resources)) {
        out.extend(limits);
    }
    out
}

fn limits(r: &Resources) -> Value {
    let swap = match r.memory_swap {
        Some(MemorySwap::Unlimited) => -1,
        Some(MemorySwap::Total(total)) if total.0 > 0 => i64::try_from(total.0).unwrap_or(i64::MAX),
        _ => r
            .memory
            .map_or(0, |m| i64::try_from(m.0.saturating_mul(2)).unwrap_or(i64::MAX)),
    };
    json!({
        "Memory": r.memory.map_or(0, |m| m.0),
        "MemorySwap": swap,
        "MemoryReservation": r.memory_reservation.map_or(0, |m| m.0),
        "NanoCpus": r.cpus.map_or(0, |c| c.nano),
        "CpuShares": r.cpu_shares.unwrap_or(0),
        "CpuPeriod": r.cpu_period.unwrap_or(0),
        "CpuQuota": r.cpu_quota.unwrap_or(0),
        "CpusetCpus": r.cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": r.cpuset_mems.as_deref().unwrap_or_default(),
        "BlkioWeight": r.blkio_weight.unwrap_or(0),
        "PidsLimit": r.pids_limit,
    })
}

fn security(host: &HostConfig, seccomp: &Seccomp) -> Vec<String> {
    let mut out: Vec<String> = host
        .security
        .iter()
        .filter_map(|option| match option {
            SecurityOpt::NoNewPrivileges(on) => Some(if *on {
                "no-new-privileges".into()
            } else {
                "no-new-privileges=false".into()
            }),
            SecurityOpt::SystemPathsUnconfined => Some("systempaths=unconfined".into()),
            SecurityOpt::Apparmor(profile) => Some(format!("apparmor={profile}")),
            SecurityOpt::LabelDisable => Some("label=disable".into()),
            _ => None,
        })
        .collect();
    match seccomp {
        Seccomp::Unconfined if !host.privileged => out.push("seccomp=unconfined".into()),
        Seccomp::Profile(profile) => out.push(format!("seccomp={profile}")),
        _ => {}
    }
    out
}

/// A bind or named volume as `-v` would say it.
fn bind(spec: &MountSpec) -> Option<String> {
    let source = match &spec.kind {
        MountKind::Bind { source, .. } => source.display().to_string(),
        MountKind::Volume { name, .. } => name.clone()?,
        MountKind::Tmpfs { .. } => return None,
    };
    let access = if spec.read_only { ":ro" } else { "" };
    Some(format!("{source}:{}{access}", spec.target.display()))
}

fn mount(spec: &MountSpec, paths: &Paths) -> Value {
    let common = |kind: &str, source: String, propagation: &str| {
        json!({
            "Type": kind,
            "Source": source,
            "Destination": spec.target,
            "Mode": if spec.read_only { "ro" } else { "" },
            "RW": !spec.read_only,
            "Propagation": propagation,
        })
    };
    match &spec.kind {
        MountKind::Bind { source, .. } => {
            common("bind", source.display().to_string(), spec.propagation.name())
        }
        MountKind::Volume { name, .. } => {
            let name = name.as_deref().unwrap_or_default();
            let data = paths.root.join("volumes").join(name).join("_data");
            let mut out = common("volume", data.display().to_string(), "");
            out["Name"] = json!(name);
            out["Driver"] = json!("local");
            out
        }
        MountKind::Tmpfs { .. } => common("tmpfs", String::new(), ""),
    }
}

fn graph(config: &ContainerConfig, paths: &Paths) -> Value {
    let lower: Vec<String> = config
        .image
        .layers
        .iter()
        .rev()
        .map(|l| l.display().to_string())
        .collect();
    json!({
        "Name": "overlay2",
        "Data": {
            "LowerDir": lower.join(":"),
            "UpperDir": paths.upper(&config.id),
            "WorkDir": paths.work(&config.id),
            "MergedDir": paths.rootfs(&config.id),
        },
    })
}

fn bindings(ports: &[PortMapping]) -> Value {
    let mut out = Map::new();
    for port in ports {
        let to = json!({
            "HostIp": if port.host_ip.is_unspecified() { String::new() } else { port.host_ip.to_string() },
            "HostPort": if port.host_port == 0 { String::new() } else { port.host_port.to_string() },
        });
        let key = format!("{}/{}", port.container_port, port.protocol);
        if let Value::Array(list) = out.entry(key).or_insert_with(|| json!([])) {
            list.push(to);
        }
    }
    Value::Object(out)
}

fn of_network(config: &ContainerConfig, state: &State, paths: &Paths) -> Value {
    let mut ports = Map::new();
    for port in ports::open(config, state) {
        let list = ports
            .entry(format!("{}/{}", port.number, port.protocol))
            // Exposed but not published, docker's null.
            .or_insert(Value::Null);
        let Some((ip, number)) = port.published else {
            continue;
        };
        let to = json!({ "HostIp": ip.to_string(), "HostPort": number.to_string() });
        match list {
            Value::Array(list) => list.push(to),
            other => *other = json!([to]),
        }
    }
    let asked = config.endpoints();
    let asked_of = |name: &str| asked.iter().find(|endpoint| endpoint.network == name);
    // Of one that runs the network's own record: `network connect` changes it, and the state is the shim's to write.
    let places = if state.pid > 0 {
        let attached = network::inspect(&crate::reconcile::network_paths(paths), config.id.as_str());
        attached
            .ok()
            .flatten()
            .map_or_else(|| state.endpoints.clone(), |(places, _)| places)
    } else {
        Vec::new()
    };
    let mut networks = Map::new();
    for e in &places {
        let asked = asked_of(&e.network);
        networks.insert(
            e.network.clone(),
            json!({
                "IPAMConfig": asked.and_then(|e| e.ip).map(|ip| json!({ "IPv4Address": ip.to_string() })),
                "Links": null,
                "Aliases": asked.map(|e| e.aliases.clone()).unwrap_or_default(),
                "DNSNames": e.names,
                "MacAddress": e.mac.to_string(),
                "Gateway": e.gateway.to_string(),
                "IPAddress": e.ip.to_string(),
                "IPPrefixLen": e.prefix,
                "IPv6Gateway": "",
                "GlobalIPv6Address": "",
                "GlobalIPv6PrefixLen": 0,
            }),
        );
    }
    if networks.is_empty() {
        // Its places before it starts: names without addresses.
        let mut names: Vec<(String, Vec<String>)> =
            asked.into_iter().map(|e| (e.network, e.aliases)).collect();
        match &config.host.network {
            NetworkMode::None => names.push(("none".to_owned(), Vec::new())),
            NetworkMode::Host => names.push(("host".to_owned(), Vec::new())),
            NetworkMode::Bridge | NetworkMode::Named(_) | NetworkMode::Container(_) => {}
        }
        for (name, aliases) in names {
            networks.insert(
                name,
                json!({
                    "Aliases": aliases,
                    "MacAddress": "",
                    "Gateway": "",
                    "IPAddress": "",
                    "IPPrefixLen": 0,
                }),
            );
        }
    }
    // The flat fields are the default bridge's alone, as in docker.
    let flat = places.iter().find(|e| e.network == network::DEFAULT_NETWORK);
    let netns = paths.state.join("netns").join(config.id.as_str());
    json!({
        "Bridge": "",
        "SandboxID": if netns.exists() { config.id.as_str() } else { "" },
        "SandboxKey": if netns.exists() { netns.display().to_string() } else { String::new() },
        "Ports": ports,
        "IPAddress": flat.map_or(String::new(), |e| e.ip.to_string()),
        "IPPrefixLen": flat.map_or(0, |e| e.prefix),
        "Gateway": flat.map_or(String::new(), |e| e.gateway.to_string()),
        "MacAddress": flat.map_or(String::new(), |e| e.mac.to_string()),
        "Networks": networks,
    })
}
