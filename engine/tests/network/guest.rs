//! What plays a microVM: a network namespace with nothing but loopback and, for each of its TAPs, a TAP of its own. Frames
//! go between the two as between a monitor's and its guest's kernel.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use berth_engine::network::EndpointStatus;
use berth_sys::tap;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::thread::UnshareFlags;

use crate::host::{Host, inside, sh, unshare};

/// The longest that comes without segmentation offload, with its header.
const FRAME_MAX: usize = 2048;

/// Runs until it is dropped, as a monitor that is killed.
pub(crate) struct Guest {
    pub(crate) netns: PathBuf,
    wires: Vec<Wire>,
}

impl Guest {
    /// Boots with these network cards and sets them up as berth-guest does.
    pub(crate) fn boot(host: &Host, id: &str, endpoints: &[EndpointStatus]) -> Self {
        // The one before may run yet.
        let names = (0..).map(|n| host.paths.root.join(format!("{id}-{n}")));
        let netns = names
            .into_iter()
            .find(|path| File::create_new(path).is_ok())
            .unwrap();
        let pin = netns.clone();
        std::thread::spawn(move || {
            unshare(UnshareFlags::NEWNET);
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &pin).unwrap();
            sh("ip link set lo up");
        })
        .join()
        .unwrap();
        let wires = endpoints.iter().map(|endpoint| Wire::lay(endpoint, &netns));
        let wires = wires.collect();
        if let Some(way_out) = endpoints.iter().find(|endpoint| !endpoint.internal) {
            let line = format!("ip route add default via {}", way_out.gateway);
            inside(&netns, move || sh(&line));
        }
        Self { netns, wires }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.wires.clear();
        // Who serves in there keeps it.
        let _ = rustix::mount::unmount(&self.netns, rustix::mount::UnmountFlags::DETACH);
    }
}

struct Wire {
    end: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    fn lay(endpoint: &EndpointStatus, netns: &Path) -> Self {
        let monitors = tap::device().unwrap();
        tap::attach(monitors.as_fd(), &endpoint.link).unwrap();
        let EndpointStatus {
            ifname,
            mac,
            ip,
            prefix,
            ..
        } = endpoint.clone();
        let guests = inside(netns, move || {
            let card = tap::device().unwrap();
            tap::attach(card.as_fd(), &ifname).unwrap();
            sh(&format!(
                "ip link set {ifname} address {mac} up && ip addr add {ip}/{prefix} dev {ifname}"
            ));
            card
        });
        let end = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let ended = end.try_clone().unwrap();
        let thread = Some(std::thread::spawn(move || carry(&monitors, &guests, &ended)));
        Self { end, thread }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        rustix::io::write(&self.end, &1_u64.to_ne_bytes()).unwrap();
        let _ = self.thread.take().unwrap().join();
    }
}

/// Until told to end, or one of them is deleted.
fn carry(one: &File, other: &File, end: &OwnedFd) {
    let mut frame = [0; FRAME_MAX];
    loop {
        let mut fds = [
            PollFd::new(one, PollFlags::IN),
            PollFd::new(other, PollFlags::IN),
            PollFd::new(end, PollFlags::IN),
        ];
        poll(&mut fds, None).unwrap();
        let [from_one, from_other, is_over] = [0, 1, 2].map(|n: usize| fds[n].revents());
        if !is_over.is_empty() || (from_one | from_other).intersects(PollFlags::ERR | PollFlags::HUP) {
            return;
        }
        for (is_ready, mut from, mut to) in [(from_one, one, other), (from_other, other, one)] {
            if is_ready.contains(PollFlags::IN)
                && let Ok(length) = from.read(&mut frame)
            {
                // A link that is down takes nothing, and a frame is lost.
                let _ = to.write(&frame[..length]);
            }
        }
    }
}
