//! A container's specification as a guest takes it: the one made for the host's kernel, less what is the host's.

use std::path::Path;

use serde_json::{Value, json};

use super::shares::{self, Shared};
use crate::config::ContainerConfig;

/// Files of ours that the guest gets with its set-up and binds where the host would have bound its own.
pub(super) const FILES: [&str; 3] = ["resolv.conf", "hostname", "hosts"];

/// Turns `spec` into what runs inside. `run_dir` is where berth's own mounts come from, `shares` where the user's do.
pub(super) fn inside(mut spec: Value, config: &ContainerConfig, run_dir: &Path, shares: &[Shared]) -> Value {
    // The guest has one network and one container: its network is the container's.
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
    }
    // A guest's cgroups are its own.
    spec["linux"]["cgroupsPath"] = json!("/container");
    spec["root"] = json!({ "path": "rootfs", "readonly": config.host.read_only });
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        for mount in mounts {
            let of_ours = FILES
                .into_iter()
                .find(|name| mount["source"].as_str().map(Path::new) == Some(&run_dir.join(name)));
            let target = Path::new(mount["destination"].as_str().unwrap_or_default());
            if let Some(name) = of_ours {
                mount["source"] = json!(berth_guest::layout::file(name));
            } else if let Some(source) = shares::source(shares, target) {
                mount["source"] = json!(source);
            }
        }
    }
    // What `net.` sysctls there are belong to a network namespace, which is the guest's.
    if let Some(sysctls) = spec["linux"]["sysctl"].as_object_mut() {
        sysctls.retain(|key, _| !key.starts_with("net."));
    }
    spec
}

/// The `net.` sysctls of a specification made for the host, for the guest's own set-up.
pub(super) fn network_sysctls(spec: &Value) -> std::collections::BTreeMap<String, String> {
    let all = spec["linux"]["sysctl"].as_object().into_iter().flatten();
    all.filter(|(key, _)| key.starts_with("net."))
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
