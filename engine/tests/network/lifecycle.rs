//! Attaching, detaching, and what goes wrong between.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;

use berth_engine::network::{self, Endpoint, Error, Networks};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::host::*;

#[test]
fn neighbours_talk_and_nothing_is_left_behind() {
    as_host(|host| {
        let (a, b) = (host.attach("aaaa"), host.attach("bbbb"));
        let ip = b.endpoints[0].ip;
        serve(&b.netns, 80);
        assert_eq!(
            inside(&a.netns, move || call(ip, 80)).unwrap(),
            a.endpoints[0].ip.to_string()
        );
        assert_eq!(call(ip, 80).unwrap(), "10.77.0.1");
        network::detach(&host.paths, "aaaa").unwrap();
        network::detach(&host.paths, "aaaa").unwrap();
        network::detach(&host.paths, "bbbb").unwrap();
        network::detach(&host.paths, "never").unwrap();
        host.assert_clean();
    });
}

#[test]
fn failures_leave_nothing() {
    as_host(|host| {
        let taken = TcpListener::bind("127.0.0.1:8080").unwrap();
        let mut request = host.request("aaaa", &["bridge"]);
        request.ports = vec![publish([127, 0, 0, 1], 8080, 80)];
        let error = network::attach(&host.paths, &request).unwrap_err();
        assert_eq!(error.to_string(), "port 8080/tcp on 127.0.0.1 is taken");
        drop(taken);
        host.assert_clean();
        // A link in the way, late in the attach: the second interface cannot have its name.
        host.create("small", false, Some("198.51.100.0/29"));
        request.networks.push(Endpoint {
            network: "small".into(),
            ip: Some(Ipv4Addr::new(198, 51, 100, 1)),
            ..Endpoint::default()
        });
        let error = network::attach(&host.paths, &request).unwrap_err();
        assert!(matches!(error, Error::AddressTaken { .. }), "{error}");
        host.assert_clean();
        // Five host addresses beside the gateway's; addresses come back last.
        let ids = ["a1", "a2", "a3", "a4", "a5"];
        for id in ids {
            host.join(&host.request(id, &["small"]));
        }
        let error = network::attach(&host.paths, &host.request("a6", &["small"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "network small has no free address left in 198.51.100.0/29"
        );
        network::detach(&host.paths, "a2").unwrap();
        network::detach(&host.paths, "a4").unwrap();
        let ip = |a: Joined| a.endpoints[0].ip;
        let again = ip(host.join(&host.request("a7", &["small"])));
        assert_eq!(again, Ipv4Addr::new(198, 51, 100, 3));
        // A lease whose record is lost, as after a crash between the two, is taken back.
        std::fs::write(
            host.paths.state.join("networks/small/leases/198.51.100.5"),
            "gone\ngone\n",
        )
        .unwrap();
        let reclaimed = ip(host.join(&host.request("a8", &["small"])));
        assert_eq!(reclaimed, Ipv4Addr::new(198, 51, 100, 5));
        for id in ids.into_iter().chain(["a7", "a8"]) {
            network::detach(&host.paths, id).unwrap();
        }
        host.assert_clean();
    });
}

#[test]
fn a_flushed_ruleset_comes_back_and_lost_state_is_cleaned() {
    as_host(|host| {
        let mut request = host.request("aaaa", &["bridge"]);
        request.ports = vec![publish([0; 4], 8080, 80)];
        let a = host.join(&request);
        serve(&a.netns, 80);
        let vm = host.boot("vmvm");
        for restore in [true, false] {
            sh("nft flush ruleset");
            assert!(call(Ipv4Addr::LOCALHOST, 8080).is_err());
            if restore {
                network::restore(&host.paths).unwrap();
            } else {
                host.attach("bbbb");
            }
            assert!(call(Ipv4Addr::LOCALHOST, 8080).is_ok(), "restore {restore}");
        }
        // The run state wiped without a reboot, all but the pinned namespaces.
        std::fs::remove_dir_all(host.paths.state.join("networks")).unwrap();
        drop(a);
        drop(vm);
        let again = host.join(&request);
        let _vm = host.boot("vmvm");
        serve(&again.netns, 80);
        assert!(call(Ipv4Addr::LOCALHOST, 8080).is_ok());
        for id in ["vmvm", "bbbb", "aaaa"] {
            network::detach(&host.paths, id).unwrap();
        }
        host.assert_clean();
    });
}

#[test]
fn twenty_at_once() {
    as_host(|host| {
        let home = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let mut ips = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..20)
                .map(|n| {
                    let home = &home;
                    scope.spawn(move || {
                        move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                        unshare(UnshareFlags::FS);
                        let id = format!("c{n:02}");
                        let mut last = Ipv4Addr::UNSPECIFIED;
                        for _ in 0..3 {
                            last = host.attach(&id).endpoints[0].ip;
                            network::detach(&host.paths, &id).unwrap();
                        }
                        host.attach(&id);
                        last
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect::<Vec<_>>()
        });
        ips.sort();
        let containers = Networks::open(&host.paths).unwrap().containers("bridge").unwrap();
        assert_eq!(containers.len(), 20);
        for (id, _) in containers {
            network::detach(&host.paths, &id).unwrap();
        }
        host.assert_clean();
    });
}

/// Administrators save and load the host's ruleset with nft(8), ours among it.
#[test]
fn nft_prints_and_loads_the_ruleset() {
    as_host(|host| {
        host.create("back", true, None);
        let mut request = host.request("aaaa", &["bridge", "back"]);
        request.ports = vec![publish([0; 4], 8080, 80), publish([127, 0, 0, 1], 8081, 80)];
        let a = host.join(&request);
        serve(&a.netns, 80);
        let vm = host.join(&in_vm(host.request("bbbb", &["bridge", "back"])));
        serve(&vm.netns, 80);
        let ip = vm.endpoints[0].ip;
        let saved = host.paths.root.join("saved.nft");
        let saved = saved.display();
        let ruleset = sh("nft list ruleset");
        assert!(ruleset.contains("10.77.0.0/16 . \"berth0\""), "{ruleset}");
        assert!(!ruleset.contains("\"\""), "a link name is lost: {ruleset}");
        sh(&format!(
            "nft list ruleset > {saved}; nft flush ruleset; nft -f {saved}"
        ));
        for port in [8080, 8081] {
            assert_eq!(call(Ipv4Addr::LOCALHOST, port).unwrap(), "10.77.0.1");
        }
        assert_eq!(inside(&a.netns, move || call(ip, 80)).unwrap(), "10.77.0.2");
        network::detach(&host.paths, "aaaa").unwrap();
        network::detach(&host.paths, "bbbb").unwrap();
        Networks::open(&host.paths).unwrap().prune(&|_| true).unwrap();
        host.assert_clean();
    });
}
