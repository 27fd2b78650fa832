//! Flags of which one would do nothing beside another: refused when the container is created.

use std::net::IpAddr;

use crate::config::CreateRequest;
use crate::error::{Error, Result};
use crate::flags::{
    CgroupnsMode, IpcMode, Isolation, MountKind, NetworkMode, PidMode, Propagation, UsernsMode, UtsMode,
};

/// The first pair that contradicts itself.
pub(crate) fn check(request: &CreateRequest) -> Result<()> {
    let host = &request.host;
    let given = [
        ("--hostname", request.hostname.is_some()),
        ("--publish", !host.ports.is_empty()),
        ("--publish-all", host.publish_all),
        ("--expose", !request.expose.is_empty()),
        ("--dns", !host.dns.servers.is_empty()),
        ("--dns-search", !host.dns.search.is_empty()),
        ("--dns-option", !host.dns.options.is_empty()),
        ("--add-host", !host.dns.extra_hosts.is_empty()),
        ("--ip", host.ip.is_some()),
        ("--mac-address", host.mac.is_some()),
        ("--network-alias", !host.network_aliases.is_empty()),
    ];
    let of_endpoints = ["--ip", "--mac-address", "--network-alias"];
    match &host.network {
        NetworkMode::Container(_) => refuse(&given, |_| true, "the network is another container's")?,
        NetworkMode::None | NetworkMode::Host => refuse(
            &given,
            |flag| of_endpoints.contains(&flag),
            "the container joins no network",
        )?,
        NetworkMode::Bridge | NetworkMode::Named(_) => {}
    }
    if host.isolation == Isolation::Vm {
        vm(request)?;
    }
    if host.uts == UtsMode::Host {
        let names = [
            ("--hostname", request.hostname.is_some()),
            ("--domainname", request.domainname.is_some()),
        ];
        refuse(
            &names,
            |_| true,
            "host and domain name are the host's with --uts host",
        )?;
    }
    for (place, mount) in host.mounts.iter().enumerate() {
        if host.mounts[..place]
            .iter()
            .any(|other| other.target == mount.target)
        {
            return Err(Error::Invalid {
                what: format!("mount at {}", mount.target.display()),
                why: "there is another at the same place".to_owned(),
            });
        }
    }
    if host.ipc != IpcMode::Private {
        let shm = [("--shm-size", host.shm_size.is_some())];
        refuse(
            &shm,
            |_| true,
            "/dev/shm is not the container's own with this --ipc",
        )?;
    }
    Ok(())
}

/// What a microVM cannot do: share what is the host's or another container's, and what it has not learnt yet.
fn vm(request: &CreateRequest) -> Result<()> {
    let host = &request.host;
    let shares = [
        ("--network host", host.network == NetworkMode::Host),
        (
            "--network container:",
            matches!(host.network, NetworkMode::Container(_)),
        ),
        ("--pid", host.pid != PidMode::Private),
        ("--ipc", !matches!(host.ipc, IpcMode::Private | IpcMode::None)),
        ("--uts", host.uts != UtsMode::Private),
        ("--userns", host.userns != UsernsMode::default()),
        ("--cgroupns", host.cgroupns != CgroupnsMode::default()),
        ("--cgroup-parent", host.cgroup_parent.is_some()),
        ("--device", !host.devices.is_empty()),
        ("--device-cgroup-rule", !host.device_cgroup_rules.is_empty()),
        ("--privileged", host.privileged),
        ("--oom-kill-disable", host.oom_kill_disable),
        ("--cpuset-cpus", host.resources.cpuset_cpus.is_some()),
        ("--cpuset-mems", host.resources.cpuset_mems.is_some()),
    ];
    refuse(
        &shares,
        |_| true,
        "a container in a microVM has a kernel of its own, which shares none of this with the host or other containers",
    )?;
    for mount in &host.mounts {
        let alone = matches!(mount.kind, MountKind::Bind { recursive: false, .. });
        if alone || mount.propagation != Propagation::default() {
            return Err(Error::Unsupported {
                what: format!(
                    "propagation of the mount at {} with --isolation vm",
                    mount.target.display()
                ),
                why: "a microVM is given a directory as it is, with what is mounted below; mounts of the guest's are its own"
                    .into(),
            });
        }
    }
    let serves_names = matches!(host.network, NetworkMode::Bridge | NetworkMode::Named(_));
    if serves_names && host.dns.servers.iter().any(IpAddr::is_loopback) {
        return Err(Error::Unsupported {
            what: "--dns with a loopback address and --isolation vm".into(),
            why: "it is the guest's own, and the name server that would ask there is on the host".into(),
        });
    }
    Ok(())
}

fn refuse(given: &[(&str, bool)], applies: impl Fn(&str) -> bool, why: &str) -> Result<()> {
    match given.iter().find(|(flag, is_given)| *is_given && applies(flag)) {
        Some((flag, _)) => Err(Error::Invalid {
            what: (*flag).to_owned(),
            why: why.to_owned(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostConfig, Resources};

    fn refused(change: impl FnOnce(&mut HostConfig)) -> Result<()> {
        let mut request = CreateRequest::default();
        request.host.isolation = Isolation::Vm;
        change(&mut request.host);
        check(&request)
    }

    #[test]
    fn a_microvm_shares_nothing_of_the_hosts() {
        assert!(refused(|_| {}).is_ok());
        let changes: [fn(&mut HostConfig); 8] = [
            |host| host.pid = PidMode::Host,
            |host| host.ipc = IpcMode::Container("x".into()),
            |host| host.uts = UtsMode::Host,
            |host| host.privileged = true,
            |host| host.cgroup_parent = Some("/x".into()),
            |host| host.network = NetworkMode::Host,
            |host| host.network = NetworkMode::Container("x".into()),
            |host| {
                host.resources = Resources {
                    cpuset_cpus: Some("0".into()),
                    ..Resources::default()
                }
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let error = refused(change).expect_err("refused").to_string();
            assert!(error.contains("microVM"), "{number}: {error}");
        }
    }

    #[test]
    fn a_resolver_at_the_guests_own_loopback_is_asked_by_nobody() {
        let loopback = |host: &mut HostConfig| host.dns.servers = vec![[127, 0, 0, 1].into()];
        assert!(refused(loopback).is_err());
        let alone = |host: &mut HostConfig| {
            loopback(host);
            host.network = NetworkMode::None;
        };
        assert!(refused(alone).is_ok(), "its own resolv.conf names it");
    }
}
