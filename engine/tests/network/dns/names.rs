//! Names of neighbours.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use berth_engine::network;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};

use super::asker::*;
use super::resolver::*;
use super::shim::Shim;
use crate::host::*;

const ID: &str = "0123456789abcdef";

#[test]
fn a_neighbour_is_found_by_name_alias_short_id_and_address() {
    as_host(|host| {
        let nobody = Resolver::failing(FIRST, ResponseCode::NXDomain);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let mut request = host.request(ID, &["bridge"]);
        request.networks[0].aliases = vec!["www".into(), "Mail.Example".into()];
        let ip = host.join(&request).endpoints[0].ip;
        let _shim = Shim::serve(host, "aaaa");
        for transport in BOTH {
            for name in [
                "name-0123456789abcdef",
                "NAME-0123456789ABCDEF.",
                "0123456789ab",
                "www",
                "mail.example",
            ] {
                let answer = ask(&a.netns, transport, &question(name, RecordType::A));
                assert_eq!(
                    addresses(&answer),
                    [IpAddr::from(ip)],
                    "{name} over {transport:?}"
                );
                assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
                assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
                // The name exists and has no such record; NXDOMAIN would say that there is no such name (RFC 8020).
                let answer = ask(&a.netns, transport, &question(name, RecordType::AAAA));
                assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
                assert!(answer.answers.is_empty());
            }
            let [x, y, z, w] = ip.octets();
            let pointer = question(&format!("{w}.{z}.{y}.{x}.in-addr.arpa"), RecordType::PTR);
            let answer = ask(&a.netns, transport, &pointer);
            let RData::PTR(name) = &answer.answers[0].data else {
                panic!("{answer:?}")
            };
            assert_eq!(name.0.to_string(), "name-0123456789abcdef.");
        }
        assert!(nobody.asked().is_empty(), "the world hears of neighbours");
        network::detach(&host.paths, ID).unwrap();
        let answer = ask(&a.netns, Transport::Udp, &question("www", RecordType::A));
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        network::detach(&host.paths, "aaaa").unwrap();
        host.assert_clean();
    });
}

#[test]
fn names_of_other_networks_are_not_visible() {
    as_host(|host| {
        let nobody = Resolver::failing(FIRST, ResponseCode::NXDomain);
        host_asks(host, &[FIRST]);
        host.create("red", false, None);
        let a = host.attach("aaaa");
        let b = host.join(&host.request("bbbb", &["red"]));
        let both = host.join(&host.request("cccc", &["bridge", "red"]));
        let shims = ["aaaa", "cccc"].map(|id| Shim::serve(host, id));
        let [x, y, z, w] = b.endpoints[0].ip.octets();
        let reverse = format!("{w}.{z}.{y}.{x}.in-addr.arpa");
        for (name, kind) in [
            ("name-bbbb", RecordType::A),
            ("bbbb", RecordType::A),
            (reverse.as_str(), RecordType::PTR),
        ] {
            let question = question(name, kind);
            let answer = ask(&a.netns, Transport::Udp, &question);
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
            assert_eq!(
                ask(&both.netns, Transport::Udp, &question).answers.len(),
                1,
                "{name}"
            );
        }
        assert_eq!(nobody.asked().len(), 3);
        drop(shims);
        for id in ["aaaa", "bbbb", "cccc"] {
            network::detach(&host.paths, id).unwrap();
        }
        network::Networks::open(&host.paths)
            .unwrap()
            .remove("red")
            .unwrap();
        host.assert_clean();
    });
}

/// A name that cannot be asked for is refused, not forgotten.
#[test]
fn a_name_nobody_could_ask_for_is_refused() {
    as_host(|host| {
        host.create("red", false, None);
        host.attach("aaaa");
        let long = "x".repeat(64);
        for alias in ["a b", "", "a..b", ".a", "a\n", "ä", long.as_str()] {
            let endpoint = network::Endpoint {
                network: "red".into(),
                aliases: vec!["good".into(), alias.into()],
                ..network::Endpoint::default()
            };
            let error = network::connect(&host.paths, "aaaa", &endpoint).unwrap_err();
            assert!(matches!(error, network::Error::Alias(_)), "{alias:?}: {error}");
        }
        let (endpoints, _) = network::inspect(&host.paths, "aaaa").unwrap().unwrap();
        assert_eq!(endpoints.len(), 1);
        network::detach(&host.paths, "aaaa").unwrap();
    });
}

#[test]
fn a_container_may_serve_names_itself() {
    as_host(|host| {
        let (a, b) = (host.attach("aaaa"), host.attach("bbbb"));
        let ip = a.endpoints[0].ip;
        let _shim = Shim::serve(host, "aaaa");
        let netns = a.netns.clone();
        let (udp, _tcp) = inside(&netns, || {
            (
                UdpSocket::bind("0.0.0.0:53").unwrap(),
                TcpListener::bind("0.0.0.0:53").unwrap(),
            )
        });
        std::thread::spawn(move || {
            let (_, from) = udp.recv_from(&mut [0; 512]).unwrap();
            udp.send_to(b"its own", from).unwrap();
        });
        for transport in BOTH {
            let answer = ask(&a.netns, transport, &question("name-bbbb", RecordType::A));
            assert_eq!(addresses(&answer), [IpAddr::from(b.endpoints[0].ip)]);
        }
        let heard = inside(&b.netns, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(AGES)).unwrap();
            socket.send_to(b"x", (ip, 53)).unwrap();
            receive(&socket).unwrap()
        });
        assert_eq!(heard, b"its own");
        network::detach(&host.paths, "aaaa").unwrap();
        network::detach(&host.paths, "bbbb").unwrap();
    });
}

#[test]
fn the_host_is_the_gateway_that_leads_outside() {
    as_host(|host| {
        host.create("inner", true, Some("198.51.100.0/24"));
        for (id, networks, gateway) in [
            ("aaaa", &["inner", "bridge"][..], [10, 77, 0, 1]),
            ("bbbb", &["inner"], [198, 51, 100, 1]),
        ] {
            let attached = host.join(&host.request(id, networks));
            let _shim = Shim::serve(host, id);
            let answer = ask(
                &attached.netns,
                Transport::Udp,
                &question("host.berth.internal", RecordType::A),
            );
            assert_eq!(
                addresses(&answer),
                [IpAddr::from(Ipv4Addr::from(gateway))],
                "{networks:?}"
            );
            network::detach(&host.paths, id).unwrap();
        }
    });
}
