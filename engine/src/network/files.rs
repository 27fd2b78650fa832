//! Contents of the container's `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::error::Result;
use super::model::{DnsOptions, EndpointStatus, HostTarget};

/// Where the name server of a container listens, in its own namespace.
pub const NAME_SERVER: &str = "127.0.0.11";

/// The file of the host; systemd-resolved keeps the real resolvers in the second one.
const HOST_FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// `/etc/hosts`: loopback, the container's own addresses, `--add-host`. A container on no network of ours is its own
/// host name at 127.0.0.1.
#[must_use]
pub fn hosts(hostname: &str, endpoints: &[EndpointStatus], dns: &DnsOptions) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    // The gateway of the first network stands for the host; without a network the host is where we are.
    let gateway = endpoints.first().map_or_else(
        || IpAddr::from([127, 0, 0, 1]),
        |endpoint| endpoint.gateway.into(),
    );
    for (name, target) in &dns.extra_hosts {
        let address = match target {
            HostTarget::Address(address) => *address,
            HostTarget::Gateway => gateway,
        };
        line(&mut text, &address.to_string(), name);
    }
    if endpoints.is_empty() {
        line(&mut text, "127.0.0.1", hostname);
    }
    for endpoint in endpoints {
        line(&mut text, &endpoint.ip.to_string(), hostname);
    }
    text
}

fn line(text: &mut String, address: &str, name: &str) {
    writeln!(text, "{address}\t{name}").expect("writing to a string does not fail");
}

/// `/etc/resolv.conf`: our name server when the container is on a network, the host's resolvers otherwise (`--network
/// host`). Reads the host's file; a host without one has no resolvers to give.
///
/// # Errors
/// None today; the signature leaves room for a host whose file cannot be read.
pub fn resolv_conf(endpoints: &[EndpointStatus], dns: &DnsOptions) -> Result<String> {
    let host = HOST_FILES.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    Ok(compose(&host[0], &host[1], !endpoints.is_empty(), dns))
}

/// The file from the host's two files, `is_served` when a name server of ours answers.
fn compose(host: &str, behind_resolved: &str, is_served: bool, dns: &DnsOptions) -> String {
    let values = |keyword: &str| -> Vec<&str> {
        host.lines()
            .filter_map(|line| line.trim().strip_prefix(keyword))
            .filter(|rest| rest.starts_with([' ', '\t']))
            .map(str::trim)
            .collect()
    };
    let mut text = String::new();
    if is_served {
        text = format!("nameserver {NAME_SERVER}\n");
    } else if dns.servers.is_empty() {
        let mut servers = values("nameserver");
        if servers == ["127.0.0.53"] {
            // The stub of systemd-resolved: with the host's network it answers too, but not over a restart of it.
            let real: Vec<&str> = behind_resolved
                .lines()
                .filter_map(|line| line.strip_prefix("nameserver "))
                .map(str::trim)
                .collect();
            if !real.is_empty() {
                servers = real;
            }
        }
        servers
            .iter()
            .for_each(|server| text.push_str(&format!("nameserver {server}\n")));
    } else {
        dns.servers
            .iter()
            .for_each(|server| text.push_str(&format!("nameserver {server}\n")));
    }
    let search = if dns.search.is_empty() {
        values("search").join(" ")
    } else {
        dns.search.join(" ")
    };
    // `--dns-search .` is docker's way to ask for no search list.
    if !search.is_empty() && search != "." {
        text.push_str(&format!("search {search}\n"));
    }
    let mut options = if dns.options.is_empty() {
        values("options").join(" ")
    } else {
        dns.options.join(" ")
    };
    if is_served && !options.contains("ndots") {
        // Names of neighbours have no dot: they are asked for as they are, first.
        options = format!("{options} ndots:0").trim().to_owned();
    }
    if !options.is_empty() {
        text.push_str(&format!("options {options}\n"));
    }
    text
}

/// `/etc/hostname`.
#[must_use]
pub fn hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str =
        "# made by hand\nnameserver 192.0.2.1\nnameserver\t192.0.2.2\nsearch a.test b.test\noptions edns0\n";

    #[test]
    fn a_served_container_asks_its_own_name_server() {
        let text = compose(HOST, "", true, &DnsOptions::default());
        assert_eq!(
            text,
            "nameserver 127.0.0.11\nsearch a.test b.test\noptions edns0 ndots:0\n"
        );
    }

    #[test]
    fn the_hosts_network_has_the_hosts_resolvers_or_those_asked_for() {
        let text = compose(HOST, "", false, &DnsOptions::default());
        assert_eq!(
            text,
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.test b.test\noptions edns0\n"
        );
        let asked = DnsOptions {
            servers: vec![[192, 0, 2, 9].into()],
            search: vec![".".into()],
            ..DnsOptions::default()
        };
        assert_eq!(
            compose(HOST, "", false, &asked),
            "nameserver 192.0.2.9\noptions edns0\n"
        );
        assert_eq!(
            compose(
                "nameserver 127.0.0.53\n",
                "nameserver 192.0.2.7\n",
                false,
                &DnsOptions::default()
            ),
            "nameserver 192.0.2.7\n"
        );
    }

    #[test]
    fn hosts_names_the_container_and_what_was_added() {
        let dns = DnsOptions {
            extra_hosts: vec![
                ("db".into(), HostTarget::Address([192, 0, 2, 5].into())),
                ("host.internal".into(), HostTarget::Gateway),
            ],
            ..DnsOptions::default()
        };
        let text = hosts("web", &[], &dns);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(
            text.contains("192.0.2.5\tdb\n") && text.contains("127.0.0.1\thost.internal\n"),
            "{text}"
        );
        assert!(text.ends_with("127.0.0.1\tweb\n"), "{text}");
    }
}
