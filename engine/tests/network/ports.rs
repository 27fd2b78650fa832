//! Published ports.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use berth_engine::network::{self, AttachRequest, PortMapping, Protocol};

use crate::host::*;

#[test]
fn published_ports_of_containers_are_reached_from_everywhere_they_should() {
    as_host(|host| published_ports(host, host.request("aaaa", &["bridge"])));
}

#[test]
fn published_ports_of_microvms_are_reached_from_everywhere_they_should() {
    as_host(|host| published_ports(host, in_vm(host.request("aaaa", &["bridge"]))));
}

fn published_ports(host: &Host, mut request: AttachRequest) {
    let outside = Outside::join(host);
    request.ports = vec![
        publish([0; 4], 8080, 80),
        publish([127, 0, 0, 1], 8081, 80),
        publish([0; 4], 0, 80),
    ];
    let a = host.join(&request);
    serve(&a.netns, 80);
    let own = a.endpoints[0].ip;
    let b = host.attach("bbbb");
    let host_ip = Ipv4Addr::new(192, 0, 2, 1);
    assert_eq!(call(Ipv4Addr::LOCALHOST, 8080).unwrap(), "10.77.0.1");
    assert_eq!(call(Ipv4Addr::LOCALHOST, 8081).unwrap(), "10.77.0.1");
    assert_eq!(
        call(Ipv4Addr::LOCALHOST, a.ports[2].host_port).unwrap(),
        "10.77.0.1"
    );
    // From outside, with the caller's own address (CVE-2021-20199).
    assert_eq!(
        inside(&outside.netns, move || call(host_ip, 8080)).unwrap(),
        "192.0.2.2"
    );
    // Bound to 127.0.0.1: not from outside.
    assert!(inside(&outside.netns, move || call(host_ip, 8081)).is_err());
    // Not published: not by a hand-made route either.
    assert!(inside(&outside.netns, move || call(own, 80)).is_err());
    // From a neighbour and from the container itself, whether bridged frames pass the IP rules or not.
    for bridged in ["1", "0"] {
        let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if Path::new(switch).exists() {
            std::fs::write(switch, bridged).unwrap();
        }
        for netns in [&a.netns, &b.netns] {
            let seen = inside(netns, move || call(host_ip, 8080)).unwrap();
            assert_eq!(seen, "10.77.0.1", "bridge-nf-call-iptables {bridged}");
        }
    }
    // Out of the container: as the host.
    serve(&outside.netns, 99);
    assert_eq!(
        inside(&a.netns, || call(Ipv4Addr::new(192, 0, 2, 2), 99)).unwrap(),
        "192.0.2.1"
    );
    network::detach(&host.paths, "aaaa").unwrap();
    drop(a);
    assert!(call(Ipv4Addr::LOCALHOST, 8080).is_err());
    network::detach(&host.paths, "bbbb").unwrap();
    host.assert_clean();
}

/// Two UDP packets from one address, to a server before and to another after the port changed hands.
#[test]
fn a_udp_port_follows_its_container() {
    as_host(|host| {
        let outside = Outside::join(host);
        let caller = inside(&outside.netns, || {
            let socket = UdpSocket::bind("0.0.0.0:4000").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        });
        let ask = || {
            let mut buffer = [0; 16];
            caller.send_to(b"?", "192.0.2.1:5300").unwrap();
            let (length, from) = caller.recv_from(&mut buffer).unwrap();
            assert_eq!(from.to_string(), "192.0.2.1:5300");
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        // Nobody is there yet: an entry without translation.
        caller.send_to(b"?", "192.0.2.1:5300").unwrap();
        for id in ["aaaa", "bbbb"] {
            let mut request = host.request(id, &["bridge"]);
            request.ports = vec![PortMapping {
                protocol: Protocol::Udp,
                ..publish([0; 4], 5300, 53)
            }];
            let attachment = host.join(&request);
            let server = inside(&attachment.netns, || UdpSocket::bind("0.0.0.0:53").unwrap());
            let answer = std::thread::spawn(move || {
                let (_, peer) = server.recv_from(&mut [0; 16]).unwrap();
                server.send_to(id.as_bytes(), peer).unwrap();
            });
            assert_eq!(ask(), id);
            answer.join().unwrap();
            network::detach(&host.paths, id).unwrap();
        }
        host.assert_clean();
    });
}
