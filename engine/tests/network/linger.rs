//! The second half of detaching: what stays for a moment, whom it keeps out, and who takes it down.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use berth_engine::network::{self, Endpoint, Error, Networks};

use crate::host::*;

/// Released on a thread of its own, as by a shim that then lingers.
fn released(host: &Host, id: &str) {
    drop(network::release(&host.paths, id).unwrap());
}

#[test]
fn a_released_container_is_gone_for_others_and_its_network_a_moment_later() {
    as_host(|host| {
        let mut request = host.request("aaaa", &["bridge"]);
        request.ports = vec![publish([0; 4], 8080, 80)];
        let a = host.join(&request);
        serve(&a.netns, 80);
        assert!(call(Ipv4Addr::LOCALHOST, 8080).is_ok());
        drop(a);
        released(host, "aaaa");
        TcpListener::bind("0.0.0.0:8080").expect("the port is free");
        assert!(
            Networks::open(&host.paths)
                .unwrap()
                .containers("bridge")
                .unwrap()
                .is_empty()
        );
        assert!(network::inspect(&host.paths, "aaaa").unwrap().is_none());
        assert!(
            sh("ip -o link").contains("berth0"),
            "the bridge waits for the next container"
        );
        network::linger(&host.paths).unwrap();
        host.assert_clean();
    });
}

#[test]
fn one_lingers_for_all_and_leaves_a_used_network_open() {
    as_host(|host| {
        host.attach("aaaa");
        let _b = host.attach("bbbb");
        released(host, "aaaa");
        let b_is_reached = |host: &Host| {
            let (endpoints, _) = network::inspect(&host.paths, "bbbb").unwrap().unwrap();
            serve(&host.paths.netns("bbbb"), 80);
            call(endpoints[0].ip, 80).is_ok()
        };
        network::linger(&host.paths).unwrap();
        assert!(b_is_reached(host));
        // Both end at about the same time: one process takes the closer's part, the other goes.
        host.attach("aaaa");
        released(host, "aaaa");
        released(host, "bbbb");
        let lingerers = std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| network::linger(&host.paths)));
            both.map(|thread| thread.join().unwrap().unwrap())
        });
        assert_eq!(lingerers.len(), 2);
        host.assert_clean();
    });
}

#[test]
fn a_container_comes_back_before_its_links_are_gone() {
    for_both(|host, join| {
        for _ in 0..5 {
            drop(join(host, "aaaa"));
            released(host, "aaaa");
        }
        let again = join(host, "aaaa");
        serve(&again.netns, 80);
        assert!(call(again.endpoints[0].ip, 80).is_ok());
        network::detach(&host.paths, "aaaa").unwrap();
        host.assert_clean();
    });
}

#[test]
fn addresses_come_back_when_they_are_needed() {
    as_host(|host| {
        host.create("small", false, Some("198.51.100.0/29"));
        for id in ["a1", "a2", "a3", "a4", "a5"] {
            host.join(&host.request(id, &["small"]));
            released(host, id);
        }
        // All five are on their way out; neither a sixth nor one that wants a certain address has to wait.
        host.join(&host.request("a6", &["small"]));
        released(host, "a6");
        let mut request = host.request("a7", &["small"]);
        request.networks[0].ip = Some(Ipv4Addr::new(198, 51, 100, 2));
        for _ in 0..2 {
            let a = host.join(&request);
            assert_eq!(a.endpoints[0].ip, Ipv4Addr::new(198, 51, 100, 2));
            released(host, "a7");
            request.container_id.push('x');
            released(host, "a7x");
        }
        network::linger(&host.paths).unwrap();
        host.assert_clean();
    });
}

#[test]
fn who_lives_on_in_a_released_namespace_can_send_nothing() {
    for_both(|host, join| {
        let mut a = join(host, "aaaa");
        // A microVM lives on as long as its monitor does.
        let _monitor = a.guest.take();
        let b = host.attach("bbbb");
        let (a_ip, b_ip) = (a.endpoints[0].ip, b.endpoints[0].ip);
        let heard = inside(&b.netns, move || {
            let socket = UdpSocket::bind((b_ip, 9)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket
        });
        // A process that joined the namespace and outlives its container; the socket keeps the namespace.
        let stays = inside(&a.netns, move || UdpSocket::bind((a_ip, 0)).unwrap());
        stays.send_to(b"before", (b_ip, 9)).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(heard.recv(&mut buffer).unwrap(), 6);
        // What must not come is not waited for as long as what must.
        heard.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        drop(a);
        released(host, "aaaa");
        let _ = stays.send_to(b"after", (b_ip, 9));
        assert!(
            heard.recv(&mut buffer).is_err(),
            "it spoke with an address it no longer has"
        );
        // Not even once somebody flushed the rules and they were written again.
        sh("nft flush ruleset");
        network::restore(&host.paths).unwrap();
        let _ = stays.send_to(b"after", (b_ip, 9));
        assert!(
            heard.recv(&mut buffer).is_err(),
            "the rules came back without its guard"
        );
        network::detach(&host.paths, "bbbb").unwrap();
        host.assert_clean();
    });
}

#[test]
fn what_a_killed_process_released_is_settled_by_the_next() {
    as_host(|host| {
        host.attach("aaaa");
        released(host, "aaaa");
        network::settle_abandoned(&host.paths).unwrap();
        host.assert_clean();
        // While somebody lingers it is theirs.
        host.attach("aaaa");
        released(host, "aaaa");
        std::thread::scope(|scope| {
            let lingerer = scope.spawn(|| network::linger(&host.paths));
            while !lingers(host) {
                std::thread::sleep(Duration::from_millis(5));
            }
            network::settle_abandoned(&host.paths).unwrap();
            assert!(sh("ip -o link").contains("berth0"));
            lingerer.join().unwrap().unwrap();
        });
        host.assert_clean();
    });
}

/// Somebody holds the closer's lock.
fn lingers(host: &Host) -> bool {
    let Ok(file) = std::fs::File::open(host.paths.state.join("networks/.closer")) else {
        return false;
    };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
}

#[test]
fn networks_are_closed_though_state_is_removed_meanwhile() {
    as_host(|host| {
        host.create("web", true, None);
        host.join(&host.request("aaaa", &["bridge", "web"]));
        host.join(&in_vm(host.request("bbbb", &["bridge", "web"])));
        released(host, "aaaa");
        released(host, "bbbb");
        std::thread::scope(|scope| {
            let lingerer = scope.spawn(|| network::linger(&host.paths));
            while !lingers(host) {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::fs::remove_dir_all(&host.paths.state).unwrap();
            lingerer.join().unwrap().unwrap();
        });
        host.assert_clean();
        assert!(!host.paths.state.exists(), "and nothing of it is made again");
    });
}

#[test]
fn a_network_is_removed_right_after_its_last_container() {
    as_host(|host| {
        host.create("web", false, None);
        host.join(&host.request("aaaa", &["web"]));
        let networks = Networks::open(&host.paths).unwrap();
        assert!(matches!(networks.remove("web"), Err(Error::InUse { .. })));
        released(host, "aaaa");
        networks.remove("web").unwrap();
        host.assert_clean();
        // A container may still join one network more while an address there is on its way back.
        host.create("tiny", false, Some("198.51.100.0/29"));
        for id in ["a1", "a2", "a3", "a4", "a5"] {
            host.join(&host.request(id, &["tiny"]));
            released(host, id);
        }
        let _a = host.attach("aaaa");
        let endpoint = Endpoint {
            network: "tiny".into(),
            ..Endpoint::default()
        };
        network::connect(&host.paths, "aaaa", &endpoint).unwrap();
        network::detach(&host.paths, "aaaa").unwrap();
        host.assert_clean();
    });
}
