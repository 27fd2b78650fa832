//! A container's config becomes an OCI spec (runtime-spec config.md), anew at each start.

pub(crate) mod caps;
mod cpuset;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod resources;

use std::os::fd::BorrowedFd;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::ContainerConfig;
use crate::error::{Error, Result};
use crate::flags::{NetworkMode, PidMode, Seccomp, SecurityOpt, UtsMode};
use crate::image_files::{self, Identity};
use crate::paths::Paths;

/// Where the host mounts the memory controller of cgroup v1, the only one that knows the switch.
const MEMORY_V1: &str = "/sys/fs/cgroup/memory/memory.oom_control";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Refuses what no start could honour, before anything is made.
pub(crate) fn check(config: &ContainerConfig) -> Result<()> {
    let invalid = |what: &str, why: &str| {
        Err(Error::Invalid {
            what: what.into(),
            why: why.into(),
        })
    };
    let host = &config.host;
    caps::effective(host)?;
    resources::limits(&host.resources)?;
    working_dir(&config.working_dir)?;
    let name_ok = |n: &str| {
        n.len() <= 64
            && n.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    for (what, name) in [
        ("hostname", config.hostname.as_str()),
        ("domainname", config.domainname.as_deref().unwrap_or_default()),
    ] {
        if !name_ok(name) {
            return invalid(what, "at most 64 letters, digits, '-', '.' and '_'");
        }
    }
    for alias in &host.network_aliases {
        if let Err(e) = crate::network::validate_alias(alias) {
            return invalid("--network-alias", &e.to_string());
        }
    }
    for entry in config
        .env
        .iter()
        .chain(config.entrypoint.iter())
        .chain(config.cmd.iter())
    {
        if entry.contains('\0') {
            return invalid("environment or command", "it holds a NUL byte");
        }
    }
    if host.init && matches!(host.pid, PidMode::Host | PidMode::Container(_)) {
        return invalid(
            "--init",
            "the container's program is PID 1 of no namespace of its own",
        );
    }
    if host.oom_kill_disable {
        if host.resources.memory.is_none() {
            // Everything on the host would wait for memory, not this container alone.
            return invalid("--oom-kill-disable", "it needs a memory limit");
        }
        if !Path::new(MEMORY_V1).exists() {
            return Err(Error::Unsupported {
                what: "--oom-kill-disable".into(),
                why: "cgroup v2 cannot switch the OOM killer off".into(),
            });
        }
    }
    if host.log.max_file == 0 {
        return invalid(
            "log option max-file",
            "it counts the file being written: at least 1",
        );
    }
    if host.log.max_size.is_some_and(|size| size.0 == 0) {
        return invalid("log option max-size", "it must be more than 0");
    }
    if host.log.max_file > 1 && host.log.max_size.is_none() {
        return invalid(
            "log option max-file",
            "it needs max-size: nothing else rotates the log",
        );
    }
    if host.log.disabled && host.log.max_size.is_some() {
        return invalid("log options", "the driver none takes none");
    }
    if host.auto_remove && host.restart != crate::flags::RestartPolicy::No {
        return invalid("restart policy", "it conflicts with --rm");
    }
    if let Some(parent) = &host.cgroup_parent
        && (!parent.starts_with('/') || parent.split('/').any(|p| p == ".." || p == "."))
    {
        return invalid("cgroup parent", "it needs to be an absolute path without '..'");
    }
    for key in host.sysctls.keys() {
        let net = key.starts_with("net.");
        let ipc = key.starts_with("kernel.msg")
            || key.starts_with("kernel.sem")
            || key.starts_with("kernel.shm")
            || key.starts_with("fs.mqueue.");
        // Anything else is the host's, whatever namespaces the container has.
        if !net && !ipc {
            return invalid(&format!("sysctl {key:?}"), "it belongs to no namespace");
        }
        if net && host.network == NetworkMode::Host {
            return invalid(&format!("sysctl {key:?}"), "the network namespace is the host's");
        }
    }
    Ok(())
}

/// Refuses a working directory that would depend on where it is looked up. Empty is the root.
pub(crate) fn working_dir(path: &str) -> Result<()> {
    if path.is_empty() || path.starts_with('/') {
        return Ok(());
    }
    Err(Error::Invalid {
        what: format!("working directory {path:?}"),
        why: "it needs to be an absolute path".into(),
    })
}

/// The spec. `rootfs` is the mounted root, `netns` the network namespace attach made.
pub(crate) fn build(
    config: &ContainerConfig,
    paths: &Paths,
    rootfs: BorrowedFd<'_>,
    netns: Option<&Path>,
) -> Result<Value> {
    let host = &config.host;
    let identity = image_files::identity(rootfs, &config.user, &host.group_add)?;
    let caps = caps::effective(host)?;
    let mut limits = resources::limits(&host.resources)?;
    let (devices, rules) = resources::devices(host)?;
    limits["devices"] = json!(rules);
    if host.oom_kill_disable {
        limits["memory"]["disableOOMKiller"] = json!(true);
    }
    let unconfined_paths = host.privileged || host.security.contains(&SecurityOpt::SystemPathsUnconfined);
    let mut linux = json!({
        "namespaces": namespaces::all(config, paths, netns)?,
        "cgroupsPath": config.cgroup(),
        "resources": limits,
        "devices": devices,
        "maskedPaths": if unconfined_paths { vec![] } else { mounts::masked() },
        "readonlyPaths": if unconfined_paths { vec![] } else { mounts::read_only() },
        "sysctl": sysctls(config),
        "rootfsPropagation": "rprivate",
    });
    if let Some(seccomp) = seccomp(config, &caps)? {
        linux["seccomp"] = seccomp;
    }
    let args = if host.init {
        crate::init::wrap(config.args())
    } else {
        config.args()
    };
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": process(config, &identity, &caps, args),
        "root": { "path": "rootfs", "readonly": host.read_only },
        "mounts": mounts::all(config, paths)?,
        "linux": linux,
        "annotations": host.annotations,
    });
    if host.uts == UtsMode::Private {
        spec["hostname"] = json!(config.hostname);
        if let Some(domain) = &config.domainname {
            spec["domainname"] = json!(domain);
        }
    }
    Ok(spec)
}

fn sysctls(config: &ContainerConfig) -> Value {
    let mut all = config.host.sysctls.clone();
    if !matches!(config.host.network, NetworkMode::Host | NetworkMode::Container(_)) {
        // As docker: low ports and ping need no capability inside.
        all.entry("net.ipv4.ip_unprivileged_port_start".into())
            .or_insert_with(|| "0".into());
        all.entry("net.ipv4.ping_group_range".into())
            .or_insert_with(|| "0 2147483647".into());
    }
    json!(all)
}

fn seccomp(config: &ContainerConfig, caps: &[String]) -> Result<Option<Value>> {
    match &config.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => default_seccomp(caps),
        Seccomp::Profile(text) => custom_seccomp(text, caps),
    }
}

/// The environment of a process: what the config says, and what every program expects.
pub(crate) fn environment(env: &[String], identity: &Identity, hostname: &str, tty: bool) -> Vec<String> {
    let mut all = Vec::with_capacity(env.len() + 4);
    let has = |key: &str| {
        env.iter()
            .any(|e| e.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')))
    };
    if !has("PATH") {
        all.push(PATH.to_owned());
    }
    if !has("HOSTNAME") {
        all.push(format!("HOSTNAME={hostname}"));
    }
    if tty && !has("TERM") {
        all.push("TERM=xterm".to_owned());
    }
    all.extend(env.iter().cloned());
    if !has("HOME") {
        all.push(format!("HOME={}", identity.home));
    }
    all
}

fn process(config: &ContainerConfig, identity: &Identity, caps: &[String], args: Vec<String>) -> Value {
    let host = &config.host;
    let cwd = if config.working_dir.is_empty() {
        "/"
    } else {
        &config.working_dir
    };
    let no_new_privileges = host.security.contains(&SecurityOpt::NoNewPrivileges(true));
    let rlimits: Vec<Value> = host
        .ulimits
        .iter()
        .map(|l| json!({ "type": l.rlimit_name(), "soft": l.soft, "hard": l.hard }))
        .collect();
    let mut process = json!({
        "terminal": config.tty,
        "user": { "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups },
        "args": args,
        "env": environment(&config.env, identity, &config.hostname, config.tty),
        "cwd": cwd,
        "capabilities": capability_sets(identity, caps),
        "noNewPrivileges": no_new_privileges,
        "rlimits": rlimits,
    });
    if let Some(adj) = host.oom_score_adj {
        process["oomScoreAdj"] = json!(adj);
    }
    process
}

/// Inheritable and ambient stay empty (CVE-2022-29162). Who is not root gets the set as a bound only.
pub(crate) fn capability_sets(identity: &Identity, caps: &[String]) -> Value {
    let active: &[String] = if identity.uid == 0 { caps } else { &[] };
    json!({ "bounding": caps, "effective": active, "permitted": active })
}

/// Whether the kernel could be given this profile; `Err` says why not.
pub(crate) fn check_seccomp(text: &str, caps: &[String]) -> Result<(), String> {
    let spec = match custom_seccomp(text, caps) {
        Err(Error::Damaged { source, .. }) => return Err(source.to_string()),
        other => other.map_err(|e| e.chain())?,
    };
    let spec = serde_json::from_value(spec.unwrap_or_default()).map_err(|e| e.to_string())?;
    berth_runtime::seccomp::Filter::compile(&spec, None)
        .map(drop)
        .map_err(|e| e.to_string())
}

fn default_seccomp(caps: &[String]) -> Result<Option<Value>> {
    let held: Vec<oci_spec::runtime::Capability> = caps
        .iter()
        .filter_map(|c| serde_json::from_value(json!(c)).ok())
        .collect();
    to_value(&crate::seccomp_profile::default_profile(&held)).map(Some)
}

fn to_value(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|source| Error::Damaged {
        path: "seccomp profile".into(),
        source,
    })
}

/// A profile in docker's form: its `includes` and `excludes` are decided here, the rest is the spec's.
fn custom_seccomp(text: &str, caps: &[String]) -> Result<Option<Value>> {
    let bad = |source| Error::Damaged {
        path: "seccomp profile".into(),
        source,
    };
    let mut profile: Value = serde_json::from_str(text).map_err(bad)?;
    let held = |cap: &Value| cap.as_str().is_some_and(|c| caps.iter().any(|h| h == c));
    // As docker reads them: an entry is for who holds all it includes and none it excludes.
    let all = |list: &Value| list.as_array().is_none_or(|l| l.iter().all(held));
    let any = |list: &Value| list.as_array().is_some_and(|l| l.iter().any(held));
    let for_arch = |list: &Value| {
        list.as_array()
            .is_none_or(|l| l.is_empty() || l.iter().any(|a| a == "amd64" || a == "x86_64"))
    };
    if let Some(calls) = profile.get_mut("syscalls").and_then(Value::as_array_mut) {
        calls.retain(|call| {
            let (includes, excludes) = (&call["includes"], &call["excludes"]);
            let wanted = all(&includes["caps"]);
            let unwanted = any(&excludes["caps"])
                || excludes["arches"]
                    .as_array()
                    .is_some_and(|l| l.iter().any(|a| a == "amd64" || a == "x86_64"));
            wanted && !unwanted && for_arch(&includes["arches"])
        });
        for call in calls {
            if let Some(call) = call.as_object_mut() {
                for key in ["includes", "excludes", "comment", "minKernel"] {
                    call.remove(key);
                }
            }
        }
    }
    if let Some(object) = profile.as_object_mut()
        && object.remove("archMap").is_some()
    {
        object.insert(
            "architectures".into(),
            json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        );
    }
    let checked: oci_spec::runtime::LinuxSeccomp = serde_json::from_value(profile).map_err(bad)?;
    to_value(&checked).map(Some)
}
