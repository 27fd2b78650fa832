//! A network namespace that plays the host, with neighbours, servers and callers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::guest::Guest;
use berth_engine::network::{
    self, AttachRequest, Endpoint, FarEnd, NetworkOptions, Networks, Paths, PortMapping, Protocol,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a refused connection is waited for; longer than the second after which a lost first packet is sent again.
pub(crate) const PATIENCE: Duration = Duration::from_millis(2500);

/// Runs `test` on a thread whose network namespace is new. Skips aloud without root.
pub(crate) fn as_host(test: impl FnOnce(&Host) + Send + 'static) {
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

/// Joins something to the default network.
type Join = fn(&Host, &str) -> Joined;

/// Runs `test` twice, on hosts of their own: with a function that joins containers to the default network, and with one
/// that joins microVMs.
pub(crate) fn for_both(test: fn(&Host, Join)) {
    as_host(move |host| test(host, Host::attach));
    as_host(move |host| test(host, Host::boot));
}

pub(crate) fn unshare(flags: UnshareFlags) {
    // SAFETY: neither flag shares or splits memory or descriptors.
    unsafe { unshare_unsafe(flags) }.unwrap();
}

pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) struct Host {
    pub(crate) paths: Paths,
}

impl Host {
    pub(crate) fn request(&self, id: &str, networks: &[&str]) -> AttachRequest {
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

    pub(crate) fn attach(&self, id: &str) -> Joined {
        self.join(&self.request(id, &["bridge"]))
    }

    /// Attaches; a microVM also boots.
    pub(crate) fn join(&self, request: &AttachRequest) -> Joined {
        let attachment = network::attach(&self.paths, request).unwrap();
        let guest = match request.far_end {
            FarEnd::MicroVm => Some(Guest::boot(self, &request.container_id, &attachment.endpoints)),
            _ => None,
        };
        let netns = match &guest {
            Some(guest) => guest.netns.clone(),
            None => attachment.netns.clone().unwrap(),
        };
        Joined {
            netns,
            attachment,
            guest,
        }
    }

    /// A microVM on the default network.
    pub(crate) fn boot(&self, id: &str) -> Joined {
        self.join(&in_vm(self.request(id, &["bridge"])))
    }

    pub(crate) fn create(&self, name: &str, internal: bool, subnet: Option<&str>) {
        let options = NetworkOptions {
            name: name.into(),
            internal,
            subnet: subnet.map(|subnet| subnet.parse().unwrap()),
            ..NetworkOptions::default()
        };
        Networks::open(&self.paths).unwrap().create(&options).unwrap();
    }

    /// No link but lo, no rule of ours, no pinned namespace, no lease, no record.
    pub(crate) fn assert_clean(&self) {
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

/// The same, in a microVM.
pub(crate) fn in_vm(request: AttachRequest) -> AttachRequest {
    AttachRequest {
        far_end: FarEnd::MicroVm,
        ..request
    }
}

/// A container on its networks.
pub(crate) struct Joined {
    /// The namespace it runs in, or that plays its microVM.
    pub(crate) netns: PathBuf,
    pub(crate) attachment: network::Attachment,
    pub(crate) guest: Option<Guest>,
}

impl std::ops::Deref for Joined {
    type Target = network::Attachment;

    fn deref(&self) -> &network::Attachment {
        &self.attachment
    }
}

/// Runs something inside a namespace, on a thread of its own.
pub(crate) fn inside<T: Send + 'static>(netns: &Path, action: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = std::fs::File::open(netns).unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        action()
    })
    .join()
    .unwrap()
}

/// A TCP server that answers each connection with the caller's address.
pub(crate) fn serve(netns: &Path, port: u16) {
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
pub(crate) fn call(ip: Ipv4Addr, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((ip, port)), PATIENCE)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn publish(host_ip: [u8; 4], host_port: u16, container_port: u16) -> PortMapping {
    PortMapping {
        host_ip: host_ip.into(),
        host_port,
        container_port,
        protocol: Protocol::Tcp,
    }
}

/// A neighbour of the host at 192.0.2.2, the host being 192.0.2.1.
pub(crate) struct Outside {
    pub(crate) netns: PathBuf,
}

impl Outside {
    pub(crate) fn join(host: &Host) -> Self {
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
