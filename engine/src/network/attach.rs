//! Joins a container to its networks and takes it off again.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::error::{Error, Result};
use super::model::{AttachRequest, Endpoint, EndpointStatus, Paths, PortMapping};

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
pub fn attach(_paths: &Paths, _request: &AttachRequest) -> Result<Attachment> {
    Err(Error::Unsupported("network attach".into()))
}

/// Takes a container off its networks and removes its namespace, from the records on disk alone. Calling it again, or for
/// a container that was never attached, does nothing.
pub fn detach(_paths: &Paths, _container_id: &str) -> Result<()> {
    Err(Error::Unsupported("network detach".into()))
}

/// What a container is attached to now; `None` when it is not attached.
pub fn inspect(
    _paths: &Paths,
    _container_id: &str,
) -> Result<Option<(Vec<EndpointStatus>, Vec<PortMapping>)>> {
    Err(Error::Unsupported("network inspect".into()))
}

/// Joins a running, attached container to one more network.
pub fn connect(_paths: &Paths, _container_id: &str, _endpoint: &Endpoint) -> Result<EndpointStatus> {
    Err(Error::Unsupported("network connect".into()))
}

/// Takes a running container off one network.
pub fn disconnect(_paths: &Paths, _container_id: &str, _network: &str) -> Result<()> {
    Err(Error::Unsupported("network disconnect".into()))
}

/// Makes an attached container known to its neighbours by another name.
pub fn rename(_paths: &Paths, _container_id: &str, _name: &str) -> Result<()> {
    Err(Error::Unsupported("network rename".into()))
}
