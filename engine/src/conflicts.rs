//! Flags of which one would do nothing beside another: refused when the container is created.

use crate::config::CreateRequest;
use crate::error::{Error, Result};
use crate::flags::{IpcMode, NetworkMode, UtsMode};

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

fn refuse(given: &[(&str, bool)], applies: impl Fn(&str) -> bool, why: &str) -> Result<()> {
    match given.iter().find(|(flag, is_given)| *is_given && applies(flag)) {
        Some((flag, _)) => Err(Error::Invalid {
            what: (*flag).to_owned(),
            why: why.to_owned(),
        }),
        None => Ok(()),
    }
}
