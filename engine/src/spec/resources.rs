//! Limits and device rules.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};

use super::cpuset;
use crate::config::{HostConfig, Resources};
use crate::error::{At, Error, Result};
use crate::flags::MemorySwap;

/// `linux.resources` without devices, also what `update` sends to the runtime.
pub(crate) fn limits(r: &Resources) -> Result<Value> {
    let mut out = json!({});
    let mut memory = json!({});
    if let Some(limit) = r.memory.filter(|m| m.0 > 0) {
        // docker's floor: below it no process gets as far as its first instruction.
        if limit.0 < 6 << 20 {
            return Err(Error::Invalid {
                what: format!("memory limit {limit}"),
                why: "the minimum is 6m".into(),
            });
        }
        memory["limit"] = json!(limit.0);
        memory["swap"] = match r.memory_swap {
            Some(MemorySwap::Unlimited) => json!(-1),
            Some(MemorySwap::Total(total)) if total.0 > 0 => {
                if total < limit {
                    return Err(Error::Invalid {
                        what: "memory-swap limit".into(),
                        why: "it counts memory and swap together and is below the memory limit".into(),
                    });
                }
                json!(total.0)
            }
            _ => json!(limit.0.saturating_mul(2)),
        };
    } else if matches!(r.memory_swap, Some(MemorySwap::Total(t)) if t.0 > 0) {
        return Err(Error::Invalid {
            what: "memory-swap limit".into(),
            why: "it needs a memory limit".into(),
        });
    }
    if let Some(soft) = r.memory_reservation {
        if r.memory.is_some_and(|limit| limit.0 > 0 && limit < soft) {
            return Err(Error::Invalid {
                what: "memory reservation".into(),
                why: "it is above the memory limit".into(),
            });
        }
        memory["reservation"] = json!(soft.0);
    }
    let mut cpu = json!({});
    if let Some(cpus) = r.cpus.filter(|c| c.nano > 0) {
        if r.cpu_quota.is_some() || r.cpu_period.is_some() {
            return Err(Error::Invalid {
                what: "cpus".into(),
                why: "it conflicts with cpu-period and cpu-quota".into(),
            });
        }
        cpu["period"] = json!(100_000);
        cpu["quota"] = json!((cpus.nano / 10_000).max(1000));
    }
    let cpus = |what: String, why: String| Err(Error::Invalid { what, why });
    let there_are = std::thread::available_parallelism().map_or(u64::MAX, |n| n.get() as u64);
    if let Some(asked) = r.cpus
        && asked.nano > there_are.saturating_mul(1_000_000_000)
    {
        return cpus("cpus".into(), format!("more than the {there_are} there are"));
    }
    // The kernel's own bounds, told before anything is made.
    if let Some(period) = r.cpu_period.filter(|period| *period != 0)
        && !(1_000..=1_000_000).contains(&period)
    {
        return cpus(
            format!("cpu period {period}"),
            "it is between 1000 and 1000000 microseconds".into(),
        );
    }
    if let Some(quota) = r.cpu_quota.filter(|quota| *quota > 0)
        && quota < 1_000
    {
        return cpus(
            format!("cpu quota {quota}"),
            "it is at least 1000 microseconds".into(),
        );
    }
    if let Some(quota) = r.cpu_quota {
        cpu["quota"] = json!(quota);
    }
    if let Some(period) = r.cpu_period {
        cpu["period"] = json!(period);
    }
    if let Some(shares) = r.cpu_shares.filter(|s| *s > 0) {
        cpu["shares"] = json!(shares);
    }
    if let Some(cpus) = r.cpuset_cpus.as_deref().filter(|list| !list.is_empty()) {
        cpuset::check("--cpuset-cpus", cpus, "/sys/devices/system/cpu/online")?;
        cpu["cpus"] = json!(cpus);
    }
    if let Some(mems) = r.cpuset_mems.as_deref().filter(|list| !list.is_empty()) {
        cpuset::check("--cpuset-mems", mems, "/sys/devices/system/node/online")?;
        cpu["mems"] = json!(mems);
    }
    if let Some(pids) = r.pids_limit {
        out["pids"] = json!({ "limit": if pids <= 0 { -1 } else { pids } });
    }
    if let Some(weight) = r.blkio_weight {
        out["blockIO"] = json!({ "weight": weight });
    }
    for (key, value) in [("memory", memory), ("cpu", cpu)] {
        if value.as_object().is_some_and(|o| !o.is_empty()) {
            out[key] = value;
        }
    }
    Ok(out)
}

fn rule(allow: bool, kind: &str, major: Option<u32>, minor: Option<u32>, access: &str) -> Value {
    let mut rule = json!({ "allow": allow, "type": kind, "access": access });
    if let Some(major) = major {
        rule["major"] = json!(major);
    }
    if let Some(minor) = minor {
        rule["minor"] = json!(minor);
    }
    rule
}

/// `linux.devices` and the rules of the devices cgroup.
pub(super) fn devices(host: &HostConfig) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut nodes, mut rules) = (Vec::new(), Vec::new());
    if host.privileged {
        rules.push(rule(true, "a", None, None, "rwm"));
        collect(Path::new("/dev"), Path::new("/dev"), &mut |node, _| {
            nodes.push(node)
        })?;
        return Ok((nodes, rules));
    }
    rules.push(rule(false, "a", None, None, "rwm"));
    for (kind, major, minor, access) in [
        ("c", None, None, "m"),
        ("b", None, None, "m"),
        ("c", Some(1), Some(3), "rwm"),
        ("c", Some(1), Some(5), "rwm"),
        ("c", Some(1), Some(7), "rwm"),
        ("c", Some(1), Some(8), "rwm"),
        ("c", Some(1), Some(9), "rwm"),
        ("c", Some(5), Some(0), "rwm"),
        ("c", Some(5), Some(1), "rwm"),
        ("c", Some(5), Some(2), "rwm"),
        ("c", Some(136), None, "rwm"),
    ] {
        rules.push(rule(true, kind, major, minor, access));
    }
    for device in &host.devices {
        let before = nodes.len();
        collect(
            &device.host,
            &device.container,
            &mut |node, (kind, major, minor)| {
                rules.push(rule(true, kind, Some(major), Some(minor), &device.permissions));
                nodes.push(node);
            },
        )?;
        if nodes.len() == before {
            return Err(Error::Invalid {
                what: format!("device {}", device.host.display()),
                why: "it is no device and no directory with devices".into(),
            });
        }
    }
    for r in &host.device_cgroup_rules {
        rules.push(rule(
            true,
            r.kind.encode_utf8(&mut [0; 4]),
            r.major,
            r.minor,
            &r.permissions,
        ));
    }
    Ok((nodes, rules))
}

/// The device at `host`, or every device below it, as seen at `inside`.
fn collect(host: &Path, inside: &Path, found: &mut dyn FnMut(Value, (&'static str, u32, u32))) -> Result<()> {
    // The user names the device, so a symlink of theirs is followed; those met on the way down are not.
    let meta = std::fs::metadata(host).at("look at", host)?;
    if meta.is_dir() {
        for entry in std::fs::read_dir(host).at("read", host)? {
            let entry = entry.at("read", host)?;
            let kind = entry.file_type().at("look at", entry.path())?;
            let name = entry.file_name();
            // These are mounts of the container's own.
            let own = ["pts", "shm", "mqueue", "console", "fd", "ptmx"]
                .iter()
                .any(|n| name == *n);
            if !own && (kind.is_dir() || kind.is_char_device() || kind.is_block_device()) {
                collect(&entry.path(), &inside.join(&name), found)?;
            }
        }
        return Ok(());
    }
    let kind = match meta.file_type() {
        t if t.is_char_device() => "c",
        t if t.is_block_device() => "b",
        _ => return Ok(()),
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    found(
        json!({
            "path": inside, "type": kind, "major": major, "minor": minor,
            "fileMode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
        }),
        (kind, major, minor),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_twice_the_memory_unless_said() {
        let r = Resources {
            memory: Some("64m".parse().unwrap()),
            ..Resources::default()
        };
        assert_eq!(limits(&r).unwrap()["memory"]["swap"], json!(128 << 20));
        let low = Resources {
            memory: Some("1m".parse().unwrap()),
            ..Resources::default()
        };
        assert!(limits(&low).is_err());
        let less = Resources {
            memory_swap: Some("32m".parse().unwrap()),
            ..r
        };
        assert!(limits(&less).is_err());
    }

    #[test]
    fn cpus_become_a_quota() {
        let r = Resources {
            cpus: Some("1.5".parse().unwrap()),
            ..Resources::default()
        };
        assert_eq!(limits(&r).unwrap()["cpu"]["quota"], json!(150_000));
    }

    #[test]
    fn devices_start_from_deny_all() {
        let (nodes, rules) = devices(&HostConfig::default()).unwrap();
        assert!(nodes.is_empty());
        assert_eq!(rules[0]["allow"], json!(false));
        assert_eq!(rules[0]["access"], json!("rwm"));
        assert!(rules[1..].iter().all(|r| r["type"] != json!("a")));
    }
}
