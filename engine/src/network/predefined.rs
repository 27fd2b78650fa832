//! The networks that are always there: the default bridge, and `host` and `none`, which are bridges to nothing and still have
//! a row in `network ls` and an answer to `network inspect`, as docker's.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Map, Value, json};

use super::error::{Error, Result};
use super::lease;
use super::model::{DEFAULT_BRIDGE, DEFAULT_NETWORK, Network};
use super::store::Networks;

/// Subnet of the default network.
const DEFAULT_SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 16);
/// Nobody made them.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The network that is joined unless told otherwise.
pub(super) fn default_network() -> Network {
    Network {
        name: DEFAULT_NETWORK.into(),
        id: "b".repeat(64),
        driver: "bridge".into(),
        bridge: DEFAULT_BRIDGE.into(),
        subnet: DEFAULT_SUBNET,
        gateway: Ipv4Addr::new(10, 77, 0, 1),
        ip_range: None,
        internal: false,
        labels: std::collections::BTreeMap::new(),
        created: CREATED.into(),
    }
}

/// Whether a name is taken by one of them, or by what `--network` means otherwise.
pub(super) fn is_predefined(name: &str) -> bool {
    matches!(name, DEFAULT_NETWORK | "default" | "host" | "none") || name.starts_with("container:")
}

/// A network as it is listed and inspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// One to attach to.
    Bridge(Network),
    /// The host's own namespace.
    Host,
    /// A loopback link alone.
    None,
}

impl Listed {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Bridge(network) => &network.name,
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// 64 hex digits; of those that are everywhere the same, one digit.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Bridge(network) => network.id.clone(),
            Self::Host => "c".repeat(64),
            Self::None => "d".repeat(64),
        }
    }

    /// docker's word for how it is made.
    #[must_use]
    pub fn driver(&self) -> &str {
        match self {
            Self::Bridge(network) => &network.driver,
            Self::Host => "host",
            Self::None => "null",
        }
    }

    /// Whether it is there without anybody having made it.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        is_predefined(self.name())
    }

    /// Whether it is a network without a way out.
    #[must_use]
    pub fn internal(&self) -> bool {
        matches!(self, Self::Bridge(network) if network.internal)
    }

    /// Creation time, RFC 3339.
    #[must_use]
    pub fn created(&self) -> &str {
        match self {
            Self::Bridge(network) => &network.created,
            Self::Host | Self::None => CREATED,
        }
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        match self {
            Self::Bridge(network) => network.labels.get(key).map(String::as_str),
            Self::Host | Self::None => None,
        }
    }
}

impl Networks {
    /// All networks: the default one, `host`, `none`, then the user's by name.
    ///
    /// # Errors
    ///
    /// A definition cannot be read.
    pub fn listed(&self) -> Result<Vec<Listed>> {
        let mut all: Vec<Listed> = self.list()?.into_iter().map(Listed::Bridge).collect();
        all.splice(1..1, [Listed::Host, Listed::None]);
        Ok(all)
    }

    /// A network by name, id or unique prefix of an id, as docker's `network inspect` prints it: one JSON object.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let found = match self.get(name) {
            Err(Error::NotFound(_)) => [Listed::Host, Listed::None]
                .into_iter()
                .find(|built_in| {
                    name == built_in.name() || name.len() >= 3 && built_in.id().starts_with(name)
                })
                .ok_or_else(|| Error::NotFound(name.to_owned()))?,
            other => Listed::Bridge(other?),
        };
        let (containers, config, options, labels) = match &found {
            Listed::Bridge(network) => {
                let mut config = json!({"Subnet": network.subnet, "Gateway": network.gateway});
                if let Some(range) = network.ip_range {
                    config["IPRange"] = json!(range);
                }
                (
                    self.members(network)?,
                    json!([config]),
                    json!({"com.docker.network.bridge.name": network.bridge}),
                    json!(network.labels),
                )
            }
            Listed::Host | Listed::None => (Map::new(), json!([]), json!({}), json!({})),
        };
        Ok(json!({
            "Name": found.name(), "Id": found.id(), "Created": found.created(), "Scope": "local", "Driver": found.driver(),
            "Internal": found.internal(), "Attachable": false, "Ingress": false, "EnableIPv6": false, "Labels": labels, "Containers": containers,
            "IPAM": {"Driver": "default", "Config": config}, "Options": options,
        }))
    }

    /// The containers of a network in docker's shape, by id.
    fn members(&self, network: &Network) -> Result<Map<String, Value>> {
        let mut members = Map::new();
        for (id, ip) in self.containers(&network.name)? {
            let mac = super::attach::inspect(&self.paths, &id)?
                .and_then(|(places, _)| places.into_iter().find(|place| place.ip == ip))
                .map_or_else(String::new, |place| place.mac.to_string());
            let member = json!({
                "Name": lease::name_of(&self.paths, &network.name, ip).unwrap_or_default(),
                "MacAddress": mac,
                "IPv4Address": format!("{ip}/{}", network.subnet.prefix_len()),
                "IPv6Address": "",
            });
            members.insert(id, member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{NetworkOptions, Paths};
    use super::*;

    #[test]
    fn the_networks_that_are_no_bridges_are_listed_and_found_too() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("root"), directory.path().join("state"));
        let networks = Networks::open(&paths).unwrap();
        let options = NetworkOptions {
            name: "a".into(),
            ..NetworkOptions::default()
        };
        networks.create(&options).unwrap();
        let listed = networks.listed().unwrap();
        let names: Vec<&str> = listed.iter().map(Listed::name).collect();
        assert_eq!(names, ["bridge", "host", "none", "a"]);
        for network in &listed {
            let id = network.id();
            for name in [network.name(), &id, &id[..12]] {
                let found = networks.inspect(name).unwrap();
                assert_eq!(
                    (&found["Id"], &found["Driver"]),
                    (&json!(id), &json!(network.driver()))
                );
            }
        }
        assert!(matches!(networks.inspect("nothing"), Err(Error::NotFound(_))));
        assert!(matches!(networks.inspect("cc"), Err(Error::NotFound(_))));
    }
}
