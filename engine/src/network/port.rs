//! Published ports: the `-p` syntax and the sockets that keep host ports ours.

use super::error::{Error, Result};
use super::model::PortMapping;

/// Parses `[[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/tcp|/udp]` into one mapping a port.
pub fn parse(_text: &str) -> Result<Vec<PortMapping>> {
    Err(Error::Unsupported("published ports".into()))
}
