//! Network definitions in `ROOT/networks`.

use super::error::{Error, Result};
use super::model::{Network, NetworkOptions, Paths};

/// The networks of one `ROOT`.
#[derive(Debug)]
pub struct Networks {
    paths: Paths,
}

impl Networks {
    /// Creates the directories when they are missing.
    pub fn open(paths: &Paths) -> Result<Self> {
        Ok(Self { paths: paths.clone() })
    }

    /// Defines a network; links come with its first container.
    pub fn create(&self, _options: &NetworkOptions) -> Result<Network> {
        let _ = &self.paths;
        Err(Error::Unsupported("network create".into()))
    }

    /// All networks that can be attached to, the default one first, then by name.
    pub fn list(&self) -> Result<Vec<Network>> {
        Err(Error::Unsupported("network list".into()))
    }

    /// One network by name or unique id prefix.
    pub fn get(&self, _name: &str) -> Result<Network> {
        Err(Error::Unsupported("network inspect".into()))
    }

    /// Ids of the containers attached to a network, with their addresses.
    pub fn containers(&self, _name: &str) -> Result<Vec<(String, std::net::Ipv4Addr)>> {
        Err(Error::Unsupported("network inspect".into()))
    }

    /// Forgets a network that has no containers.
    pub fn remove(&self, _name: &str) -> Result<()> {
        Err(Error::Unsupported("network remove".into()))
    }

    /// Forgets every user-defined network that has no containers, and removes links and tables that nobody uses.
    /// Returns the names of the forgotten.
    pub fn prune(&self) -> Result<Vec<String>> {
        Err(Error::Unsupported("network prune".into()))
    }
}
