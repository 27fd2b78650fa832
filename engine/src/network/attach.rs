//! Joins a container to its networks and takes it off again.
//!
//! Calls for one container do not overlap: the engine holds the container's lock. Calls for different containers may.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::admit::{admit, nft_ignore_missing, retract};
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

pub(super) fn place(
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

pub(super) fn ensure_bridge(host: &mut Links, network: &Network) -> Result<u32> {
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
pub(super) fn plug(host: &mut Links, endpoint: &EndpointStatus, netns: &File) -> Result<()> {
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

pub(super) fn register(paths: &Paths, endpoint: &EndpointStatus) -> Result<()> {
    endpoint
        .names
        .iter()
        .try_for_each(|name| names::add(paths, &endpoint.network, name, endpoint.ip))
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

pub(super) fn unplug(paths: &Paths, endpoints: &[&EndpointStatus]) -> Result<()> {
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
    Record::remove(paths, container_id)?;
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
pub(super) fn close_if_idle(paths: &Paths, network: &str) -> Result<()> {
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
