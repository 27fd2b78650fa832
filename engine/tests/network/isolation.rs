//! Who cannot reach whom, and whose word is not believed.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use berth_engine::network::{self, Endpoint, Error, Networks};

use crate::host::*;

#[test]
fn loopback_of_the_host_is_not_reached_from_outside() {
    as_host(|host| {
        let outside = Outside::join(host);
        let a = host.attach("aaaa");
        let server = UdpSocket::bind("127.0.0.1:7777").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        for (netns, gateway) in [
            (outside.netns, "192.0.2.1 dev up1"),
            (a.netns, "10.77.0.1 dev eth0"),
        ] {
            inside(&netns, move || {
                sh("sysctl -qw net.ipv4.conf.all.route_localnet=1");
                sh(
                    "ip addr del 127.0.0.1/8 dev lo; ip route flush table local 127.0.0.0/8 2>/dev/null; true",
                );
                sh(&format!("ip route add 127.0.0.1 via {gateway}"));
                UdpSocket::bind("0.0.0.0:0")
                    .unwrap()
                    .send_to(b"x", "127.0.0.1:7777")
                    .unwrap();
            });
        }
        assert!(
            server.recv(&mut [0; 8]).is_err(),
            "a packet reached 127.0.0.1 from another link (CVE-2020-8558)"
        );
        network::detach(&host.paths, "aaaa").unwrap();
        host.assert_clean();
    });
}

#[test]
fn networks_are_apart() {
    as_host(|host| {
        host.create("red", false, None);
        host.create("blue", true, None);
        let outside = Outside::join(host);
        serve(&outside.netns, 99);
        let attach = |id, networks: &[&str]| host.join(&host.request(id, networks));
        let (a, b, c) = (
            attach("aaaa", &["bridge"]),
            attach("bbbb", &["red"]),
            attach("cccc", &["blue"]),
        );
        let d = attach("dddd", &["red", "blue"]);
        for attachment in [&a, &b, &c, &d] {
            serve(&attachment.netns, 80);
        }
        let reach = |from: &Joined, ip: Ipv4Addr, port| inside(&from.netns, move || call(ip, port)).is_ok();
        let ip = |of: &Joined| of.endpoints[0].ip;
        assert!(!reach(&a, ip(&b), 80), "into another network");
        assert!(!reach(&b, ip(&a), 80), "into the default network");
        assert!(!reach(&a, ip(&c), 80), "into an internal network");
        assert!(reach(&b, ip(&d), 80));
        assert!(reach(&c, d.endpoints[1].ip, 80));
        assert!(reach(&b, Ipv4Addr::new(192, 0, 2, 2), 99), "outside");
        assert!(
            !reach(&c, Ipv4Addr::new(192, 0, 2, 2), 99),
            "out of an internal network"
        );
        assert!(matches!(
            Networks::open(&host.paths).unwrap().remove("red"),
            Err(Error::InUse { .. })
        ));
        // Live changes.
        let endpoint = Endpoint {
            network: "red".into(),
            ..Endpoint::default()
        };
        let joined = network::connect(&host.paths, "aaaa", &endpoint).unwrap();
        assert_eq!(joined.ifname, "eth1");
        assert!(reach(&b, joined.ip, 80), "to the new address");
        assert!(reach(&a, ip(&b), 80), "from the new address");
        network::disconnect(&host.paths, "aaaa", "bridge").unwrap();
        assert!(
            reach(&a, Ipv4Addr::new(192, 0, 2, 2), 99),
            "by the network that is left"
        );
        network::disconnect(&host.paths, "aaaa", "red").unwrap();
        assert!(!reach(&a, ip(&b), 80));
        for id in ["aaaa", "bbbb", "cccc", "dddd"] {
            network::detach(&host.paths, id).unwrap();
        }
        assert_eq!(
            Networks::open(&host.paths).unwrap().prune(&|_| true).unwrap(),
            ["blue", "red"]
        );
        host.assert_clean();
    });
}

#[test]
fn addresses_of_others_are_not_believed() {
    for_both(|host, join| {
        let (a, b) = (join(host, "aaaa"), host.attach("bbbb"));
        let ip = b.endpoints[0].ip;
        serve(&b.netns, 80);
        assert!(inside(&a.netns, move || call(ip, 80)).is_ok());
        // Another IPv4 source, then another MAC.
        inside(&a.netns, || {
            sh("ip addr add 10.77.0.99/16 dev eth0; ip route add 10.77.0.3 dev eth0 src 10.77.0.99")
        });
        assert!(inside(&a.netns, move || call(ip, 80)).is_err(), "spoofed IP");
        inside(&a.netns, || {
            sh("ip route del 10.77.0.3 dev eth0; ip addr del 10.77.0.99/16 dev eth0")
        });
        assert!(inside(&a.netns, move || call(ip, 80)).is_ok());
        inside(&a.netns, || sh("ip link set eth0 address 02:00:00:00:00:09"));
        assert!(inside(&a.netns, move || call(ip, 80)).is_err(), "spoofed MAC");
        // A lie in ARP: the gateway's address at ours.
        inside(&b.netns, || sh("ip neigh flush all"));
        inside(&a.netns, || {
            sh("ip link set eth0 address 02:be:0a:4d:00:02; ip addr add 10.77.0.1/16 dev eth0");
            sh("sysctl -qw net.ipv4.conf.eth0.arp_notify=1; ip link set eth0 down; ip link set eth0 up")
        });
        inside(&b.netns, || call(Ipv4Addr::new(10, 77, 0, 1), 1)).unwrap_err();
        let neighbours = inside(&b.netns, || sh("ip neigh"));
        assert!(
            neighbours.contains("10.77.0.1 dev eth0 lladdr 02:be:0a:4d:00:01"),
            "{neighbours}"
        );
        assert_eq!(sh("cat /proc/sys/net/ipv6/conf/berth0/accept_ra").trim(), "0");
        network::detach(&host.paths, "aaaa").unwrap();
        network::detach(&host.paths, "bbbb").unwrap();
        host.assert_clean();
    });
}

#[test]
fn router_advertisements_stay_with_their_sender() {
    for_both(|host, join| {
        let (a, b) = (join(host, "aaaa"), host.attach("bbbb"));
        inside(&b.netns, || sh("sysctl -qw net.ipv6.conf.eth0.accept_ra=2"));
        inside(&a.netns, || sh("ip -6 addr add fe80::a/64 dev eth0 nodad"));
        let advertise = || inside(&a.netns, advertise);
        let believed = || inside(&b.netns, || sh("ip -6 route").contains("default"));
        // A frame that passes proves that the ports are open, and comes after the one that must not.
        advertise();
        serve(&b.netns, 80);
        let ip = b.endpoints[0].ip;
        inside(&a.netns, move || call(ip, 80)).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(!believed(), "a neighbour's router advertisement (CVE-2020-13401)");
        // Without the guard it would be.
        sh("nft flush chain bridge berth prerouting");
        for _ in 0..30 {
            advertise();
            std::thread::sleep(Duration::from_millis(100));
            if believed() {
                break;
            }
        }
        assert!(believed(), "the advertisement is one that hosts believe");
        network::detach(&host.paths, "aaaa").unwrap();
        network::detach(&host.paths, "bbbb").unwrap();
        host.assert_clean();
    });
}

/// Sends a router advertisement (RFC 4861 section 4.2) to all nodes.
fn advertise() {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};
    let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
    // Others than 255 are from beyond the link, and ignored.
    sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
    let link = sh("ip -o link show eth0 | cut -d: -f1");
    let link = link.trim().parse().unwrap();
    let index = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, link);
    let mut packet = [0_u8; 16];
    packet[0] = 134;
    packet[4] = 64;
    packet[6..8].copy_from_slice(&1800_u16.to_be_bytes());
    sendto(&socket, &packet, SendFlags::empty(), &index).unwrap();
}
