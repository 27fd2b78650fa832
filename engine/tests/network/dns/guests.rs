//! Names for microVMs: asked for at the gateway, answered by a shim on the host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use berth_engine::network;
use hickory_proto::rr::RecordType;

use super::asker::*;
use super::resolver::*;
use super::shim::Shim;
use crate::host::*;

/// How long nothing must come.
const SILENCE: Duration = Duration::from_millis(300);
const GATEWAY: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 1), 53);

/// Ports of the host that questions are led to, by protocol, from the rules.
fn ports(protocol: &str) -> Vec<u16> {
    let rules = sh("nft list map inet berth name_servers");
    let elements = rules.split("elements = {").nth(1).unwrap_or_default();
    let of_protocol = elements.split(',').filter(|element| element.contains(protocol));
    of_protocol
        .map(|element| {
            let port = element
                .split_whitespace()
                .rev()
                .find_map(|word| word.parse().ok());
            port.unwrap()
        })
        .collect()
}

#[test]
fn a_microvm_asks_its_gateway() {
    as_host(|host| {
        let world = Resolver::knowing(FIRST, [192, 0, 2, 80]);
        host_asks(host, &[FIRST]);
        let mut a = host.boot("aaaa");
        assert_eq!(a.name_server_address(), Some(GATEWAY.0));
        let shim = Shim::serve_guest(host, "aaaa", &mut a);
        let b = host.attach("bbbb");
        let mut c = host.boot("cccc");
        let _other = Shim::serve_guest(host, "cccc", &mut c);
        let found = |asker: &Joined, name: &str, ip: Ipv4Addr| {
            for transport in BOTH {
                let answer = ask_at(GATEWAY, &asker.netns, transport, &question(name, RecordType::A));
                assert_eq!(addresses(&answer), [ip], "{name} over {transport:?}");
            }
        };
        for bridged in ["1", "0"] {
            let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
            if Path::new(switch).exists() {
                std::fs::write(switch, bridged).unwrap();
            }
            found(&a, "name-bbbb", b.endpoints[0].ip);
            found(&a, "name-cccc", c.endpoints[0].ip);
            found(&c, "name-aaaa", a.endpoints[0].ip);
            found(&a, "host.berth.internal", GATEWAY.0);
            found(&a, "www.example.com", Ipv4Addr::new(192, 0, 2, 80));
        }
        assert!(!world.asked().is_empty() && shim.is_alive());
        // Containers find microVMs as they find each other.
        let _b = Shim::serve(host, "bbbb");
        let answer = ask(&b.netns, Transport::Udp, &question("name-aaaa", RecordType::A));
        assert_eq!(addresses(&answer), [a.endpoints[0].ip]);
        sh("nft flush ruleset");
        network::restore(&host.paths).unwrap();
        found(&a, "name-bbbb", b.endpoints[0].ip);
        network::detach(&host.paths, "aaaa").unwrap();
        assert_eq!(ports("tcp").len(), 1, "that of the other microVM");
        network::detach(&host.paths, "bbbb").unwrap();
        network::detach(&host.paths, "cccc").unwrap();
        host.assert_clean();
    });
}

#[test]
fn nobody_else_is_answered() {
    as_host(|host| {
        host_asks(host, &[FIRST]);
        let mut a = host.boot("aaaa");
        let _shim = Shim::serve_guest(host, "aaaa", &mut a);
        let (b, outside) = (host.attach("bbbb"), Outside::join(host));
        let (udp, tcp) = (ports("udp")[0], ports("tcp")[0]);
        let question = question("name-bbbb", RecordType::A).to_vec().unwrap();
        let is_answered = |netns: Option<&Path>, ip: Ipv4Addr, udp: u16, tcp: u16| {
            let question = question.clone();
            let attempt = move || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(SILENCE)).unwrap();
                let _ = socket.send_to(&question, (ip, udp));
                let over_udp = socket.recv(&mut [0; 512]).is_ok();
                // A connection is closed before a question is heard.
                let over_tcp = TcpStream::connect_timeout(&(ip, tcp).into(), SILENCE);
                let said = over_tcp.and_then(|mut stream| {
                    stream.set_read_timeout(Some(AGES))?;
                    stream.write_all(&framed(&question))?;
                    stream.read(&mut [0])
                });
                over_udp || said.is_ok_and(|length| length > 0)
            };
            match netns {
                Some(netns) => inside(netns, attempt),
                None => attempt(),
            }
        };
        let loopback = Ipv4Addr::new(127, 0, 0, 11);
        assert!(!is_answered(None, loopback, udp, tcp), "a user of the host");
        assert!(
            !is_answered(None, GATEWAY.0, 53, 53),
            "the host at its own gateway"
        );
        assert!(
            !is_answered(Some(&b.netns), GATEWAY.0, 53, 53),
            "a neighbour, as the microVM asks"
        );
        assert!(!is_answered(Some(&b.netns), GATEWAY.0, udp, tcp), "a neighbour");
        // As somebody who forges the microVM's address, from where the guard does not look.
        inside(&outside.netns, || {
            sh("ip addr add 10.77.0.2/32 dev lo; ip route add 10.77.0.1 via 192.0.2.1 src 10.77.0.2");
        });
        // Whatever the host has that would drop it is off, as on hosts with a service proxy.
        sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.up0.rp_filter=0");
        sh("sysctl -qw net.ipv4.conf.up0.route_localnet=1");
        let asked = Resolver::knowing(FIRST, [192, 0, 2, 80]);
        let forged = super::asker::question("www.example.com", RecordType::A);
        let forged = forged.to_vec().unwrap();
        inside(&outside.netns, move || {
            let socket = UdpSocket::bind("10.77.0.2:0").unwrap();
            socket.send_to(&forged, GATEWAY).unwrap();
        });
        // One that is answered comes after it.
        let honest = super::asker::question("www.example.org", RecordType::A);
        ask_at(GATEWAY, &a.netns, Transport::Udp, &honest);
        assert_eq!(asked.asked().len(), 1, "a forged question");
        network::detach(&host.paths, "aaaa").unwrap();
        network::detach(&host.paths, "bbbb").unwrap();
        host.assert_clean();
    });
}

#[test]
fn a_published_name_server_takes_no_questions_of_microvms() {
    as_host(|host| {
        let mut request = host.request("bbbb", &["bridge"]);
        for protocol in [network::Protocol::Udp, network::Protocol::Tcp] {
            request.ports.push(network::PortMapping {
                protocol,
                ..publish([0; 4], 53, 53)
            });
        }
        let b = host.join(&request);
        let theirs = inside(&b.netns, || {
            Resolver::knowing(Ipv4Addr::UNSPECIFIED, [192, 0, 2, 53])
        });
        let mut a = host.boot("aaaa");
        let _shim = Shim::serve_guest(host, "aaaa", &mut a);
        for transport in BOTH {
            let question = question("name-bbbb", RecordType::A);
            let answer = ask_at(GATEWAY, &a.netns, transport, &question);
            assert_eq!(addresses(&answer), [b.endpoints[0].ip]);
            // Others reach it there.
            let answer = ask_at(
                GATEWAY,
                Path::new("/proc/thread-self/ns/net"),
                transport,
                &question,
            );
            assert_eq!(addresses(&answer), [Ipv4Addr::new(192, 0, 2, 53)]);
        }
        assert_eq!(theirs.asked().len(), 2);
        network::detach(&host.paths, "aaaa").unwrap();
        network::detach(&host.paths, "bbbb").unwrap();
        host.assert_clean();
    });
}

/// The next microVM with that address may ask from a port that the last one asked from.
#[test]
fn questions_follow_the_address() {
    as_host(|host| {
        let _world = Resolver::knowing(FIRST, [192, 0, 2, 80]);
        host_asks(host, &[FIRST]);
        let mut request = in_vm(host.request("aaaa", &["bridge"]));
        request.networks[0].ip = Some(Ipv4Addr::new(10, 77, 0, 9));
        let keeps_the_tables = host.attach("bbbb");
        for _ in 0..2 {
            let mut a = host.join(&request);
            let _shim = Shim::serve_guest(host, "aaaa", &mut a);
            let question = question("name-bbbb", RecordType::A).to_vec().unwrap();
            let answer = inside(&a.netns, move || {
                let socket = UdpSocket::bind("0.0.0.0:4000").unwrap();
                socket.connect(GATEWAY).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.send(&question).unwrap();
                receive(&socket)
            });
            answer.unwrap();
            network::detach(&host.paths, "aaaa").unwrap();
        }
        drop(keeps_the_tables);
        network::detach(&host.paths, "bbbb").unwrap();
        host.assert_clean();
    });
}
