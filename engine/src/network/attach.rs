//! Joins a container to its networks.
//!
//! Calls for one container do not overlap: the engine holds the container's lock. Calls for different containers may.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::admit::admit;
use super::detach::{detach, release_leases, settle, settle_one};
use super::error::{Error, Result};
use super::lease::Leases;
use super::link::Links;
use super::lock::Lock;
use super::model::{AttachRequest, Endpoint, EndpointStatus, FarEnd, Mac, Network, Paths, PortMapping};
use super::netns::Visit;
use super::record::{Inside, Record};
use super::{dns, files, names, port, store};

/// A joined container. Dropping it gives up the port reservations, and the namespace unless a process is in it by then;
/// [`detach()`] undoes the rest.
#[derive(Debug)]
pub struct Attachment {
    /// Where the namespace can be entered; a microVM has none.
    pub netns: Option<PathBuf>,
    /// One for each network asked for, in that order.
    pub endpoints: Vec<EndpointStatus>,
    /// Published ports, with the host ports the kernel chose.
    pub ports: Vec<PortMapping>,
    /// Bound sockets that keep the host ports ours; the shim holds them as long as the container is attached.
    pub reservations: Vec<OwnedFd>,
    /// Of a microVM with networks: where its questions arrive, for [`dns::Responder::of_guest`].
    pub name_server: Option<dns::Sockets>,
    /// What `netns` leads to, when we made it.
    _namespace: Option<OwnedFd>,
}

impl Attachment {
    /// Whom the container asks for names; `None` for a microVM on no network.
    #[must_use]
    pub fn name_server_address(&self) -> Option<Ipv4Addr> {
        // Nobody but the guest itself answers at the guest's 127.0.0.11.
        if self.netns.is_some() {
            Some(dns::ADDRESS)
        } else {
            files::host_gateway(&self.endpoints)
        }
    }
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
    // Its last run's links may still be on their way out, under the names that this run's will have.
    settle_one(paths, id)?;
    let networks = resolve(paths, request)?;
    let (ports, reservations) = port::reserve(&request.ports)?;
    if !ports.is_empty() && networks.iter().all(|network| network.internal) {
        return Err(Error::Unsupported(
            "publishing ports of a container without a network that leads outside".into(),
        ));
    }
    let mut name_server = None;
    let inside = match &request.far_end {
        FarEnd::NewNamespace => Inside::Namespace {
            path: paths.netns(id),
            is_own: true,
        },
        FarEnd::Namespace(path) => Inside::Namespace {
            path: path.clone(),
            is_own: false,
        },
        FarEnd::MicroVm => {
            if !networks.is_empty() {
                name_server = Some(dns::Sockets::open()?);
            }
            Inside::MicroVm {
                name_server: name_server.as_ref().map(dns::Sockets::ports),
            }
        }
    };
    let mut record = Record {
        container_id: id.clone(),
        name: request.name.clone(),
        inside,
        endpoints: Vec::with_capacity(networks.len()),
        ports,
        dns: request.dns.clone(),
    };
    let namespace = match join(paths, &networks, &request.networks, &mut record) {
        // Addresses of containers that ended a moment ago are leased until their links are gone.
        Err(Error::AddressTaken { .. } | Error::Exhausted { .. }) => {
            settle(paths, Duration::ZERO)?;
            join(paths, &networks, &request.networks, &mut record)?
        }
        other => other?,
    };
    Ok(Attachment {
        netns: record.namespace().map(Path::to_owned),
        endpoints: record.endpoints,
        ports: record.ports,
        reservations,
        name_server,
        _namespace: namespace,
    })
}

/// Leases, records, builds; undone when a step fails. What it returns keeps a namespace that was made.
fn join(
    paths: &Paths,
    networks: &[Network],
    wanted: &[Endpoint],
    record: &mut Record,
) -> Result<Option<OwnedFd>> {
    let shared = Lock::shared(paths)?;
    let result = lease_all(paths, networks, wanted, record)
        .and_then(|mut host| build(paths, networks, record, &mut host, shared));
    if result.is_err() {
        // The first error is the one to tell; what cannot be undone now stays on record for the next detach.
        let _ = release_leases(paths, record);
        let _ = detach(paths, &record.container_id);
        record.endpoints.clear();
    }
    result
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
        link: link_name(id, &network.id),
        internal: network.internal,
        names,
    }
}

/// At most 15 bytes, the same for a container on a network each time: FNV-1a of both ids.
pub(super) fn link_name(container: &str, network: &str) -> String {
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

/// Everything that follows the record: links, rules, names. What it returns keeps a namespace that was made.
fn build(
    paths: &Paths,
    networks: &[Network],
    record: &Record,
    host: &mut Links,
    shared: Lock,
) -> Result<Option<OwnedFd>> {
    let namespace = match &record.inside {
        Inside::Namespace { path, is_own } => furnish(record, host, path, *is_own)?,
        Inside::MicroVm { .. } => {
            for endpoint in &record.endpoints {
                plug(host, endpoint, None)?;
            }
            None
        }
    };
    let endpoints: Vec<&EndpointStatus> = record.endpoints.iter().collect();
    let shared = admit(paths, networks, &endpoints, record, shared)?;
    for endpoint in &record.endpoints {
        register(paths, endpoint)?;
    }
    drop(shared);
    Ok(namespace)
}

/// A namespace with its links, addresses and routes. What it returns keeps one that was made.
fn furnish(record: &Record, host: &mut Links, path: &Path, is_own: bool) -> Result<Option<OwnedFd>> {
    let (mut inside, namespace) = {
        let (_visit, namespace) = if is_own {
            let (visit, namespace) = Visit::create(path)?;
            (visit, Some(namespace))
        } else {
            (Visit::enter(path)?, None)
        };
        (Links::open()?, namespace)
    };
    let netns = File::open(path).map_err(|source| Error::Netns {
        operation: "open",
        path: path.into(),
        source,
    })?;
    for endpoint in &record.endpoints {
        plug(host, endpoint, Some(&netns))?;
    }
    inside.configure(
        &record.endpoints,
        record.primary().map(|endpoint| endpoint.gateway),
    )?;
    Ok(namespace)
}

/// Creates the link: a veth into `netns`, or a TAP. One left by a lost record has the same name and goes first.
pub(super) fn plug(host: &mut Links, endpoint: &EndpointStatus, netns: Option<&File>) -> Result<()> {
    let bridge = host
        .index(&endpoint.bridge)?
        .ok_or_else(|| Error::NotFound(endpoint.network.clone()))?;
    let create = |host: &mut Links| match netns {
        Some(netns) => host.create_veth(endpoint, bridge, netns.as_fd()),
        None => host.create_tap(endpoint, bridge),
    };
    match create(host) {
        Err(Error::Link { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EEXIST | libc::EBUSY)) =>
        {
            host.delete(&endpoint.link)?;
            create(host)
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

/// What a container is attached to now; `None` when it is not attached.
pub fn inspect(paths: &Paths, container_id: &str) -> Result<Option<(Vec<EndpointStatus>, Vec<PortMapping>)>> {
    Ok(Record::load(paths, container_id)?.map(|record| (record.endpoints, record.ports)))
}
