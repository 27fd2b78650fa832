//! Closes networks a moment after their last container, so that the next container finds its bridge and tables there and
//! nobody waits for the kernel to take them down.
//!
//! One process at a time lingers, whoever gets `STATE/networks/.closer` first: a shim that is done with its container, or
//! a command that finds what a killed one left. It goes on while there is anything released and not settled.

use std::time::{Duration, SystemTime};

use super::detach::{remove_tables, settle};
use super::error::Result;
use super::link::Links;
use super::lock::Lock;
use super::model::{Network, Paths};
use super::nft::Nft;
use super::record::Record;
use super::store;

/// How long a network without containers stays open. A second is more than the gap between two commands of a script and
/// less than a person needs to look.
pub const LINGER: Duration = Duration::from_secs(1);

/// The least time between two rounds of settling: while many containers end one after another, they are settled some at a
/// time, for each round keeps everybody else from the network for a moment.
const ROUND: Duration = Duration::from_millis(250);

/// Settles what was released, each container when its release is [`LINGER`] ago, and closes the networks that are idle
/// then. Returns at once when there is nothing to do or another process is at it; otherwise blocks for about [`LINGER`],
/// longer while containers come and go. Also works when STATE is removed meanwhile.
pub fn linger(paths: &Paths) -> Result<()> {
    loop {
        if Record::released(paths).is_empty() {
            return Ok(());
        }
        let Some(closer) = Lock::closer(paths)? else {
            return Ok(());
        };
        loop {
            let waiting = Record::released(paths);
            let Some(oldest) = waiting.iter().map(|(since, _)| *since).min() else {
                break;
            };
            let networks = networks_of(paths, &waiting);
            let age = SystemTime::now().duration_since(oldest).unwrap_or_default();
            std::thread::sleep(LINGER.saturating_sub(age).max(ROUND));
            match closer.is_closer_of(paths) {
                Some(true) => {}
                // Another STATE is in its place, with a closer of its own.
                Some(false) => return Ok(()),
                None => return wiped(&waiting, &networks),
            }
            settle(paths, LINGER)?;
        }
        // Who released something in between may have found us here and left it to us: look again.
        drop(closer);
    }
}

/// Settles at once what was released by processes that did not live to do it. Cheap when there is nothing.
pub fn settle_abandoned(paths: &Paths) -> Result<()> {
    if Record::released(paths).is_empty() {
        return Ok(());
    }
    match Lock::closer(paths)? {
        Some(_closer) => settle(paths, Duration::ZERO),
        None => Ok(()),
    }
}

fn networks_of(paths: &Paths, released: &[(SystemTime, Record)]) -> Vec<Network> {
    let mut networks: Vec<Network> = Vec::new();
    for endpoint in released.iter().flat_map(|(_, record)| &record.endpoints) {
        if !networks.iter().any(|network| network.name == endpoint.network) {
            // One that was removed meanwhile has no bridge any more.
            networks.extend(store::find(paths, &endpoint.network).ok());
        }
    }
    networks
}

/// STATE is gone, and nobody has begun a new one: what we know from memory goes, unless links of others hang on it.
fn wiped(released: &[(SystemTime, Record)], networks: &[Network]) -> Result<()> {
    let mut host = Links::open()?;
    for endpoint in released.iter().flat_map(|(_, record)| &record.endpoints) {
        host.delete(&endpoint.link)?;
    }
    let mut in_use = false;
    for network in networks {
        if host.has_ports(&network.bridge)? {
            in_use = true;
        } else {
            host.delete(&network.bridge)?;
        }
    }
    if in_use {
        return Ok(());
    }
    remove_tables(&mut Nft::open()?)
}
