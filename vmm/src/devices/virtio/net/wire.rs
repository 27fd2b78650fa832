//! The other end of a TAP, for tests: a network namespace of its own, and a packet socket in it.
#![allow(unsafe_code)] // packet sockets and interface flags, which nobody has wrapped

use std::io;
#[cfg(test)]
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, OwnedFd};

#[cfg(test)]
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::Tap;

pub(super) const NAME: &str = "tap0";
/// The header before each frame on the socket: that of virtio without the number of buffers.
pub(crate) const SOCKET_HEADER_LEN: usize = 10;

/// Runs `test` in a thread and network namespace of its own, with a TAP that is up. Skips aloud without root.
#[cfg(test)]
pub(super) fn with(test: impl FnOnce(Tap, Wire) + Send) {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("BERTH_TESTS_STRICT").is_none(), "needs root");
        eprintln!("skipped: needs root");
        return;
    }
    std::thread::scope(|scope| {
        let joined = scope
            .spawn(|| {
                let (tap, wire) = alone().expect("a TAP in a network namespace");
                test(tap, wire);
            })
            .join();
        if let Err(panic) = joined {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Takes this thread into a network namespace of its own, with a TAP that is up.
pub(crate) fn alone() -> io::Result<(Tap, Wire)> {
    // SAFETY: the flag touches neither descriptors nor anything another thread relies on.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    // Or the kernel talks to itself.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    let tap = Tap::open(NAME)?;
    Ok((tap, Wire::connect()?))
}

/// Somebody who sees and sends frames.
pub(crate) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    pub(super) fn connect() -> io::Result<Wire> {
        let every = u16::try_from(libc::ETH_P_ALL).expect("3").to_be();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Protocol::from_raw(u32::from(every).try_into().expect("not zero"));
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(protocol))?;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 },
        };
        for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
            *to = from.cast_signed();
        }
        let done = |result: libc::c_int| match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        let raw = socket.as_raw_fd();
        // SAFETY: each call reads or writes one structure that outlives it; the kernel filled the field that is read.
        unsafe {
            request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).expect("1");
            done(libc::ioctl(raw, libc::SIOCSIFFLAGS, &raw mut request))?;
            done(libc::ioctl(raw, libc::SIOCGIFINDEX, &raw mut request))?;
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("17");
            address.sll_protocol = every;
            address.sll_ifindex = request.ifr_ifru.ifru_ifindex;
            let length = u32::try_from(size_of_val(&address)).expect("20");
            done(libc::bind(raw, (&raw const address).cast(), length))?;
            // What this end sends is not what it sees.
            for option in [libc::PACKET_VNET_HDR, libc::PACKET_IGNORE_OUTGOING] {
                let on = 1_i32;
                let set = libc::setsockopt(raw, libc::SOL_PACKET, option, (&raw const on).cast(), 4);
                done(set)?;
            }
        }
        Ok(Wire { socket })
    }

    /// Sends a frame behind this header, if the kernel takes it.
    pub(crate) fn offer(&self, header: [u8; SOCKET_HEADER_LEN], frame: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.socket, &[&header[..], frame].concat())?)
    }

    /// The next frame, with its header, if it is there.
    pub(crate) fn receive_now(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 0x2_0000];
        match rustix::io::read(&self.socket, &mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                Some(bytes)
            }
            Err(rustix::io::Errno::AGAIN) => None,
            Err(e) => panic!("{e}"),
        }
    }
}

#[cfg(test)]
impl Wire {
    /// Sends a frame that has nothing undone.
    pub(super) fn send(&self, frame: &[u8]) {
        self.send_with([0; SOCKET_HEADER_LEN], frame);
    }

    /// Sends a frame behind this header.
    pub(super) fn send_with(&self, header: [u8; SOCKET_HEADER_LEN], frame: &[u8]) {
        assert_eq!(self.offer(header, frame).unwrap(), header.len() + frame.len());
    }

    /// The next frame, with its header, if there is one soon.
    pub(super) fn receive(&self) -> Option<Vec<u8>> {
        let soon = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&soon)).unwrap();
        self.receive_now()
    }
}
