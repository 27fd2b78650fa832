//! MicroVMs on the same networks as containers.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use berth_engine::network::{self, Endpoint, Error};
use berth_sys::tap;

use crate::host::*;

#[test]
fn microvms_and_containers_are_neighbours() {
    as_host(|host| {
        let (a, b) = (host.attach("aaaa"), host.boot("bbbb"));
        for (from, to) in [(&a, &b), (&b, &a)] {
            serve(&to.netns, 80);
            let ip = to.endpoints[0].ip;
            let seen = inside(&from.netns, move || call(ip, 80)).unwrap();
            assert_eq!(seen, from.endpoints[0].ip.to_string());
        }
        assert_eq!(call(b.endpoints[0].ip, 80).unwrap(), "10.77.0.1");
        let outside = Outside::join(host);
        serve(&outside.netns, 99);
        assert_eq!(
            inside(&b.netns, || call(Ipv4Addr::new(192, 0, 2, 2), 99)).unwrap(),
            "192.0.2.1"
        );
        network::detach(&host.paths, "bbbb").unwrap();
        network::detach(&host.paths, "bbbb").unwrap();
        network::detach(&host.paths, "aaaa").unwrap();
        host.assert_clean();
    });
}

#[test]
fn microvms_on_two_networks_are_apart() {
    as_host(|host| {
        host.create("red", false, None);
        let (a, b) = (
            host.boot("aaaa"),
            host.join(&in_vm(host.request("bbbb", &["red"]))),
        );
        let both = host.join(&in_vm(host.request("cccc", &["bridge", "red"])));
        for vm in [&a, &b, &both] {
            serve(&vm.netns, 80);
        }
        let reach = |from: &Joined, ip: Ipv4Addr| inside(&from.netns, move || call(ip, 80)).is_ok();
        assert!(!reach(&a, b.endpoints[0].ip), "into another network");
        assert!(!reach(&b, a.endpoints[0].ip), "into the default network");
        assert!(reach(&a, both.endpoints[0].ip));
        assert!(reach(&b, both.endpoints[1].ip));
        for id in ["aaaa", "bbbb", "cccc"] {
            network::detach(&host.paths, id).unwrap();
        }
        network::Networks::open(&host.paths)
            .unwrap()
            .prune(&|_| true)
            .unwrap();
        host.assert_clean();
    });
}

#[test]
fn a_microvm_keeps_the_networks_it_started_with() {
    as_host(|host| {
        host.create("red", false, None);
        let _a = host.boot("aaaa");
        let look = || sh("ip -o link | cut -d: -f2; nft list ruleset");
        let before = look();
        let red = Endpoint {
            network: "red".into(),
            ..Endpoint::default()
        };
        let refused = [
            network::connect(&host.paths, "aaaa", &red).map(drop),
            network::disconnect(&host.paths, "aaaa", "bridge"),
        ];
        for result in refused {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Unsupported(_)), "{error}");
        }
        assert_eq!(look(), before);
        assert!(!host.paths.state.join("networks/red/leases").exists());
        network::detach(&host.paths, "aaaa").unwrap();
        network::Networks::open(&host.paths)
            .unwrap()
            .prune(&|_| true)
            .unwrap();
        host.assert_clean();
    });
}

#[test]
fn without_networks_there_is_nothing() {
    as_host(|host| {
        let a = network::attach(&host.paths, &in_vm(host.request("aaaa", &[]))).unwrap();
        assert!(a.netns.is_none() && a.name_server.is_none() && a.name_server_address().is_none());
        assert_eq!(sh("ip -o link | wc -l").trim(), "1");
        assert!(!host.paths.netns("aaaa").exists());
        network::detach(&host.paths, "aaaa").unwrap();
        host.assert_clean();
    });
}

/// The device file may be everybody's, as Debian's is.
#[test]
fn a_tap_is_roots() {
    as_host(|host| {
        let a = network::attach(&host.paths, &in_vm(host.request("aaaa", &["bridge"]))).unwrap();
        let device = tap::device().unwrap();
        let link = a.endpoints[0].link.clone();
        let by_nobody = std::thread::spawn(move || {
            let nobody = rustix::process::Uid::from_raw(65534);
            // Of this thread alone; its capabilities go with it.
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            tap::attach(device.as_fd(), &link)
        });
        let error = by_nobody.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        let ours = tap::device().unwrap();
        tap::attach(ours.as_fd(), &a.endpoints[0].link).unwrap();
        network::detach(&host.paths, "aaaa").unwrap();
        host.assert_clean();
    });
}

/// As after a reboot of the records alone: the old monitor has the TAP open still.
#[test]
fn a_link_in_the_way_goes() {
    as_host(|host| {
        let old = host.boot("aaaa");
        let link = old.endpoints[0].link.clone();
        std::fs::remove_dir_all(host.paths.state.join("networks")).unwrap();
        let new = host.boot("aaaa");
        serve(&new.netns, 80);
        assert!(call(new.endpoints[0].ip, 80).is_ok());
        network::detach(&host.paths, "aaaa").unwrap();
        // A link of another kind is no better.
        sh(&format!("ip link add {link} type veth peer name other"));
        let again = host.boot("aaaa");
        serve(&again.netns, 80);
        assert!(call(again.endpoints[0].ip, 80).is_ok());
        network::detach(&host.paths, "aaaa").unwrap();
        host.assert_clean();
    });
}

#[test]
fn addresses_and_names_are_as_asked_for() {
    as_host(|host| {
        let mut request = in_vm(host.request("aaaa", &["bridge"]));
        request.networks[0] = Endpoint {
            network: "bridge".into(),
            ip: Some(Ipv4Addr::new(10, 77, 3, 4)),
            mac: Some("02:00:00:00:00:09".parse().unwrap()),
            aliases: vec!["db".into()],
        };
        let a = host.join(&request);
        let endpoint = &a.endpoints[0];
        assert_eq!(
            (endpoint.ip.to_string(), endpoint.mac.to_string()),
            ("10.77.3.4".into(), "02:00:00:00:00:09".into())
        );
        assert_eq!(endpoint.names, ["name-aaaa", "aaaa", "db"]);
        let b = host.attach("bbbb");
        serve(&b.netns, 80);
        let ip = b.endpoints[0].ip;
        assert_eq!(inside(&a.netns, move || call(ip, 80)).unwrap(), "10.77.3.4");
        network::detach(&host.paths, "aaaa").unwrap();
        network::detach(&host.paths, "bbbb").unwrap();
        host.assert_clean();
    });
}
