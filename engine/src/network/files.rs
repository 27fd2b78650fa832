//! Contents of the container's `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.
//!
//! As docker has them: the container's own address has its host name in `/etc/hosts`; its name and aliases are for the
//! name server alone, which answers to neighbours. With the host's network a container has the host's own files.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::error::{Error, Result};
use super::model::{DnsOptions, EndpointStatus, HostTarget, primary};
use super::resolv_conf::{self, ResolvConf};

const HOSTS: &str = "/etc/hosts";
/// What every `/etc/hosts` begins with.
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                        ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// `/etc/hosts`: loopback, `--add-host`, the container's own addresses with its full host name and, if that has a domain,
/// its short one. A container on no network is its own host name at 127.0.0.1.
#[must_use]
pub fn hosts(
    hostname: &str,
    domainname: Option<&str>,
    endpoints: &[EndpointStatus],
    dns: &DnsOptions,
) -> String {
    let mut text = LOOPBACK.to_owned();
    added(&mut text, endpoints, dns);
    if endpoints.is_empty() {
        text.push_str(&own_line(Ipv4Addr::LOCALHOST, hostname, domainname));
    }
    for endpoint in endpoints {
        text.push_str(&own_line(endpoint.ip, hostname, domainname));
    }
    text
}

/// The line of `/etc/hosts` for one of the container's own addresses.
#[must_use]
pub fn own_line(ip: Ipv4Addr, hostname: &str, domainname: Option<&str>) -> String {
    let mut names = hostname.to_owned();
    if let Some(domain) = domainname.filter(|domain| !domain.is_empty()) {
        names = format!("{names}.{domain}");
    }
    if let Some((short, _)) = names.clone().split_once('.') {
        names = format!("{names} {short}");
    }
    format!("{ip}\t{names}\n")
}

/// `/etc/hosts` of a container with the host's network: the host's. What `--add-host` adds comes first, where it counts
/// over what the host says of the name.
///
/// # Errors
/// [`Error::File`] when the host's cannot be read; a host without one has loopback alone.
pub fn hosts_of_host(dns: &DnsOptions) -> Result<Vec<u8>> {
    let mut text = String::new();
    added(&mut text, &[], dns);
    let mut bytes = text.into_bytes();
    bytes.extend(read(HOSTS)?.unwrap_or_else(|| LOOPBACK.into()));
    Ok(bytes)
}

/// The lines of `--add-host`.
fn added(text: &mut String, endpoints: &[EndpointStatus], dns: &DnsOptions) {
    for (name, target) in &dns.extra_hosts {
        let address = match target {
            HostTarget::Address(address) => *address,
            // Without a network of its own the host is where the container is.
            HostTarget::Gateway => host_gateway(endpoints).unwrap_or(Ipv4Addr::LOCALHOST).into(),
        };
        line(text, &IpAddr::to_string(&address), name.as_str());
    }
}

/// The host as a container on these networks reaches it: at the gateway of its default route, or where there is none at
/// its first network's.
pub(super) fn host_gateway(endpoints: &[EndpointStatus]) -> Option<Ipv4Addr> {
    let nearest = primary(endpoints).or(endpoints.first());
    nearest.map(|endpoint| endpoint.gateway)
}

fn line(text: &mut String, address: &str, names: &str) {
    writeln!(text, "{address}\t{names}").expect("writing to a string does not fail");
}

/// `/etc/resolv.conf` of a container with networks or none: its name server, or where there is none the host's resolvers.
///
/// # Errors
/// [`Error::File`] when the host's cannot be read; a host without one has no resolvers to give.
pub fn resolv_conf(name_server: Option<Ipv4Addr>, dns: &DnsOptions) -> Result<String> {
    let host = ResolvConf::of_host()?.behind_stub()?;
    Ok(compose(host, name_server, dns))
}

/// `/etc/resolv.conf` of a container with the host's network: the host's to the byte, unless a flag says otherwise.
///
/// # Errors
/// [`Error::File`] when the host's cannot be read; a host without one has no resolvers to give.
pub fn resolv_conf_of_host(dns: &DnsOptions) -> Result<Vec<u8>> {
    let is_asked_for = !(dns.servers.is_empty() && dns.search.is_empty() && dns.options.is_empty());
    if is_asked_for {
        return Ok(compose(ResolvConf::of_host()?, None, dns).into_bytes());
    }
    Ok(read(resolv_conf::PATH)?.unwrap_or_default())
}

/// The host's with the flags over it, and with `ours` instead of its name servers.
fn compose(host: ResolvConf, ours: Option<Ipv4Addr>, dns: &DnsOptions) -> String {
    let words = |flag: &[super::Word], host: Vec<String>| -> Vec<String> {
        if flag.is_empty() {
            host
        } else {
            flag.iter().map(ToString::to_string).collect()
        }
    };
    let servers = if let Some(ours) = ours {
        vec![ours.to_string()]
    } else if dns.servers.is_empty() {
        host.nameservers
    } else {
        dns.servers.iter().map(ToString::to_string).collect()
    };
    let mut text: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    let mut search = words(&dns.search, host.search);
    // `--dns-search .` is docker's way to ask for no search list.
    search.retain(|domain| domain != ".");
    let mut options = words(&dns.options, host.options);
    if ours.is_some() {
        let dots = |option: &String| {
            option
                .strip_prefix("ndots:")
                .map(|count| count.parse::<u8>().is_ok())
        };
        options.retain(|option| dots(option) != Some(false));
        if !options.iter().any(|option| dots(option) == Some(true)) {
            // Names of neighbours have no dot: they are asked for as they are, first.
            options.push("ndots:0".to_owned());
        }
    }
    for (keyword, values) in [("search", search), ("options", options)] {
        if !values.is_empty() {
            text.push_str(&format!("{keyword} {}\n", values.join(" ")));
        }
    }
    text
}

/// `/etc/hostname`.
#[must_use]
pub fn hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

fn read(path: &str) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Mac, Word};

    const HOST: &str =
        "# made by hand\nnameserver 192.0.2.1\nnameserver\t192.0.2.2\nsearch a.test b.test\noptions edns0\n";

    const OURS: Option<Ipv4Addr> = Some(Ipv4Addr::new(127, 0, 0, 11));

    fn composed(host: &str, ours: Option<Ipv4Addr>, dns: &DnsOptions) -> String {
        compose(ResolvConf::parse(host), ours, dns)
    }

    fn words<const N: usize>(words: [&str; N]) -> Vec<Word> {
        words.map(|word| word.parse().expect("one word")).into()
    }

    fn endpoint(network: &str, internal: bool, ip: [u8; 4]) -> EndpointStatus {
        let [a, b, c, _] = ip;
        EndpointStatus {
            network: network.into(),
            bridge: "br".into(),
            ip: ip.into(),
            prefix: 24,
            gateway: [a, b, c, 1].into(),
            mac: Mac::of(ip.into()),
            ifname: "eth0".into(),
            link: "bv".into(),
            internal,
            names: vec!["container-name".into(), "alias".into()],
        }
    }

    #[test]
    fn a_served_container_asks_its_own_name_server() {
        assert_eq!(
            composed(HOST, OURS, &DnsOptions::default()),
            "nameserver 127.0.0.11\nsearch a.test b.test\noptions edns0 ndots:0\n"
        );
        let options = |text: &str| composed(text, OURS, &DnsOptions::default());
        for (host, ours) in [
            ("options ndots:3\n", "options ndots:3\n"),
            (
                "options ndots:\noptions ndots:x no-ndots:1\n",
                "options no-ndots:1 ndots:0\n",
            ),
        ] {
            assert_eq!(options(host), format!("nameserver 127.0.0.11\n{ours}"));
        }
    }

    #[test]
    fn without_a_name_server_of_ours_the_hosts_resolvers_or_those_asked_for() {
        assert_eq!(
            composed(HOST, None, &DnsOptions::default()),
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.test b.test\noptions edns0\n"
        );
        let asked = DnsOptions {
            servers: vec![[192, 0, 2, 9].into()],
            search: words(["."]),
            options: words(["rotate", "timeout:1"]),
            ..DnsOptions::default()
        };
        assert_eq!(
            composed(HOST, None, &asked),
            "nameserver 192.0.2.9\noptions rotate timeout:1\n"
        );
    }

    #[test]
    fn hosts_names_the_container_and_what_was_added() {
        let dns = DnsOptions {
            extra_hosts: vec![
                ("db".parse().unwrap(), HostTarget::Address([192, 0, 2, 5].into())),
                ("host.internal".parse().unwrap(), HostTarget::Gateway),
            ],
            ..DnsOptions::default()
        };
        let rest = |text: String| text.strip_prefix(LOOPBACK).expect("loopback first").to_owned();
        assert_eq!(
            rest(hosts("web", None, &[], &dns)),
            "192.0.2.5\tdb\n127.0.0.1\thost.internal\n127.0.0.1\tweb\n"
        );
        let on = [
            endpoint("inner", true, [10, 1, 0, 7]),
            endpoint("outer", false, [10, 2, 0, 7]),
        ];
        assert_eq!(
            rest(hosts("web.example.com", None, &on, &dns)),
            "192.0.2.5\tdb\n10.2.0.1\thost.internal\n\
             10.1.0.7\tweb.example.com web\n10.2.0.7\tweb.example.com web\n"
        );
        assert_eq!(
            rest(hosts(
                "web",
                Some("example.com"),
                &on[..1],
                &DnsOptions::default()
            )),
            "10.1.0.7\tweb.example.com web\n"
        );
        assert_eq!(host_gateway(&on[..1]), Some([10, 1, 0, 1].into()));
    }
}
