//! The network on the real kernel. Each test has a network namespace of its own that plays the host, so the machine's
//! links and rules are untouched, and a mount namespace, so nothing pinned outlives it.
#![allow(unsafe_code)] // unshare(2)

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_engine::network::{
    self, AttachRequest, Endpoint, Error, NetworkOptions, Networks, Paths, PortMapping, Protocol,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a refused connection is waited for; longer than the second after which a lost first packet is sent again.
const PATIENCE: Duration = Duration::from_millis(2500);

/// Runs `test` on a thread whose network namespace is new. Skips aloud without root.
fn as_host(test: impl FnOnce(&Host) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("BERTH_TESTS_STRICT").is_none(), "needs root");
        eprintln!("skipped: needs root");
        return;
    }
    let run = move || {
        unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS);
        let private =
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        sh("ip link set lo up");
        let directory = tempfile::tempdir().unwrap();
        let host = Host {
            paths: Paths::new(directory.path().join("root"), directory.path().join("state")),
        };
        Networks::open(&host.paths).unwrap();
        test(&host);
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn unshare(flags: UnshareFlags) {
    // SAFETY: neither flag shares or splits memory or descriptors.
    unsafe { unshare_unsafe(flags) }.unwrap();
}

fn sh(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

struct Host {
    paths: Paths,
}

impl Host {
    fn request(&self, id: &str, networks: &[&str]) -> AttachRequest {
        AttachRequest {
            container_id: id.into(),
            name: format!("name-{id}"),
            networks: networks
                .iter()
                .map(|name| Endpoint {
                    network: (*name).into(),
                    ..Endpoint::default()
                })
                .collect(),
            ..AttachRequest::default()
        }
    }

    fn attach(&self, id: &str) -> network::Attachment {
        network::attach(&self.paths, &self.request(id, &["bridge"])).unwrap()
    }

    fn create(&self, name: &str, internal: bool, subnet: Option<&str>) {
        let options = NetworkOptions {
            name: name.into(),
            internal,
            subnet: subnet.map(|subnet| subnet.parse().unwrap()),
            ..NetworkOptions::default()
        };
        Networks::open(&self.paths).unwrap().create(&options).unwrap();
    }

    /// No link but lo, no rule of ours, no pinned namespace, no lease, no record.
    fn assert_clean(&self) {
        let links = sh("ip -o link");
        assert!(
            !links.contains("berth0") && !links.contains(": br-") && !links.contains(": bv"),
            "{links}"
        );
        assert_eq!(sh("nft list tables"), "");
        for directory in [
            "netns",
            "networks/.attachments",
            "networks/bridge/leases",
            "networks/bridge/names",
        ] {
            let path = self.paths.state.join(directory);
            let left: Vec<_> = std::fs::read_dir(&path).into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "{left:?}");
        }
        // Others' mounts came along when the mount namespace was copied.
        let pins = self.paths.state.join("netns");
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains(pins.to_str().unwrap()), "{mounts}");
    }
}

/// Runs something inside a namespace, on a thread of its own.
fn inside<T: Send + 'static>(netns: &Path, action: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = std::fs::File::open(netns).unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        action()
    })
    .join()
    .unwrap()
}

/// A TCP server that answers each connection with the caller's address.
fn serve(netns: &Path, port: u16) {
    let listener = inside(netns, move || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

/// What the server saw as our address.
fn call(ip: Ipv4Addr, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((ip, port)), PATIENCE)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn publish(host_ip: [u8; 4], host_port: u16, container_port: u16) -> PortMapping {
    PortMapping {
        host_ip: host_ip.into(),
        host_port,
        container_port,
        protocol: Protocol::Tcp,
    }
}

/// A neighbour of the host at 192.0.2.2, the host being 192.0.2.1.
struct Outside {
    netns: PathBuf,
}

impl Outside {
    fn join(host: &Host) -> Self {
        let netns = host.paths.root.join("outside");
        std::fs::write(&netns, "").unwrap();
        let pin = netns.clone();
        std::thread::spawn(move || {
            unshare(UnshareFlags::NEWNET);
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &pin).unwrap();
        })
        .join()
        .unwrap();
        let name = netns.display();
        sh(
            "ip link add up0 type veth peer name up1 && ip addr add 192.0.2.1/24 dev up0 && ip link set up0 up",
        );
        sh(&format!("exec 9<{name}; ip link set up1 netns /proc/self/fd/9"));
        inside(&netns, || {
            sh("ip link set lo up; ip addr add 192.0.2.2/24 dev up1; ip link set up1 up");
            sh("ip route add default via 192.0.2.1");
        });
        Self { netns }
    }
}

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
fn published_ports_are_reached_from_everywhere_they_should() {
    as_host(|host| {
        let outside = Outside::join(host);
        let mut request = host.request("aaaa", &["bridge"]);
        request.ports = vec![
            publish([0; 4], 8080, 80),
            publish([127, 0, 0, 1], 8081, 80),
            publish([0; 4], 0, 80),
        ];
        let a = network::attach(&host.paths, &request).unwrap();
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
    });
}

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
        let attach =
            |id, networks: &[&str]| network::attach(&host.paths, &host.request(id, networks)).unwrap();
        let (a, b, c) = (
            attach("aaaa", &["bridge"]),
            attach("bbbb", &["red"]),
            attach("cccc", &["blue"]),
        );
        let d = attach("dddd", &["red", "blue"]);
        for attachment in [&a, &b, &c, &d] {
            serve(&attachment.netns, 80);
        }
        let reach = |from: &network::Attachment, ip: Ipv4Addr, port| {
            inside(&from.netns, move || call(ip, port)).is_ok()
        };
        let ip = |of: &network::Attachment| of.endpoints[0].ip;
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
            Networks::open(&host.paths).unwrap().prune().unwrap(),
            ["blue", "red"]
        );
        host.assert_clean();
    });
}

#[test]
fn addresses_of_others_are_not_believed() {
    as_host(|host| {
        let (a, b) = (host.attach("aaaa"), host.attach("bbbb"));
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
            network::attach(&host.paths, &host.request(id, &["small"])).unwrap();
        }
        let error = network::attach(&host.paths, &host.request("a6", &["small"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "network small has no free address left in 198.51.100.0/29"
        );
        network::detach(&host.paths, "a2").unwrap();
        network::detach(&host.paths, "a4").unwrap();
        let ip = |a: network::Attachment| a.endpoints[0].ip;
        let again = ip(network::attach(&host.paths, &host.request("a7", &["small"])).unwrap());
        assert_eq!(again, Ipv4Addr::new(198, 51, 100, 3));
        // A lease whose record is lost, as after a crash between the two, is taken back.
        std::fs::write(
            host.paths.state.join("networks/small/leases/198.51.100.5"),
            "gone\ngone\n",
        )
        .unwrap();
        let reclaimed = ip(network::attach(&host.paths, &host.request("a8", &["small"])).unwrap());
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
        let a = network::attach(&host.paths, &request).unwrap();
        serve(&a.netns, 80);
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
        let again = network::attach(&host.paths, &request).unwrap();
        serve(&again.netns, 80);
        assert!(call(Ipv4Addr::LOCALHOST, 8080).is_ok());
        network::detach(&host.paths, "bbbb").unwrap();
        network::detach(&host.paths, "aaaa").unwrap();
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
