//! Address leases: `STATE/networks/<name>/leases/<ip>`, holding the container's id and name, made under the
//! network's flock.
//!
//! The file is there before the address is used and goes after it. An address just given back is the last to be handed
//! out again, so that a neighbour's stale connection does not reach a stranger.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::error::{Error, Result};
use super::lock::Lock;
use super::model::{Network, Paths};

/// Leases of one network. Holds the network's flock.
pub(super) struct Leases<'a> {
    paths: &'a Paths,
    network: &'a Network,
    _lock: Lock,
}

pub(super) fn directory(paths: &Paths, network: &str) -> PathBuf {
    paths.network(network).join("leases")
}

/// Is any address of the network leased?
pub(super) fn any(paths: &Paths, network: &str) -> Result<bool> {
    let path = directory(paths, network);
    match fs::read_dir(&path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::file("list", path)(error)),
    }
}

/// Gives an address back, if it is this container's.
pub(super) fn release(paths: &Paths, network: &str, ip: Ipv4Addr, container: &str) -> Result<()> {
    let path = directory(paths, network).join(ip.to_string());
    if owner_of(&path).as_deref() != Some(container) {
        return Ok(());
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Addresses that files say are a container's, on every network; for containers whose record is lost.
pub(super) fn of_container(paths: &Paths, container: &str) -> Vec<(String, Ipv4Addr)> {
    let mut found = Vec::new();
    for network in subdirectories(&paths.networks()) {
        for (ip, owner) in list(paths, &network) {
            if owner == container {
                found.push((network.clone(), ip));
            }
        }
    }
    found
}

/// All leases of a network with their owners, in no order.
pub(super) fn list(paths: &Paths, network: &str) -> Vec<(Ipv4Addr, String)> {
    let entries = fs::read_dir(directory(paths, network))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| {
            let ip = entry.file_name().to_str()?.parse().ok()?;
            Some((ip, owner_of(&entry.path()).unwrap_or_default()))
        })
        .collect()
}

pub(super) fn subdirectories(path: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

fn owner_of(path: &std::path::Path) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.lines().next().unwrap_or_default().to_owned())
}

/// The name second to the id in a lease: what a reverse lookup answers.
pub(super) fn name_of(paths: &Paths, network: &str, ip: Ipv4Addr) -> Option<String> {
    let text = fs::read_to_string(directory(paths, network).join(ip.to_string())).ok()?;
    text.lines().nth(1).map(str::to_owned)
}

/// Puts another name into a lease.
pub(super) fn rename(paths: &Paths, network: &str, ip: Ipv4Addr, container: &str, name: &str) -> Result<()> {
    let path = directory(paths, network).join(ip.to_string());
    fs::write(&path, format!("{container}\n{name}\n")).map_err(Error::file("write", path))
}

impl<'a> Leases<'a> {
    /// Waits for the network's flock.
    pub(super) fn lock(paths: &'a Paths, network: &'a Network) -> Result<Self> {
        let lock = Lock::network(paths, &network.name)?;
        Ok(Self {
            paths,
            network,
            _lock: lock,
        })
    }

    /// Leases `wanted`, or the next free address.
    pub(super) fn take(&self, wanted: Option<Ipv4Addr>, container: &str, name: &str) -> Result<Ipv4Addr> {
        let directory = directory(self.paths, &self.network.name);
        if !directory.is_dir() {
            fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        }
        match wanted {
            Some(ip) => self.take_exactly(ip, container, name),
            None => self.take_next(container, name),
        }
    }

    fn take_exactly(&self, ip: Ipv4Addr, container: &str, name: &str) -> Result<Ipv4Addr> {
        let network = &self.network.name;
        let subnet = self.network.subnet;
        if !subnet.contains(&ip) || ip == subnet.network() || ip == subnet.broadcast() {
            return Err(Error::AddressOutside {
                network: network.clone(),
                ip,
                subnet,
            });
        }
        if ip == self.network.gateway {
            return Err(Error::AddressTaken {
                network: network.clone(),
                ip,
                owner: "the gateway".into(),
            });
        }
        if self.create(ip, container, name)? || (self.reclaim(ip)? && self.create(ip, container, name)?) {
            return Ok(ip);
        }
        let owner = owner_of(&directory(self.paths, network).join(ip.to_string())).unwrap_or_default();
        Err(Error::AddressTaken {
            network: network.clone(),
            ip,
            owner,
        })
    }

    /// Round robin from the address handed out last. A second round takes addresses back from owners that are gone; that
    /// is rare, so the first does not look.
    fn take_next(&self, container: &str, name: &str) -> Result<Ipv4Addr> {
        let subnet = self.network.subnet;
        let (mut first, mut last) = (
            u32::from(subnet.network()).saturating_add(1),
            u32::from(subnet.broadcast()).saturating_sub(1),
        );
        if let Some(range) = self.network.ip_range {
            first = first.max(u32::from(range.network()));
            last = last.min(u32::from(range.broadcast()));
        }
        let cursor = self.paths.network(&self.network.name).join("last");
        let previous = fs::read_to_string(&cursor)
            .ok()
            .and_then(|text| text.trim().parse::<Ipv4Addr>().ok());
        let start = previous.map_or(first, |ip| u32::from(ip).saturating_add(1));
        let start = if (first..=last).contains(&start) {
            start
        } else {
            first
        };
        for reclaiming in [false, true] {
            for candidate in (start..=last).chain(first..start) {
                let ip = Ipv4Addr::from(candidate);
                if ip == self.network.gateway || (reclaiming && !self.reclaim(ip)?) {
                    continue;
                }
                if self.create(ip, container, name)? {
                    // A hint only: torn or lost, the search starts from the first address.
                    let _ = fs::write(&cursor, ip.to_string());
                    return Ok(ip);
                }
            }
        }
        Err(Error::Exhausted {
            network: self.network.name.clone(),
            subnet,
        })
    }

    fn create(&self, ip: Ipv4Addr, container: &str, name: &str) -> Result<bool> {
        let path = directory(self.paths, &self.network.name).join(ip.to_string());
        if path.exists() {
            return Ok(false);
        }
        // Whole from the first moment: a lease that a kill left without its owner would be found by no detach. Nobody else
        // is here meanwhile, for we hold the flock.
        let aside = self.paths.network(&self.network.name).join("lease");
        fs::write(&aside, format!("{container}\n{name}\n")).map_err(Error::file("write", &aside))?;
        fs::rename(&aside, &path).map_err(Error::file("rename", aside))?;
        Ok(true)
    }

    /// Removes a lease whose owner is gone. Under the network's flock a lease and its record appear together, so a lease
    /// without a record is what a crash left.
    fn reclaim(&self, ip: Ipv4Addr) -> Result<bool> {
        let path = directory(self.paths, &self.network.name).join(ip.to_string());
        let Some(owner) = owner_of(&path) else {
            return Ok(false);
        };
        if !owner.is_empty()
            && (super::record::path(self.paths, &owner).exists()
                || super::record::released(self.paths, &owner).exists())
        {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(Error::file("remove", path))?;
        Ok(true)
    }
}
