//! Which namespaces a container has of its own and which it joins.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::ContainerConfig;
use crate::container::{Status, Verb};
use crate::error::{Error, Result};
use crate::flags::{CgroupnsMode, IpcMode, NetworkMode, PidMode, UtsMode};
use crate::id::{ContainerId, ContainerName};
use crate::isolation::vm;
use crate::paths::Paths;
use crate::{names, reconcile, record};

/// The container a mode names, by name or id.
pub(crate) fn referenced(paths: &Paths, text: &str) -> Result<ContainerId> {
    let missing = || Error::NoSuchContainer(text.to_owned());
    if let Ok(name) = text.parse::<ContainerName>()
        && let Some(id) = names::holder(paths, &name)?
    {
        return Ok(id);
    }
    let mut found = record::ids(paths)?
        .into_iter()
        .filter(|id| id.as_str().starts_with(text));
    match (found.next(), found.next()) {
        (Some(id), None) if text.len() >= 2 => Ok(id),
        (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
        _ => Err(missing()),
    }
}

/// Init's pid of a running container, proved not to be a reused one.
pub(crate) fn pid_of(paths: &Paths, text: &str) -> Result<i32> {
    let id = referenced(paths, text)?;
    // What runs for it on the host is the monitor, whose namespaces are not the container's.
    vm::refuse(
        &record::config(paths, &id)?,
        "joining the namespaces of a container",
    )?;
    let state = reconcile::state(paths, &id)?;
    let alive = state.pid > 0
        && berth_sys::pidfd::stat(state.pid).is_ok_and(|s| s.start_time == state.pid_start && !s.is_dead());
    if alive && (state.status.allows(Verb::Exec) || state.status == Status::Paused) {
        Ok(state.pid)
    } else {
        Err(Error::Wrong {
            verb: "join the namespaces of",
            name: text.to_owned(),
            status: state.status,
        })
    }
}

/// The list for the spec. `netns` is the network namespace attach made.
pub(super) fn all(config: &ContainerConfig, paths: &Paths, netns: Option<&Path>) -> Result<Vec<Value>> {
    let host = &config.host;
    let mut list = vec![json!({ "type": "mount" })];
    let join = |kind: &str, file: &str, other: &str| {
        pid_of(paths, other).map(|pid| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }))
    };
    match &host.pid {
        PidMode::Private => list.push(json!({ "type": "pid" })),
        PidMode::Host => {}
        PidMode::Container(other) => list.push(join("pid", "pid", other)?),
    }
    match &host.ipc {
        IpcMode::Private | IpcMode::None => list.push(json!({ "type": "ipc" })),
        IpcMode::Host => {}
        IpcMode::Container(other) => list.push(join("ipc", "ipc", other)?),
    }
    if host.uts == UtsMode::Private {
        list.push(json!({ "type": "uts" }));
    }
    if host.cgroupns == CgroupnsMode::Private && Path::new("/proc/self/ns/cgroup").exists() {
        list.push(json!({ "type": "cgroup" }));
    }
    match (&host.network, netns) {
        (NetworkMode::Host, _) => {}
        (NetworkMode::Container(other), _) => list.push(join("network", "net", other)?),
        (_, Some(path)) => list.push(json!({ "type": "network", "path": path })),
        (_, None) => list.push(json!({ "type": "network" })),
    }
    Ok(list)
}
