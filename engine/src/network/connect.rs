//! Changes to a container that is attached: one more network, one less, another name.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::admit::{admit, retract};
use super::attach::{ensure_bridge, place, plug, register};
use super::detach::{close_if_idle, forget_names, settle, unplug};
use super::error::{Error, Result};
use super::lease::{self, Leases};
use super::link::Links;
use super::lock::Lock;
use super::model::{Endpoint, EndpointStatus, Paths};
use super::netns::Visit;
use super::nft::{Batch, Change, Nft};
use super::record::Record;
use super::{firewall, names, store};

fn attached(paths: &Paths, container_id: &str, network: &str) -> Result<Record> {
    Record::load(paths, container_id)?.ok_or_else(|| Error::NotAttached {
        container: container_id.to_owned(),
        network: network.to_owned(),
    })
}

/// What a container's links lead into. A microVM has the network cards it booted with.
fn namespace(record: &Record) -> Result<PathBuf> {
    record.namespace().map(Path::to_owned).ok_or_else(|| {
        Error::Unsupported(
            "changing the networks of a microVM that runs: it keeps those it started with".into(),
        )
    })
}

/// Joins a running, attached container to one more network.
pub fn connect(paths: &Paths, container_id: &str, endpoint: &Endpoint) -> Result<EndpointStatus> {
    match join(paths, container_id, endpoint) {
        // Addresses of containers that ended a moment ago are leased until their links are gone.
        Err(Error::AddressTaken { .. } | Error::Exhausted { .. }) => {
            settle(paths, Duration::ZERO)?;
            join(paths, container_id, endpoint)
        }
        other => other,
    }
}

fn join(paths: &Paths, container_id: &str, endpoint: &Endpoint) -> Result<EndpointStatus> {
    endpoint
        .aliases
        .iter()
        .try_for_each(|alias| names::validate(alias))?;
    let network = store::find(paths, &endpoint.network)?;
    let mut record = attached(paths, container_id, &network.name)?;
    let namespace = namespace(&record)?;
    if record.endpoints.iter().any(|other| other.network == network.name) {
        return Err(Error::Attached {
            container: container_id.to_owned(),
            network: network.name,
        });
    }
    let first_way_out = record.primary().is_none() && !network.internal;
    let shared = Lock::shared(paths)?;
    let leases = Leases::lock(paths, &network)?;
    let ip = leases.take(endpoint.ip, container_id, &record.name)?;
    let free = (0..).find(|n| {
        record
            .endpoints
            .iter()
            .all(|other| other.ifname != format!("eth{n}"))
    });
    let status = place(&network, endpoint, &record, ip, free.unwrap_or_default());
    record.endpoints.push(status.clone());
    let result = record.save(paths).and_then(|()| {
        let mut host = Links::open()?;
        ensure_bridge(&mut host, &network)?;
        drop(leases);
        let mut inside = {
            let _visit = Visit::enter(&namespace)?;
            Links::open()?
        };
        let netns = File::open(&namespace).map_err(Error::file("open", &namespace))?;
        plug(&mut host, &status, Some(&netns))?;
        inside.configure(
            std::slice::from_ref(&status),
            first_way_out.then_some(network.gateway),
        )?;
        admit(paths, std::slice::from_ref(&network), &[&status], &record, shared)?;
        register(paths, &status)
    });
    if let Err(error) = result {
        let _ = disconnect(paths, container_id, &network.name);
        return Err(error);
    }
    Ok(status)
}

/// Takes a running container off one network. Of one that is not on it, it takes back what a change that was killed has left
/// there: an address, a network that nobody closes.
///
/// # Errors
/// [`Error::NotAttached`], also after that.
pub fn disconnect(paths: &Paths, container_id: &str, network: &str) -> Result<()> {
    let network = if network == "default" {
        super::DEFAULT_NETWORK
    } else {
        network
    };
    let mut record = attached(paths, container_id, network)?;
    let namespace = namespace(&record)?;
    let Some(at) = record
        .endpoints
        .iter()
        .position(|endpoint| endpoint.network == network)
    else {
        for (_, ip) in lease::of_container(paths, container_id)
            .into_iter()
            .filter(|(on, _)| on == network)
        {
            lease::release(paths, network, ip, container_id)?;
        }
        close_if_idle(paths, network)?;
        return Err(Error::NotAttached {
            container: container_id.to_owned(),
            network: network.to_owned(),
        });
    };
    let shared = Lock::shared(paths)?;
    let was_primary = record.primary().map(|endpoint| endpoint.ip);
    let gone = record.endpoints[at].clone();
    let is_primary = was_primary == Some(gone.ip);
    let mut nft = Nft::open()?;
    let ports = if is_primary { &record.ports[..] } else { &[] };
    retract(&mut nft, &[&gone], ports, None)?;
    forget_names(paths, &[&gone]);
    unplug(&mut nft, &[&gone])?;
    lease::release(paths, network, gone.ip, container_id)?;
    record.endpoints.remove(at);
    record.save(paths)?;
    if let (true, Some(next)) = (is_primary, record.primary()) {
        // The default route went with its link; ports follow it to the next network.
        let mut inside = {
            let _visit = Visit::enter(&namespace)?;
            Links::open()?
        };
        inside.set_default_route(next.gateway)?;
        let mut batch = Batch::new();
        firewall::ports(&mut batch, Change::Add, &record.ports, next.ip);
        nft.commit(batch, "move published ports")?;
    }
    drop(shared);
    close_if_idle(paths, network)
}

/// Makes an attached container known to its neighbours by another name. Nothing to do for one that is not attached.
pub fn rename(paths: &Paths, container_id: &str, name: &str) -> Result<()> {
    let Some(mut record) = Record::load(paths, container_id)? else {
        return Ok(());
    };
    let old = std::mem::replace(&mut record.name, name.to_owned());
    let (old, new) = (names::normalize(&old), names::normalize(name));
    for endpoint in &mut record.endpoints {
        if let Some(old) = &old {
            endpoint.names.retain(|other| other != old);
            names::remove(paths, &endpoint.network, old, endpoint.ip);
        }
        if let Some(new) = &new {
            names::add(paths, &endpoint.network, new, endpoint.ip)?;
            if !endpoint.names.contains(new) {
                endpoint.names.insert(0, new.clone());
            }
        }
        lease::rename(paths, &endpoint.network, endpoint.ip, container_id, name)?;
    }
    record.save(paths)
}
