//! Network definitions: `ROOT/networks/<name>.json`, and the default network, which needs no file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::error::{Error, Result};
use super::lock::Lock;
use super::model::{DEFAULT_NETWORK, Network, NetworkOptions, Paths, validate_name};
use super::predefined::{default_network, is_predefined};
use super::record;
use super::{detach, lease};

/// Where user-defined networks get their /24 from.
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 78, 0, 0), 15);

/// The networks of one `ROOT`.
#[derive(Debug)]
pub struct Networks {
    pub(super) paths: Paths,
}

impl Networks {
    /// Creates the directory when it is missing.
    pub fn open(paths: &Paths) -> Result<Self> {
        let directory = paths.definitions();
        fs::create_dir_all(&directory).map_err(Error::file("create", directory))?;
        Ok(Self { paths: paths.clone() })
    }

    /// Defines a network; links come with its first container.
    pub fn create(&self, options: &NetworkOptions) -> Result<Network> {
        let name = validate_name(&options.name)?;
        if is_predefined(name) {
            return Err(Error::Exists(name.to_owned()));
        }
        if let Some(driver) = options.driver.as_deref().filter(|driver| *driver != "bridge") {
            return Err(Error::Unsupported(format!(
                "network driver {driver}: bridge is the only one"
            )));
        }
        let _lock = Lock::definitions(&self.paths)?;
        let existing = self.list()?;
        if existing.iter().any(|network| network.name == name) {
            return Err(Error::Exists(name.to_owned()));
        }
        let taken = taken(&existing);
        let subnet = match options.subnet {
            Some(subnet) => check_subnet(subnet, &taken)?,
            None => POOL
                .subnets(24)
                .into_iter()
                .flatten()
                .find(|candidate| overlap(*candidate, &taken).is_none())
                .ok_or(Error::PoolExhausted(POOL))?,
        };
        let gateway = options
            .gateway
            .unwrap_or_else(|| Ipv4Addr::from(u32::from(subnet.network()) + 1));
        if !subnet.contains(&gateway) || gateway == subnet.network() || gateway == subnet.broadcast() {
            return Err(Error::Subnet {
                subnet: subnet.to_string(),
                reason: "the gateway is not one of its host addresses",
            });
        }
        if let Some(range) = options.ip_range
            && !subnet.contains(&range)
        {
            return Err(Error::Subnet {
                subnet: range.to_string(),
                reason: "the range of addresses is not part of the subnet",
            });
        }
        let id = random_id(&self.paths)?;
        let network = Network {
            name: name.to_owned(),
            bridge: format!("br-{}", &id[..12]),
            id,
            driver: "bridge".into(),
            subnet,
            gateway,
            ip_range: options.ip_range,
            internal: options.internal,
            labels: options.labels.clone(),
            created: jiff::Timestamp::now().to_string(),
        };
        self.write(&network)?;
        Ok(network)
    }

    /// All networks that can be attached to (see [`Networks::listed`] for all there are), the default one first, then by name.
    pub fn list(&self) -> Result<Vec<Network>> {
        let directory = self.paths.definitions();
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::file("list", &directory))? {
            let name = entry.map_err(Error::file("list", &directory))?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
            names.extend(name.filter(|name| !name.starts_with('.')).map(str::to_owned));
        }
        names.sort();
        let mut networks = vec![default_network()];
        for name in names {
            networks.extend(load(&self.paths, &name)?);
        }
        Ok(networks)
    }

    /// One network by name, id or unique prefix of an id.
    pub fn get(&self, name: &str) -> Result<Network> {
        match find(&self.paths, name) {
            Err(Error::NotFound(_)) if name.len() >= 3 => {
                let mut matches = self
                    .list()?
                    .into_iter()
                    .filter(|network| network.id.starts_with(name));
                match (matches.next(), matches.next()) {
                    (Some(network), None) => Ok(network),
                    _ => Err(Error::NotFound(name.to_owned())),
                }
            }
            other => other,
        }
    }

    /// Ids of the containers attached to a network, with their addresses, by address.
    pub fn containers(&self, name: &str) -> Result<Vec<(String, Ipv4Addr)>> {
        let network = self.get(name)?;
        let mut leases = lease::list(&self.paths, &network.name);
        leases.retain(|(_, owner)| !record::released(&self.paths, owner).exists());
        leases.sort();
        Ok(leases.into_iter().map(|(ip, owner)| (owner, ip)).collect())
    }

    /// Forgets a network that has no containers.
    pub fn remove(&self, name: &str) -> Result<()> {
        if is_predefined(name) {
            return Err(Error::Predefined(name.to_owned()));
        }
        let network = self.get(name)?;
        // Containers that ended a moment ago still have their addresses.
        detach::settle(&self.paths, Duration::ZERO)?;
        let _definitions = Lock::definitions(&self.paths)?;
        let _all = Lock::exclusive(&self.paths)?;
        let containers = lease::list(&self.paths, &network.name);
        if !containers.is_empty() {
            let short = |id: &String| id.chars().take(12).collect::<String>();
            let containers = containers
                .iter()
                .map(|(_, owner)| short(owner))
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Error::InUse {
                network: network.name,
                containers,
            });
        }
        detach::remove_idle(&self.paths, &network)?;
        let path = self.paths.definitions().join(format!("{}.json", network.name));
        fs::remove_file(&path).map_err(Error::file("remove", path))?;
        match fs::remove_dir_all(self.paths.network(&network.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("remove", self.paths.network(&network.name))(error))
            }
            _ => Ok(()),
        }
    }

    /// Forgets every user-defined network that has no containers and that `wanted` says, and removes links and tables that nobody
    /// uses.
    /// Returns the names of the forgotten.
    pub fn prune(&self, wanted: &dyn Fn(&Network) -> bool) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        detach::settle(&self.paths, Duration::ZERO)?;
        for network in self.list()? {
            if network.name == DEFAULT_NETWORK {
                let _all = Lock::exclusive(&self.paths)?;
                if !lease::any(&self.paths, &network.name)? {
                    detach::remove_idle(&self.paths, &network)?;
                }
                continue;
            }
            if !wanted(&network) {
                continue;
            }
            match self.remove(&network.name) {
                Ok(()) => gone.push(network.name),
                // In use, or another process was faster.
                Err(Error::InUse { .. } | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    fn write(&self, network: &Network) -> Result<()> {
        let directory = self.paths.definitions();
        let path = directory.join(format!("{}.json", network.name));
        let aside = directory.join(format!(".{}", network.id));
        let bytes = serde_json::to_vec_pretty(network).map_err(|source| Error::Parse {
            path: path.clone(),
            source,
        })?;
        let mut file = File::create_new(&aside).map_err(Error::file("create", &aside))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(Error::file("write", &aside))?;
        fs::rename(&aside, &path).map_err(Error::file("rename", &aside))?;
        File::open(&directory)
            .and_then(|file| file.sync_all())
            .map_err(Error::file("sync", directory))
    }
}

/// A network by its exact name.
pub(super) fn find(paths: &Paths, name: &str) -> Result<Network> {
    if matches!(name, DEFAULT_NETWORK | "default") {
        return Ok(default_network());
    }
    load(paths, validate_name(name)?)?.ok_or_else(|| Error::NotFound(name.to_owned()))
}

fn load(paths: &Paths, name: &str) -> Result<Option<Network>> {
    let path = paths.definitions().join(format!("{name}.json"));
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Parse { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Subnets that are somebody's: other networks, and what the host routes elsewhere than to the default.
fn taken(networks: &[Network]) -> Vec<(Ipv4Net, String)> {
    let mut taken: Vec<_> = networks
        .iter()
        .map(|network| (network.subnet, format!("network {}", network.name)))
        .collect();
    let table = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    taken.extend(routes(&table).map(|(net, link)| (net, format!("a route of the host through {link}"))));
    taken
}

/// Parses `/proc/net/route`: little-endian hex words.
fn routes(table: &str) -> impl Iterator<Item = (Ipv4Net, &str)> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let link = fields.next()?;
        let destination = u32::from_str_radix(fields.next()?, 16).ok()?.swap_bytes();
        let mask = u32::from_str_radix(fields.nth(5)?, 16).ok()?.swap_bytes();
        let prefix = u8::try_from(mask.leading_ones()).ok()?;
        let net = Ipv4Net::new(destination.into(), prefix).ok()?;
        (prefix > 0).then_some((net, link))
    })
}

fn overlap(subnet: Ipv4Net, taken: &[(Ipv4Net, String)]) -> Option<&str> {
    let hit = |other: &Ipv4Net| subnet.contains(other) || other.contains(&subnet);
    taken
        .iter()
        .find(|(other, _)| hit(other))
        .map(|(_, owner)| owner.as_str())
}

fn check_subnet(subnet: Ipv4Net, taken: &[(Ipv4Net, String)]) -> Result<Ipv4Net> {
    let refuse = |reason| {
        Err(Error::Subnet {
            subnet: subnet.to_string(),
            reason,
        })
    };
    if subnet.addr() != subnet.network() {
        return refuse("it has host bits set");
    }
    if !(8..=29).contains(&subnet.prefix_len()) {
        return refuse("its prefix must be from /8 to /29");
    }
    let first = subnet.network();
    if first.is_loopback() || first.is_multicast() || first.is_unspecified() || first.is_broadcast() {
        return refuse("its addresses are reserved");
    }
    match overlap(subnet, taken) {
        Some(other) => Err(Error::Overlap {
            subnet,
            other: other.to_owned(),
        }),
        None => Ok(subnet),
    }
}

fn random_id(paths: &Paths) -> Result<String> {
    let mut bytes = [0_u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Error::file("name a file in", paths.definitions())(errno.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_created_once_found_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("root"), directory.path().join("state"));
        let networks = Networks::open(&paths).unwrap();
        let options = NetworkOptions {
            name: "web".into(),
            ..NetworkOptions::default()
        };
        let made = networks.create(&options).unwrap();
        assert_eq!(networks.get("web").unwrap(), made);
        assert_eq!(networks.get(&made.id[..6]).unwrap(), made);
        assert!(matches!(networks.create(&options), Err(Error::Exists(_))));
        let other = networks
            .create(&NetworkOptions {
                name: "db".into(),
                ..NetworkOptions::default()
            })
            .unwrap();
        assert_ne!(other.subnet, made.subnet);
        let overlapping = NetworkOptions {
            name: "x".into(),
            subnet: Some(made.subnet),
            ..NetworkOptions::default()
        };
        assert!(matches!(
            networks.create(&overlapping),
            Err(Error::Overlap { .. })
        ));
        assert_eq!(networks.list().unwrap().len(), 3);
        fs::remove_file(paths.definitions().join("db.json")).unwrap();
        assert!(matches!(networks.get("db"), Err(Error::NotFound(_))));
        assert!(matches!(networks.remove("bridge"), Err(Error::Predefined(_))));
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        for name in ["", ".", "..", "a/b", ".hidden", "a b", "-x"] {
            assert!(validate_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn host_routes_are_read() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\neth0\t00004E0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        assert_eq!(
            routes(table).collect::<Vec<_>>(),
            vec![("10.78.0.0/24".parse().unwrap(), "eth0")]
        );
    }
}
