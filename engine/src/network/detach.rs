//! Takes containers off their networks, in two halves.
//!
//! ```text
//! release: rules and names out ─► namespace let go ─► record moved aside       at once; the container is gone for others
//! settle:  links ─► last rules ─► leases ─► idle bridges and tables ─► record    waits for the kernel's grace periods
//! ```
//!
//! Between the two the kernel takes the namespace and its links down by itself. The address stays leased and the bridge's
//! guard lets nothing pass from the old link, so nobody can meet a stranger at it. Whoever is killed in between leaves a
//! record in `STATE/networks/.released`, which the next one to settle anything finds ([`linger`](mod@super::linger)).

use std::time::{Duration, SystemTime};

use super::admit::{nft_ignore_missing, retract};
use super::attach::link_name;
use super::error::{Error, Result};
use super::lease;
use super::link::Links;
use super::lock::Lock;
use super::model::{EndpointStatus, Network, Paths};
use super::nft::{Batch, Change, Nft};
use super::record::{self, Inside, Record};
use super::{firewall, names, netns, store};

/// What [`release`] leaves open. Dropping it blocks until the kernel is done with the transaction that took the
/// container's rules out, some milliseconds; who has somebody waiting answers first.
#[derive(Debug, Default)]
#[must_use = "dropping it blocks"]
pub struct Released {
    _nft: Option<Nft>,
}

/// Takes a container off its networks and removes its namespace, from the records on disk alone, and waits until the
/// kernel is done. Calling it again, or for a container that was never attached, does nothing.
pub fn detach(paths: &Paths, container_id: &str) -> Result<()> {
    drop(release(paths, container_id)?);
    settle(paths, Duration::ZERO)
}

/// The first half of [`detach()`]: from here on the container is reachable by nobody and its ports are free. Does not wait
/// for the kernel. [`settle`] does the second half.
pub fn release(paths: &Paths, container_id: &str) -> Result<Released> {
    let Some(record) = Record::load(paths, container_id)? else {
        // Released already, and not settled yet?
        if !record::released(paths, container_id).exists() {
            detach_unrecorded(paths, container_id)?;
        }
        return Ok(Released::default());
    };
    let shared = Lock::shared(paths)?;
    let mut open = None;
    if !record.endpoints.is_empty() {
        let endpoints: Vec<&EndpointStatus> = record.endpoints.iter().collect();
        let mut nft = Nft::open()?;
        retract(&mut nft, &endpoints, &record.ports, record.name_server())?;
        open = Some(nft);
        forget_names(paths, &endpoints);
    }
    if let Inside::Namespace { path, is_own: true } = &record.inside {
        netns::remove(path)?;
    }
    record.release(paths)?;
    drop(shared);
    Ok(Released { _nft: open })
}

/// The second half for every container that was released at least `age` ago, also by processes that were killed since;
/// closes the networks that nobody uses then.
pub(super) fn settle(paths: &Paths, age: Duration) -> Result<()> {
    if Record::released(paths).is_empty() {
        return Ok(());
    }
    // Declared before the lock and so dropped after it: closing the socket waits for the kernel, and nobody else should.
    let mut nft = Nft::open()?;
    let _exclusive = Lock::exclusive(paths)?;
    let now = SystemTime::now();
    let ripe: Vec<Record> = Record::released(paths)
        .into_iter()
        .filter(|(since, _)| is_ripe(*since, now, age))
        .map(|(_, record)| record)
        .collect();
    let mut networks: Vec<&str> = Vec::new();
    clear(paths, &mut nft, &ripe)?;
    for record in &ripe {
        for endpoint in &record.endpoints {
            if !networks.contains(&endpoint.network.as_str()) {
                networks.push(&endpoint.network);
            }
        }
    }
    for network in networks {
        close_idle_locked(paths, network)?;
    }
    // Last: while it is there somebody will come back for what is left.
    for record in &ripe {
        Record::forget_released(paths, &record.container_id)?;
    }
    Ok(())
}

/// Was it `age` ago? A moment to come means that the clock was set back, and how long ago it was nobody knows: yes.
fn is_ripe(since: SystemTime, now: SystemTime, age: Duration) -> bool {
    now.duration_since(since).map_or(true, |passed| passed >= age)
}

/// The second half for one container, whose networks stay open: it is about to join them again.
pub(super) fn settle_one(paths: &Paths, container_id: &str) -> Result<()> {
    if !record::released(paths, container_id).exists() {
        return Ok(());
    }
    let mut nft = Nft::open()?;
    let _exclusive = Lock::exclusive(paths)?;
    let mut ours: Vec<Record> = Record::released(paths)
        .into_iter()
        .map(|(_, record)| record)
        .collect();
    ours.retain(|record| record.container_id == container_id);
    clear(paths, &mut nft, &ours)?;
    Record::forget_released(paths, container_id)
}

/// Links, then the rules that held them, then leases. The caller holds the exclusive lock.
fn clear(paths: &Paths, nft: &mut Nft, records: &[Record]) -> Result<()> {
    let endpoints: Vec<&EndpointStatus> = records.iter().flat_map(|record| &record.endpoints).collect();
    unplug(nft, &endpoints)?;
    records
        .iter()
        .try_for_each(|record| release_leases(paths, record))
}

/// Links, and then the rules that held them. The links' sources are retracted.
pub(super) fn unplug(nft: &mut Nft, endpoints: &[&EndpointStatus]) -> Result<()> {
    let mut host = Links::open()?;
    let mut batch = Batch::new();
    for endpoint in endpoints {
        host.delete(&endpoint.link)?;
        firewall::guard(&mut batch, Change::Remove, endpoint);
    }
    match nft.commit(batch, "let go of links") {
        Err(Error::Nft { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    // A part is gone already; it must not keep the others.
    for endpoint in endpoints {
        let mut batch = Batch::new();
        firewall::guard(&mut batch, Change::Remove, endpoint);
        nft_ignore_missing(nft.commit(batch, "let go of a link"))?;
    }
    Ok(())
}

pub(super) fn forget_names(paths: &Paths, endpoints: &[&EndpointStatus]) {
    for endpoint in endpoints {
        for name in &endpoint.names {
            names::remove(paths, &endpoint.network, name, endpoint.ip);
        }
    }
}

pub(super) fn release_leases(paths: &Paths, record: &Record) -> Result<()> {
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
        host.delete(&link_name(container_id, &network.id))?;
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
    close_idle_locked(paths, network)
}

fn close_idle_locked(paths: &Paths, network: &str) -> Result<()> {
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
    for other in lease::subdirectories(&paths.networks()) {
        if lease::any(paths, &other)? {
            let mut batch = Batch::new();
            firewall::network(&mut batch, Change::Remove, network);
            return nft_ignore_missing(nft.commit(batch, "close a network"));
        }
    }
    remove_tables(&mut nft)
}

/// Removes all that is berth's; in one transaction unless a part is gone already.
pub(super) fn remove_tables(nft: &mut Nft) -> Result<()> {
    let mut both = Batch::new();
    firewall::TABLES
        .into_iter()
        .for_each(|table| both.remove_table(table));
    match nft.commit(both, "remove the tables") {
        Err(Error::Nft { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    for table in firewall::TABLES {
        let mut batch = Batch::new();
        batch.remove_table(table);
        nft_ignore_missing(nft.commit(batch, "remove the tables"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_leased() {
        let (now, second) = (SystemTime::now(), Duration::from_secs(1));
        assert!(is_ripe(now - second, now, second));
        assert!(!is_ripe(now - second / 2, now, second));
        assert!(is_ripe(now + 3600 * second, now, second));
    }
}
