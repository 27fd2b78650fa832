//! Network interfaces.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Id, Named, RateLimiter};
use crate::error::{Error, Result};

/// The longest name of an interface on Linux (`IFNAMSIZ` without the closing zero).
const NAME_MAX: usize = 15;
/// What IPv4 asks of every link (RFC 791), the least virtio takes for a size.
const MTU_MIN: u16 = 68;

/// A network interface of the guest's, whose other end is a TAP on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// Its name in the API.
    pub iface_id: Id,
    /// The TAP's name.
    pub host_dev_name: String,
    /// The guest's address; its driver makes one up when there is none.
    pub guest_mac: Option<MacAddress>,
    /// The largest packet, told to the guest.
    pub mtu: Option<u16>,
    /// How much the guest may receive.
    pub rx_rate_limiter: Option<RateLimiter>,
    /// How much the guest may send.
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// What can be changed of an interface while the guest runs. What is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterfaceChange {
    /// Which interface.
    pub iface_id: Id,
    /// New limits of what the guest may receive.
    pub rx_rate_limiter: Option<RateLimiter>,
    /// New limits of what the guest may send.
    pub tx_rate_limiter: Option<RateLimiter>,
}

impl Named for NetworkInterface {
    fn id(&self) -> &Id {
        &self.iface_id
    }
}

impl Named for NetworkInterfaceChange {
    fn id(&self) -> &Id {
        &self.iface_id
    }
}

impl NetworkInterface {
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |why: String| {
            Err(Error::Invalid {
                field: "network-interfaces",
                why: format!("{}: {why}", self.iface_id),
            })
        };
        let name = &self.host_dev_name;
        if name.is_empty() || name.len() > NAME_MAX || name.contains(['/', '\0']) {
            return invalid(format!("{name:?} cannot be the name of an interface"));
        }
        match self.mtu {
            Some(mtu) if mtu < MTU_MIN => invalid(format!("an mtu of {mtu} is less than {MTU_MIN}")),
            _ => Ok(()),
        }
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<MacAddress, String> {
        let octet = |text: &str| {
            let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
        };
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        octets
            .and_then(|octets| octets.try_into().ok())
            .map(MacAddress)
            .ok_or_else(|| {
                format!("invalid MAC address {text:?}: it must be six hexadecimal octets with colons between")
            })
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> String {
        address.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_six_octets() {
        let parse = |text: &str| MacAddress::try_from(text.to_owned());
        let address = parse("06:00:AC:10:00:02").unwrap();
        assert_eq!(address.0, [6, 0, 0xac, 0x10, 0, 2]);
        assert_eq!(address.to_string(), "06:00:ac:10:00:02");
        for bad in [
            "",
            "06:00:ac:10:00",
            "06:00:ac:10:00:02:03",
            "6:0:ac:10:0:2",
            "+6:00:ac:10:00:02",
            "06-00",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
