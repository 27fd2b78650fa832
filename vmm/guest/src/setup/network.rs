//! Interfaces, addresses and routes by `rtnetlink(7)`: all in one datagram, acknowledged one by one.
//!
//! Messages are written out here: the crate that the engine makes its many kinds with is a twentieth of this program's size.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use berth_sys::netlink::{Answer, Buffer, Connection, Subsystem};

use crate::error::{At, Error, Result};
use crate::protocol::{Address, Interface, Route};

/// Loopback is link 1 of every namespace (net/core/dev.h, LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;

/// Brings up loopback and these interfaces, with their addresses, then the routes.
pub(super) fn configure(interfaces: &[Interface], routes: &[Route]) -> Result<()> {
    let mut batch = Batch::new()?;
    batch.link(("bring up", "lo".into()), LOOPBACK, true, |_| {});
    let present = present()?;
    let mut wanted = Vec::with_capacity(interfaces.len());
    for interface in interfaces {
        let device = present
            .iter()
            .find(|d| d.mac.eq_ignore_ascii_case(&interface.mac));
        let device = device.ok_or_else(|| {
            Error::refused(
                format!("interface {}", interface.name),
                format!("no device has the address {}", interface.mac),
            )
        })?;
        wanted.push((interface, device));
    }
    // A name may still be another's that is to be renamed itself, so all give theirs up first.
    for (_, device) in wanted.iter().filter(|(i, d)| i.name != d.name) {
        let aside = format!("berth{}", device.index);
        batch.link(("rename", device.name.clone()), device.index, false, |link| {
            link.text(IFLA_IFNAME, &aside);
        });
    }
    for (interface, device) in wanted {
        batch.interface(interface, device.index)?;
    }
    for route in routes {
        batch.route(route)?;
    }
    batch.send()
}

/// A network device of this machine.
struct Device {
    name: String,
    mac: String,
    index: u32,
}

fn present() -> Result<Vec<Device>> {
    const CLASS: &str = "/sys/class/net";
    let mut found = Vec::new();
    for entry in std::fs::read_dir(CLASS).at("list", CLASS)? {
        let entry = entry.at("list", CLASS)?;
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file));
        // Not every entry is a device: bonding_masters is a file.
        let (Ok(mac), Ok(index)) = (read("address"), read("ifindex")) else {
            continue;
        };
        found.push(Device {
            name: entry.file_name().to_string_lossy().into_owned(),
            mac: mac.trim_end().to_owned(),
            index: index.trim_end().parse().unwrap_or(0),
        });
    }
    Ok(found)
}

/// Requests and, for each, what to say when it is refused.
struct Batch {
    connection: Connection,
    messages: Buffer,
    first: Option<u32>,
    labels: Vec<Label>,
}

/// Operation and object.
type Label = (&'static str, String);

impl Batch {
    fn new() -> Result<Batch> {
        Ok(Batch {
            connection: Connection::open(Subsystem::Route).at("open", "rtnetlink")?,
            messages: Buffer::default(),
            first: None,
            labels: Vec::new(),
        })
    }

    /// Adds a message of this kind; `header` is the fixed part of its body.
    fn add(&mut self, kind: u16, label: Label, header: &[u8], attributes: impl FnOnce(&mut Buffer)) {
        const REQUEST_ACK: u16 = 0x1 | 0x4;
        const CREATE_EXCL: u16 = 0x400 | 0x200;
        let flags = if kind == SET_LINK {
            REQUEST_ACK
        } else {
            REQUEST_ACK | CREATE_EXCL
        };
        let sequence = self.connection.next_sequence();
        self.first.get_or_insert(sequence);
        self.labels.push(label);
        let at = self.messages.bytes.len();
        // struct nlmsghdr: length, kind, flags, sequence, port.
        let bytes = &mut self.messages.bytes;
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(header);
        attributes(&mut self.messages);
        let length = u32::try_from(self.messages.bytes.len() - at).unwrap_or(u32::MAX);
        self.messages.bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Changes a link, and brings it up or down.
    fn link(&mut self, label: Label, index: u32, up: bool, attributes: impl FnOnce(&mut Buffer)) {
        // IFF_UP is bit 0.
        let (up, change) = (u32::from(up).to_ne_bytes(), 1_u32.to_ne_bytes());
        // struct ifinfomsg: family and type, index, flags, which flags change.
        let header = [[0; 4], index.to_ne_bytes(), up, change].concat();
        self.add(SET_LINK, label, &header, attributes);
    }

    fn interface(&mut self, interface: &Interface, index: u32) -> Result<()> {
        let label = ("bring up", interface.name.clone());
        self.link(label, index, true, |link| {
            link.text(IFLA_IFNAME, &interface.name);
            if let Some(mtu) = interface.mtu {
                link.put(IFLA_MTU, &mtu.to_ne_bytes());
            }
        });
        for address in &interface.addresses {
            self.address(index, address)?;
        }
        Ok(())
    }

    fn address(&mut self, index: u32, address: &Address) -> Result<()> {
        let Address { ip, prefix } = *address;
        check_prefix(address)?;
        // struct ifaddrmsg: family, prefix, flags, scope, index.
        let [a, b, c, d] = index.to_ne_bytes();
        let header = [family(&ip), prefix, 0, 0, a, b, c, d];
        let label = ("set", format!("address {ip}/{prefix}"));
        self.add(NEW_ADDRESS, label, &header, |message| {
            message.put(IFA_LOCAL, &octets(&ip));
            message.put(IFA_ADDRESS, &octets(&ip));
            match ip {
                IpAddr::V4(ip) => {
                    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                    let broadcast = Ipv4Addr::from(u32::from(ip) | host_bits);
                    message.put(IFA_BROADCAST, &broadcast.octets());
                }
                // The host gave it to nobody else: it may be used at once.
                IpAddr::V6(_) => message.put(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes()),
            }
        });
        Ok(())
    }

    fn route(&mut self, route: &Route) -> Result<()> {
        let Route { to, via } = route;
        check_prefix(to)?;
        // struct rtmsg: family, prefixes of destination and source, tos, table main, protocol boot, scope universe, type
        // unicast, flags.
        let header = [family(via), to.prefix, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        let label = ("set", format!("route to {}/{} through {via}", to.ip, to.prefix));
        self.add(NEW_ROUTE, label, &header, |message| {
            if to.prefix > 0 {
                message.put(RTA_DST, &octets(&to.ip));
            }
            message.put(RTA_GATEWAY, &octets(via));
        });
        Ok(())
    }

    /// The first refusal is the error, though the kernel still tried the rest.
    fn send(mut self) -> Result<()> {
        let (first, count) = (self.first.unwrap_or_default(), self.labels.len());
        let (mut answered, mut refused) = (0, None);
        let exchanged = self.connection.exchange(&self.messages.bytes, |answer| {
            if let Answer::Ack { sequence, errno } = answer {
                let request = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                answered += usize::from(request < count);
                if errno != 0 && refused.is_none() {
                    refused = self.labels.get(request).map(|label| (label, errno));
                }
            }
            answered == count
        });
        exchanged.at("configure", "the network")?;
        match refused {
            Some(((operation, object), errno)) => {
                Err(io::Error::from_raw_os_error(errno)).at(operation, object)
            }
            None => Ok(()),
        }
    }
}

const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;

fn check_prefix(address: &Address) -> Result<()> {
    let longest = if address.ip.is_ipv4() { 32 } else { 128 };
    if address.prefix > longest {
        return Err(Error::refused(
            format!("prefix {}/{}", address.ip, address.prefix),
            format!("at most {longest}"),
        ));
    }
    Ok(())
}

/// `AF_INET` or `AF_INET6`.
fn family(ip: &IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
