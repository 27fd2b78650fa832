//! `AF_VSOCK` stream sockets, `vsock(7)`: between a virtual machine and its host.

#![allow(unsafe_code)] // rustix has no address of this family

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::net::addr::{SocketAddrArg, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// The host, as every guest calls it.
pub const CID_HOST: u32 = libc::VMADDR_CID_HOST;
/// This machine itself, where the loopback transport is there.
pub const CID_LOCAL: u32 = libc::VMADDR_CID_LOCAL;

/// Listens on a port, under every address this machine has. Close-on-exec, and does not block.
///
/// # Errors
///
/// `EAFNOSUPPORT` without the module `vsock`, `EADDRINUSE`.
pub fn listen(port: u32) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &Address::new(libc::VMADDR_CID_ANY, port))?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Takes one connection, close-on-exec and non-blocking, and the address it comes from.
///
/// # Errors
///
/// `EAGAIN` when there is none.
pub fn accept<Fd: AsFd>(listener: Fd) -> io::Result<(OwnedFd, u32)> {
    let mut from = Address::new(0, 0);
    let mut length = ADDRESS_LEN;
    // SAFETY: the kernel writes at most `length` bytes of an address of this family to `from`, of which every bit pattern is a
    // value, and the new descriptor is nobody else's.
    let socket = unsafe {
        let fd = libc::accept4(
            listener.as_fd().as_raw_fd(),
            (&raw mut from.0).cast(),
            &raw mut length,
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    Ok((socket, from.0.svm_cid))
}

/// Connects; blocks until the other side has answered, two seconds at most. Close-on-exec.
///
/// # Errors
///
/// `ECONNRESET` when nobody listens there, `ETIMEDOUT`, `ENODEV` without a device.
pub fn connect(cid: u32, port: u32) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::CLOEXEC)?;
    rustix::net::connect(&socket, &Address::new(cid, port))?;
    Ok(socket)
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::VSOCK,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

#[allow(clippy::cast_possible_truncation)] // sixteen
const ADDRESS_LEN: u32 = size_of::<libc::sockaddr_vm>() as u32;

struct Address(libc::sockaddr_vm);

impl Address {
    fn new(cid: u32, port: u32) -> Self {
        // SAFETY: all-zero is a valid sockaddr_vm: integers and padding the kernel wants zero.
        let mut raw: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        raw.svm_family = AddressFamily::VSOCK.as_raw();
        raw.svm_cid = cid;
        raw.svm_port = port;
        Address(raw)
    }
}

// SAFETY: the pointer is to a whole sockaddr_vm, which lives as long as the borrow of self, with its own size.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, u32) -> R) -> R {
        f((&raw const self.0).cast(), ADDRESS_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Where the kernel has the loopback transport (module `vsock_loopback`).
    #[test]
    fn a_connection_says_where_it_comes_from() {
        let port = 0x6265_0000 | (std::process::id() & 0xffff);
        let Ok(listener) = listen(port) else {
            eprintln!("skipped: no AF_VSOCK");
            return;
        };
        assert_eq!(accept(&listener).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let Ok(mut ours) = connect(CID_LOCAL, port).map(std::fs::File::from) else {
            eprintln!("skipped: no loopback transport");
            return;
        };
        assert!(crate::readiness::readable_within(&listener, None).unwrap());
        let (theirs, cid) = accept(&listener).unwrap();
        assert_eq!(cid, CID_LOCAL);
        rustix::io::write(&theirs, b"word").unwrap();
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(said, "word");
        assert!(ours.write(b"late").is_err());
    }
}
