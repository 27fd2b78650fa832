//! Contents of the container's `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.

use super::error::{Error, Result};
use super::model::{DnsOptions, EndpointStatus};

/// `/etc/hosts`: loopback, the container's own addresses, `--add-host`.
#[must_use]
pub fn hosts(_hostname: &str, _endpoints: &[EndpointStatus], _dns: &DnsOptions) -> String {
    String::new()
}

/// `/etc/resolv.conf`: our name server when the container is on a network, the host's resolvers otherwise (`--network
/// host`). Reads the host's file.
pub fn resolv_conf(_endpoints: &[EndpointStatus], _dns: &DnsOptions) -> Result<String> {
    Err(Error::Unsupported("resolv.conf".into()))
}

/// `/etc/hostname`.
#[must_use]
pub fn hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}
