//! Joins a container to its networks and takes it off again.
//!
//! Calls for one container do not overlap: the engine holds the container's lock. Calls for different containers may.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::lease::{self, Leases};
use super::link::Links;
use super::lock::Lock;
use super::model::{AttachRequest, Endpoint, EndpointStatus, Mac, NetnsSource, Network, Paths, PortMapping};
use super::netns::{self, Visit};
use super::nft::{Batch, Change, Nft};
use super::record::Record;
use super::{firewall, names, port, store};

/// A joined container. Dropping it undoes nothing but the port reservations; [`detach`] does the rest.
#[derive(Debug)]
pub struct Attachment {
    /// Where the namespace can be entered.
    pub netns: PathBuf,
    /// One for each network asked for, in that order.
    pub endpoints: Vec<EndpointStatus>,
    /// Published ports, with the host ports the kernel chose.
    pub ports: Vec<PortMapping>,
    /// Bound sockets that keep the host ports ours; the shim holds them as long as the container is attached.
    pub reservations: Vec<OwnedFd>,
}

/// Joins a container to its networks. On failure nothing is left behind. Blocking; a few milliseconds.
///
/// The calling thread visits the new namespace for a moment and is back in its own when this returns.
pub fn attach(paths: &Paths, request: &AttachRequest) -> Result<Attachment> {
    let id = &request.container_id;
    if Record::load(paths, id)?.is_some() {
        let network = request
            .networks
            .first()
            .map_or("none", |endpoint| endpoint.network.as_str());
        return Err(Error::Attached {
            container: id.clone(),
            network: network.to_owned(),
        });
    }
    let networks = resolve(paths, request)?;
    let (ports, reservations) = port::reserve(&request.ports)?;
    if !ports.is_empty() && networks.iter().all(|network| network.internal) {
        return Err(Error::Unsupported(
            "publishing ports of a container without a network that leads outside".into(),
        ));
    }
    let (netns, own_netns) = match &request.netns {
        NetnsSource::Create => (paths.netns(id), true),
        NetnsSource::Path(path) => (path.clone(), false),
    };
    let mut record = Record {
        container_id: id.clone(),
        name: request.name.clone(),
        netns,
        own_netns,
        endpoints: Vec::with_capacity(networks.len()),
        ports,
        dns: request.dns.clone(),
    };
    let shared = Lock::shared(paths)?;
    let result = lease_all(paths, &networks, &request.networks, &mut record)
        .and_then(|mut host| build(paths, &networks, &record, &mut host, shared));
    if let Err(error) = result {
        // The first error is the one to tell; what cannot be undone now stays on record for the next detach.
        let _ = release_leases(paths, &record);
        let _ = detach(paths, id);
        return Err(error);
    }
    Ok(Attachment {
        netns: record.netns,
        endpoints: record.endpoints,
        ports: record.ports,
        reservations,
    })
}

/// The networks asked for, each once.
fn resolve(paths: &Paths, request: &AttachRequest) -> Result<Vec<Network>> {
    let mut networks: Vec<Network> = Vec::with_capacity(request.networks.len());
    for endpoint in &request.networks {
        let network = store::find(paths, &endpoint.network)?;
        if networks.iter().any(|other| other.name == network.name) {
            return Err(Error::Attached {
                container: request.container_id.clone(),
                network: network.name,
            });
        }
        networks.push(network);
    }
    Ok(networks)
}

/// Leases an address on each network and writes the record. A lease and its record appear under the same flocks, which
/// are taken in the order of the networks' names, as everybody does.
fn lease_all(paths: &Paths, networks: &[Network], wanted: &[Endpoint], record: &mut Record) -> Result<Links> {
    let mut order: Vec<&Network> = networks.iter().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    let mut locks = Vec::with_capacity(order.len());
    for network in order {
        locks.push((network.name.as_str(), Leases::lock(paths, network)?));
    }
    for (index, (network, endpoint)) in networks.iter().zip(wanted).enumerate() {
        let Some((_, leases)) = locks.iter().find(|(name, _)| *name == network.name) else {
            continue;
        };
        let ip = leases.take(endpoint.ip, &record.container_id, &record.name)?;
        record.endpoints.push(place(network, endpoint, record, ip, index));
    }
    record.save(paths)?;
    let mut host = Links::open()?;
    for network in networks {
        ensure_bridge(&mut host, network)?;
    }
    Ok(host)
}

fn place(
    network: &Network,
    endpoint: &Endpoint,
    record: &Record,
    ip: Ipv4Addr,
    index: usize,
) -> EndpointStatus {
    let id = &record.container_id;
    let short: String = id.chars().take(12).collect();
    let mut names: Vec<String> = Vec::with_capacity(endpoint.aliases.len() + 2);
    for name in std::iter::once(&record.name)
        .chain([&short])
        .chain(&endpoint.aliases)
    {
        names.extend(names::normalize(name).filter(|name| !names.contains(name)));
    }
    EndpointStatus {
        network: network.name.clone(),
        bridge: network.bridge.clone(),
        ip,
        prefix: network.subnet.prefix_len(),
        gateway: network.gateway,
        mac: endpoint.mac.unwrap_or_else(|| Mac::of(ip)),
        ifname: format!("eth{index}"),
        veth: veth_name(id, &network.id),
        internal: network.internal,
        names,
    }
}

/// At most 15 bytes, the same for a container on a network each time: FNV-1a of both ids.
fn veth_name(container: &str, network: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in container.bytes().chain(network.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("bv{:012x}", hash & 0xffff_ffff_ffff)
}

fn ensure_bridge(host: &mut Links, network: &Network) -> Result<u32> {
    if let Some(index) = host.index(&network.bridge)? {
        return Ok(index);
    }
    let index = host.create_bridge(network)?;
    let v4 = PathBuf::from("/proc/sys/net/ipv4");
    if !network.internal {
        sysctl(&v4.join("ip_forward"), "1")?;
    }
    let bridge = v4.join("conf").join(&network.bridge);
    // Lets the host's connections from 127.0.0.1 leave by the bridge, where they are masqueraded. The raw chain keeps
    // other 127.0.0.0/8 packets off (CVE-2020-8558).
    sysctl(&bridge.join("route_localnet"), "1")?;
    let v6 = PathBuf::from("/proc/sys/net/ipv6/conf").join(&network.bridge);
    // Absent when the kernel has no IPv6.
    if v6.exists() {
        sysctl(&v6.join("accept_ra"), "0")?;
        sysctl(&v6.join("disable_ipv6"), "1")?;
    }
    Ok(index)
}

fn sysctl(path: &Path, value: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(path, value).map_err(Error::file("set", path))
}

/// Everything that follows the record: namespace, links, addresses, rules, names.
fn build(paths: &Paths, networks: &[Network], record: &Record, host: &mut Links, shared: Lock) -> Result<()> {
    let mut inside = {
        let _visit = if record.own_netns {
            Visit::create(&record.netns)?
        } else {
            Visit::enter(&record.netns)?
        };
        Links::open()?
    };
    let netns = File::open(&record.netns).map_err(|source| Error::Netns {
        operation: "open",
        path: record.netns.clone(),
        source,
    })?;
    for endpoint in &record.endpoints {
        plug(host, endpoint, &netns)?;
    }
    inside.configure(
        &record.endpoints,
        record.primary().map(|endpoint| endpoint.gateway),
    )?;
    let endpoints: Vec<&EndpointStatus> = record.endpoints.iter().collect();
    let shared = admit(paths, networks, &endpoints, record, shared)?;
    for endpoint in &record.endpoints {
        register(paths, endpoint)?;
    }
    drop(shared);
    Ok(())
}

/// Creates the veth; one left by a lost record has the same name and goes first.
fn plug(host: &mut Links, endpoint: &EndpointStatus, netns: &File) -> Result<()> {
    let bridge = host
        .index(&endpoint.bridge)?
        .ok_or_else(|| Error::NotFound(endpoint.network.clone()))?;
    match host.create_veth(endpoint, bridge, netns.as_fd()) {
        Err(Error::Link { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
            host.delete(&endpoint.veth)?;
            host.create_veth(endpoint, bridge, netns.as_fd())
        }
        other => other,
    }
}

fn register(paths: &Paths, endpoint: &EndpointStatus) -> Result<()> {
    endpoint
        .names
        .iter()
        .try_for_each(|name| names::add(paths, &endpoint.network, name, endpoint.ip))
}

/// Puts a container into the sets, in one transaction. That the tables are there is found out by trying.
fn admit(
    paths: &Paths,
    networks: &[Network],
    endpoints: &[&EndpointStatus],
    record: &Record,
    shared: Lock,
) -> Result<Lock> {
    let mut nft = Nft::open()?;
    let fill = || {
        let mut batch = Batch::new();
        networks
            .iter()
            .for_each(|network| firewall::network(&mut batch, Change::Add, network));
        endpoints
            .iter()
            .for_each(|endpoint| firewall::endpoint(&mut batch, Change::Add, endpoint));
        if let Some(primary) = record.primary() {
            firewall::ports(&mut batch, Change::Add, &record.ports, primary.ip);
        }
        batch
    };
    match nft.commit(fill(), "admit a container") {
        Ok(()) => Ok(shared),
        Err(Error::Nft { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
            drop(shared);
            let exclusive = Lock::exclusive(paths)?;
            rebuild(paths, &mut nft)?;
            drop(exclusive);
            Lock::shared(paths)
        }
        // A published port of a container whose record is lost; the reservation proves that nobody has the port now.
        Err(Error::Nft { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EEXIST | libc::EBUSY)) =>
        {
            retract_ports(&mut nft, &record.ports)?;
            nft.commit(fill(), "admit a container").map(|()| shared)
        }
        Err(error) => Err(error),
    }
}

/// Makes the tables anew from all records: the first container, and the first after somebody flushed the ruleset.
/// The caller holds the exclusive lock.
fn rebuild(paths: &Paths, nft: &mut Nft) -> Result<()> {
    let mut batch = Batch::new();
    // What is left of a table goes in the same transaction, so no packet meets a half of the rules.
    for table in firewall::TABLES {
        batch.table(table);
        batch.remove_table(table);
    }
    firewall::create(&mut batch);
    let mut seen: Vec<String> = Vec::new();
    for record in Record::all(paths) {
        for endpoint in &record.endpoints {
            if !seen.contains(&endpoint.network) {
                seen.push(endpoint.network.clone());
                if let Ok(network) = store::find(paths, &endpoint.network) {
                    firewall::network(&mut batch, Change::Add, &network);
                }
            }
            firewall::endpoint(&mut batch, Change::Add, endpoint);
        }
        if let Some(primary) = record.primary() {
            firewall::ports(&mut batch, Change::Add, &record.ports, primary.ip);
        }
    }
    nft.commit(batch, "create the tables")
}

/// Puts the rules back after somebody flushed the host's ruleset (a firewall reload, CVE-2025-54410). Does nothing while
/// they are there, or when no container is attached.
pub fn restore(paths: &Paths) -> Result<()> {
    let mut nft = Nft::open()?;
    // A flush takes all tables; asking for one is enough, and cheap.
    if nft.has_table(firewall::TABLES[0])? {
        return Ok(());
    }
    let _exclusive = Lock::exclusive(paths)?;
    if Record::all(paths)
        .iter()
        .all(|record| record.endpoints.is_empty())
    {
        return Ok(());
    }
    rebuild(paths, &mut nft)
}

fn nft_ignore_missing(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Nft { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Removes port elements one by one, so that those which are absent do not keep the others.
fn retract_ports(nft: &mut Nft, ports: &[PortMapping]) -> Result<()> {
    for port in ports {
        let mut batch = Batch::new();
        firewall::ports(
            &mut batch,
            Change::Remove,
            std::slice::from_ref(port),
            Ipv4Addr::UNSPECIFIED,
        );
        nft_ignore_missing(nft.commit(batch, "retract a port"))?;
    }
    Ok(())
}

/// Takes endpoints and ports out of the sets: at once, or one by one when a part is gone already.
fn retract(nft: &mut Nft, endpoints: &[&EndpointStatus], ports: &[PortMapping]) -> Result<()> {
    let mut batch = Batch::new();
    endpoints
        .iter()
        .for_each(|endpoint| firewall::endpoint(&mut batch, Change::Remove, endpoint));
    firewall::ports(&mut batch, Change::Remove, ports, Ipv4Addr::UNSPECIFIED);
    match nft.commit(batch, "retract a container") {
        Err(Error::Nft { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    for endpoint in endpoints {
        let mut batch = Batch::new();
        firewall::endpoint(&mut batch, Change::Remove, endpoint);
        nft_ignore_missing(nft.commit(batch, "retract a container"))?;
    }
    retract_ports(nft, ports)
}

/// Takes a container off its networks and removes its namespace, from the records on disk alone. Calling it again, or for
/// a container that was never attached, does nothing.
pub fn detach(paths: &Paths, container_id: &str) -> Result<()> {
    let Some(record) = Record::load(paths, container_id)? else {
        return detach_unrecorded(paths, container_id);
    };
    let shared = Lock::shared(paths)?;
    let endpoints: Vec<&EndpointStatus> = record.endpoints.iter().collect();
    if !endpoints.is_empty() {
        // Rules before links and links before leases: what a rule names must not be somebody else's by then.
        retract(&mut Nft::open()?, &endpoints, &record.ports)?;
        unplug(paths, &endpoints)?;
    }
    if record.own_netns {
        netns::remove(&record.netns)?;
    }
    release_leases(paths, &record)?;
    Record::remove(paths, container_id)?;
    drop(shared);
    for endpoint in &record.endpoints {
        close_if_idle(paths, &endpoint.network)?;
    }
    Ok(())
}

fn unplug(paths: &Paths, endpoints: &[&EndpointStatus]) -> Result<()> {
    let mut host = Links::open()?;
    for endpoint in endpoints {
        endpoint
            .names
            .iter()
            .for_each(|name| names::remove(paths, &endpoint.network, name, endpoint.ip));
        host.delete(&endpoint.veth)?;
    }
    Ok(())
}

fn release_leases(paths: &Paths, record: &Record) -> Result<()> {
    for endpoint in &record.endpoints {
        lease::release(paths, &endpoint.network, endpoint.ip, &record.container_id)?;
    }
    Ok(())
}

/// The record is lost with the rest of STATE, but the kernel may have kept what it named: namespace and links have names
/// that follow from the container's and the network's.
fn detach_unrecorded(paths: &Paths, container_id: &str) -> Result<()> {
    netns::remove(&paths.netns(container_id))?;
    for (network, ip) in lease::of_container(paths, container_id) {
        lease::release(paths, &network, ip, container_id)?;
    }
    let mut host = Links::open()?;
    for network in store::Networks::open(paths)?.list()? {
        host.delete(&veth_name(container_id, &network.id))?;
        close_if_idle(paths, &network.name)?;
    }
    Ok(())
}

/// Removes a network's bridge, and the tables with the last network's, when no address is leased.
fn close_if_idle(paths: &Paths, network: &str) -> Result<()> {
    if lease::any(paths, network)? {
        return Ok(());
    }
    let _exclusive = Lock::exclusive(paths)?;
    if lease::any(paths, network)? {
        return Ok(());
    }
    match store::find(paths, network) {
        Ok(network) => remove_idle(paths, &network),
        // Its definition went with its last container.
        Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what an idle network has in the kernel. The caller holds the exclusive lock.
pub(super) fn remove_idle(paths: &Paths, network: &Network) -> Result<()> {
    Links::open()?.delete(&network.bridge)?;
    let mut nft = Nft::open()?;
    let mut batch = Batch::new();
    for other in lease::subdirectories(&paths.networks()) {
        if lease::any(paths, &other)? {
            firewall::network(&mut batch, Change::Remove, network);
            return nft_ignore_missing(nft.commit(batch, "close a network"));
        }
    }
    for table in firewall::TABLES {
        let mut batch = Batch::new();
        batch.remove_table(table);
        nft_ignore_missing(nft.commit(batch, "remove the tables"))?;
    }
    Ok(())
}

/// What a container is attached to now; `None` when it is not attached.
pub fn inspect(paths: &Paths, container_id: &str) -> Result<Option<(Vec<EndpointStatus>, Vec<PortMapping>)>> {
    Ok(Record::load(paths, container_id)?.map(|record| (record.endpoints, record.ports)))
}

fn attached(paths: &Paths, container_id: &str, network: &str) -> Result<Record> {
    Record::load(paths, container_id)?.ok_or_else(|| Error::NotAttached {
        container: container_id.to_owned(),
        network: network.to_owned(),
    })
}

/// Joins a running, attached container to one more network.
pub fn connect(paths: &Paths, container_id: &str, endpoint: &Endpoint) -> Result<EndpointStatus> {
    let network = store::find(paths, &endpoint.network)?;
    let mut record = attached(paths, container_id, &network.name)?;
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
            let _visit = Visit::enter(&record.netns)?;
            Links::open()?
        };
        let netns = File::open(&record.netns).map_err(Error::file("open", &record.netns))?;
        plug(&mut host, &status, &netns)?;
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

/// Takes a running container off one network.
pub fn disconnect(paths: &Paths, container_id: &str, network: &str) -> Result<()> {
    let network = if network == "default" {
        super::DEFAULT_NETWORK
    } else {
        network
    };
    let mut record = attached(paths, container_id, network)?;
    let Some(at) = record
        .endpoints
        .iter()
        .position(|endpoint| endpoint.network == network)
    else {
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
    retract(&mut nft, &[&gone], if is_primary { &record.ports } else { &[] })?;
    unplug(paths, &[&gone])?;
    lease::release(paths, network, gone.ip, container_id)?;
    record.endpoints.remove(at);
    record.save(paths)?;
    if let (true, Some(next)) = (is_primary, record.primary()) {
        // The default route went with its link; ports follow it to the next network.
        let mut inside = {
            let _visit = Visit::enter(&record.netns)?;
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
