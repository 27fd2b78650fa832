//! The host's `/etc/resolv.conf`, read as the C library reads it (resolv.conf(5)).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::error::{Error, Result};

/// Where it is.
pub(super) const PATH: &str = "/etc/resolv.conf";
/// Where systemd-resolved keeps the resolvers behind its stub.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// The stub of systemd-resolved.
const STUB: &str = "127.0.0.53";

/// What a file says that berth uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// Addresses, with a zone where they have one, as they are written.
    pub(super) nameservers: Vec<String>,
    pub(super) search: Vec<String>,
    pub(super) options: Vec<String>,
}

impl ResolvConf {
    /// The host's; a host without one has said nothing.
    pub(super) fn of_host() -> Result<Self> {
        Self::load(PATH)
    }

    /// The one whose resolvers can be asked from a namespace other than the host's.
    pub(super) fn behind_stub(self) -> Result<Self> {
        if self.nameservers != [STUB] {
            return Ok(self);
        }
        let nameservers = Self::load(BEHIND_RESOLVED)?.nameservers;
        Ok(if nameservers.is_empty() {
            self
        } else {
            Self { nameservers, ..self }
        })
    }

    fn load(path: impl AsRef<Path>) -> Result<Self> {
        match fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::file("read", path.as_ref())(error)),
        }
    }

    /// Lines that are not understood are passed over, as the C library does.
    pub(super) fn parse(text: &str) -> Self {
        let is_comment = |word: &&str| word.starts_with(['#', ';']);
        let mut all = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().take_while(|word| !is_comment(word));
            let Some(keyword) = words.next() else { continue };
            let values = words.map(str::to_owned);
            match keyword {
                "nameserver" => all
                    .nameservers
                    .extend(values.take(1).filter_map(|word| nameserver(&word))),
                // Two names of one thing, of which the last counts.
                "search" | "domain" => {
                    let values: Vec<String> = values.collect();
                    if !values.is_empty() {
                        all.search = values;
                    }
                }
                "options" => all.options.extend(values),
                _ => {}
            }
        }
        all
    }

    /// Whom to ask: the name server of this machine when none is named.
    pub(super) fn servers_or_local(&self) -> Vec<SocketAddr> {
        if self.nameservers.is_empty() {
            return vec![(Ipv4Addr::LOCALHOST, 53).into()];
        }
        self.nameservers.iter().filter_map(|word| server(word)).collect()
    }
}

/// The address in a `nameserver` line; comments may touch it.
fn nameserver(word: &str) -> Option<String> {
    let word = word.split(['#', ';']).next()?;
    let address = word.split_once('%').map_or(word, |(address, _)| address);
    address.parse::<IpAddr>().ok().map(|_| word.to_owned())
}

/// Port 53 of a name server. A link-local address has the link it is on behind a percent sign, by name or number.
fn server(word: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse().ok()?, 53));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let link = zone.parse().ok().or_else(|| {
        let any = socket_with(
            AddressFamily::INET6,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .ok()?;
        netdevice::name_to_index(any, zone).ok()
    })?;
    Some(SocketAddrV6::new(address, 53, 0, link).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
        let ResolvConf {
            nameservers,
            search,
            options,
        } = ResolvConf::parse(text);
        (nameservers, search, options)
    }

    #[test]
    fn comments_and_what_is_no_address_are_passed_over() {
        let text = "# nameserver 192.0.2.1\n;nameserver 192.0.2.2\nnameserver 192.0.2.3 # ours\n\
                    nameserver\t192.0.2.4;x\nnameserver\nnameserver nonsense\nnameservers 192.0.2.5\n\
                    nameserver 2001:db8::1\nnameserver fe80::1%eth0\nsortlist 192.0.2.0\n";
        assert_eq!(
            parse(text).0,
            ["192.0.2.3", "192.0.2.4", "2001:db8::1", "fe80::1%eth0"]
        );
    }

    #[test]
    fn the_last_search_list_counts_and_options_add_up() {
        let text =
            "search a.test b.test # both\ndomain c.test\noptions ndots:2 edns0\noptions timeout:1\nsearch\n";
        let (_, search, options) = parse(text);
        assert_eq!(search, ["c.test"]);
        assert_eq!(options, ["ndots:2", "edns0", "timeout:1"]);
        assert_eq!(
            parse("domain c.test\nsearch a.test b.test\n").1,
            ["a.test", "b.test"]
        );
    }

    #[test]
    fn whom_to_ask() {
        let servers = |text| ResolvConf::parse(text).servers_or_local();
        assert_eq!(servers("search a.test\n"), [([127, 0, 0, 1], 53).into()]);
        assert_eq!(
            servers("nameserver ::1\n"),
            [SocketAddr::from((Ipv6Addr::LOCALHOST, 53))]
        );
        let [SocketAddr::V6(link)] = servers("nameserver fe80::1%lo\n")[..] else {
            panic!("one of IPv6")
        };
        assert_eq!(link.scope_id(), 1, "lo is the first link");
        assert_eq!(
            servers("nameserver fe80::1%7\n"),
            servers("nameserver fe80::1%7#x\n")
        );
        assert_eq!(servers("nameserver fe80::1%nolink\n"), []);
    }
}
