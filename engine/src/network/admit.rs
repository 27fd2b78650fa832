//! Containers in and out of the rules' sets, and the rules back when somebody flushed them.

use std::net::Ipv4Addr;

use super::error::{Error, Result};
use super::lock::Lock;
use super::model::{EndpointStatus, Network, Paths, PortMapping, Protocol};
use super::nft::{Batch, Change, Nft};
use super::record::{NameServer, Record};
use super::{firewall, store};

/// Puts a container into the sets, in one transaction. That the tables are there is found out by trying.
pub(super) fn admit(
    paths: &Paths,
    networks: &[Network],
    endpoints: &[&EndpointStatus],
    record: &Record,
    shared: Lock,
) -> Result<Lock> {
    if endpoints.is_empty() {
        // `--network none`: the tables would be there for nobody, and nobody would take them away.
        return Ok(shared);
    }
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
        firewall::name_server(&mut batch, Change::Add, endpoints, record.name_server());
        batch
    };
    // A refused transaction costs the kernel a grace period, a question does not.
    let shared = if nft.has_table(firewall::TABLES[0])? {
        shared
    } else {
        rebuild_between(paths, &mut nft, shared)?
    };
    let shared = match nft.commit(fill(), "admit a container") {
        Ok(()) => shared,
        // One of the two tables was there, and is the only one.
        Err(Error::Nft { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
            rebuild_between(paths, &mut nft, shared)?
        }
        // Published ports or the name server of a container whose record is lost; the reservations and the lease prove that
        // nobody has them now.
        Err(Error::Nft { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EEXIST | libc::EBUSY)) =>
        {
            retract_ports(&mut nft, &record.ports)?;
            retract_name_server(&mut nft, endpoints, record.name_server())?;
            nft.commit(fill(), "admit a container")?;
            shared
        }
        Err(error) => return Err(error),
    };
    forget(&mut nft, &record.ports)?;
    if record.name_server().is_some() {
        endpoints
            .iter()
            .try_for_each(|endpoint| nft.forget_questions(endpoint.ip))?;
    }
    Ok(shared)
}

/// [`rebuild`] by somebody who holds the shared lock, and holds it again afterwards.
fn rebuild_between(paths: &Paths, nft: &mut Nft, shared: Lock) -> Result<Lock> {
    drop(shared);
    let exclusive = Lock::exclusive(paths)?;
    rebuild(paths, nft)?;
    drop(exclusive);
    Lock::shared(paths)
}

/// Makes the tables anew from all records: the first container, and the first after somebody flushed the ruleset.
/// The caller holds the exclusive lock.
fn rebuild(paths: &Paths, nft: &mut Nft) -> Result<()> {
    let mut batch = Batch::new();
    // What is left of a table goes in the same transaction, so no packet meets a half of the rules.
    for table in firewall::TABLES {
        if nft.has_table(table)? {
            batch.remove_table(table);
        }
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
        let endpoints: Vec<&EndpointStatus> = record.endpoints.iter().collect();
        firewall::name_server(&mut batch, Change::Add, &endpoints, record.name_server());
    }
    for (_, record) in Record::released(paths) {
        for endpoint in &record.endpoints {
            firewall::guard(&mut batch, Change::Add, endpoint);
        }
    }
    nft.commit(batch, "create the tables")
}

/// Puts the rules back after somebody flushed the host's ruleset (a firewall reload, CVE-2025-54410). Does nothing while
/// they are there, or when no container is attached.
pub fn restore(paths: &Paths) -> Result<()> {
    let mut nft = match Nft::open() {
        Ok(nft) => nft,
        // A kernel without nftables runs containers without networks all the same.
        Err(_) if !has_endpoints(paths) => return Ok(()),
        Err(e) => return Err(e),
    };
    // A flush takes all tables; asking for one is enough, and cheap.
    if nft.has_table(firewall::TABLES[0])? {
        return Ok(());
    }
    let _exclusive = Lock::exclusive(paths)?;
    if has_endpoints(paths) {
        rebuild(paths, &mut nft)
    } else {
        Ok(())
    }
}

fn has_endpoints(paths: &Paths) -> bool {
    Record::all(paths)
        .iter()
        .any(|record| !record.endpoints.is_empty())
}

/// Connections tracked to these ports so far went elsewhere than the rules now say.
pub(super) fn forget(nft: &mut Nft, ports: &[PortMapping]) -> Result<()> {
    let mut udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    udp.try_for_each(|port| nft.forget_udp(port.host_ip, port.host_port))
}

pub(super) fn nft_ignore_missing(result: Result<()>) -> Result<()> {
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

fn retract_name_server(
    nft: &mut Nft,
    endpoints: &[&EndpointStatus],
    server: Option<NameServer>,
) -> Result<()> {
    for endpoint in endpoints {
        let mut batch = Batch::new();
        firewall::name_server(&mut batch, Change::Remove, &[endpoint], server);
        nft_ignore_missing(nft.commit(batch, "retract a name server"))?;
    }
    Ok(())
}

/// Takes away what a container may send, its ports and its name server: at once, or one by one when a part is gone
/// already. Its links stay guarded as long as they are there.
pub(super) fn retract(
    nft: &mut Nft,
    endpoints: &[&EndpointStatus],
    ports: &[PortMapping],
    server: Option<NameServer>,
) -> Result<()> {
    let mut batch = Batch::new();
    endpoints
        .iter()
        .for_each(|endpoint| firewall::source(&mut batch, Change::Remove, endpoint));
    firewall::ports(&mut batch, Change::Remove, ports, Ipv4Addr::UNSPECIFIED);
    firewall::name_server(&mut batch, Change::Remove, endpoints, server);
    match nft.commit(batch, "retract a container") {
        Err(Error::Nft { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
        Ok(()) => return forget(nft, ports),
        Err(error) => return Err(error),
    }
    for endpoint in endpoints {
        let mut batch = Batch::new();
        firewall::source(&mut batch, Change::Remove, endpoint);
        nft_ignore_missing(nft.commit(batch, "retract a container"))?;
    }
    retract_ports(nft, ports)?;
    retract_name_server(nft, endpoints, server)?;
    forget(nft, ports)
}
