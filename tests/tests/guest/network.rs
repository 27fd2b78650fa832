//! The guest's network as Setup asks for it, on TAPs of the test VM.

use std::net::IpAddr;
use std::process::Command;

use berth_guest::protocol::{Address, Interface, Request, Route, Setup, Stream};
use serde_json::json;

use crate::fixture::{INIT, Microvm, OUTPUT, config, setup};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn address(text: &str) -> Address {
    let (ip, prefix) = text.split_once('/').expect("a prefix");
    Address {
        ip: self::ip(ip),
        prefix: prefix.parse().expect("a number"),
    }
}

fn interface(mac: &str, name: &str, addresses: &[&str]) -> Interface {
    Interface {
        mac: mac.into(),
        name: name.into(),
        mtu: None,
        addresses: addresses.iter().map(|a| address(a)).collect(),
    }
}

#[test]
#[ignore = "runs in the test VM"]
fn interfaces_have_names_addresses_and_routes() {
    let script = "set -e
        for n in 0 1; do tunctl -t tap$n; echo 0 >/proc/sys/net/ipv6/conf/tap$n/accept_dad; ip link set tap$n up; done
        ip addr add 10.7.0.1/24 dev tap0; ip -6 addr add fd00:7::1/64 dev tap0
        ip addr add 192.0.2.1/32 dev lo";
    let made = Command::new("sh").args(["-c", script]).output().expect("a shell");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let boot = || {
        Microvm::boot_with(|config| {
            config["network-interfaces"] = json!([
                {"iface_id": "a", "host_dev_name": "tap0", "guest_mac": "06:00:AC:10:00:02"},
                {"iface_id": "b", "host_dev_name": "tap1", "guest_mac": "06:00:AC:10:00:03"},
            ]);
        })
    };
    let microvm = boot();
    // Each is called as the other was.
    let first = Interface {
        mtu: Some(1400),
        ..interface("06:00:ac:10:00:02", "eth1", &["10.7.0.2/24", "fd00:7::2/64"])
    };
    let wanted = Setup {
        interfaces: vec![first, interface("06:00:AC:10:00:03", "eth0", &["10.8.0.2/31"])],
        routes: vec![
            Route {
                to: address("192.0.2.0/24"),
                via: ip("10.7.0.1"),
            },
            Route {
                to: address("0.0.0.0/0"),
                via: ip("10.7.0.1"),
            },
            Route {
                to: address("::/0"),
                via: ip("fd00:7::1"),
            },
        ],
        ..setup()
    };
    microvm.order(&Request::Setup(Box::new(wanted)));
    let script = "ip addr show eth1; ip addr show eth0; ip route; ip -6 route show default
        ping -c 1 -W 20 10.7.0.1 >/dev/null && echo ping-4; ping -c 1 -W 20 fd00:7::1 >/dev/null && echo ping-6
        ping -c 1 -W 20 192.0.2.1 >/dev/null && echo ping-far";
    let mut wanted = config(&["sh", "-c", script]);
    for set in ["bounding", "effective", "permitted"] {
        let caps = wanted["process"]["capabilities"][set]
            .as_array_mut()
            .expect("capabilities");
        caps.push(json!("CAP_NET_RAW"));
    }
    microvm.run(&wanted, OUTPUT);
    let said = microvm.all(INIT, Stream::Stdout);
    for words in [
        "mtu 1400",
        "inet 10.7.0.2/24 brd 10.7.0.255 scope global eth1",
        "inet6 fd00:7::2/64 scope global",
        "inet 10.8.0.2/31",
        "default via 10.7.0.1 dev eth1",
        "192.0.2.0/24 via 10.7.0.1 dev eth1",
        "default via fd00:7::1 dev eth1",
        "ping-4",
        "ping-6",
        "ping-far",
    ] {
        assert!(said.contains(words), "no {words:?} in:\n{said}");
    }
    drop(microvm);

    let cases = [
        (
            Setup {
                interfaces: vec![interface("06:00:ac:10:00:09", "eth0", &[])],
                ..setup()
            },
            "interface eth0: no device has the address 06:00:ac:10:00:09",
        ),
        (
            Setup {
                routes: vec![Route {
                    to: address("0.0.0.0/0"),
                    via: ip("203.0.113.1"),
                }],
                ..setup()
            },
            "cannot set route to 0.0.0.0/0 through 203.0.113.1: Network is unreachable (os error 101)",
        ),
    ];
    for (wanted, why) in cases {
        assert_eq!(boot().refused(&Request::Setup(Box::new(wanted))), why);
    }
}
