//! TAPs (Documentation/networking/tuntap.rst): Ethernet links whose other end is a descriptor.
#![allow(unsafe_code)] // ioctls that nobody has wrapped

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Where they come from.
pub const DEVICE: &str = "/dev/net/tun";

/// Frames alone, each with a `struct virtio_net_hdr` before it.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// A descriptor for a TAP of the calling thread's network namespace; which one, [`attach`] or [`create`] says. Reading it
/// does not block.
///
/// # Errors
///
/// `open(2)`'s, `ENOENT` or `ENXIO` where the kernel has no TAPs.
pub fn device() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(DEVICE)
}

/// Makes `device` the other end of the TAP called `name`. One that does not exist is made, and goes with the descriptor.
///
/// # Errors
///
/// `EBUSY` when somebody else is at its end, `EINVAL` when the link is no TAP or one with several queues, `EPERM`.
pub fn attach(device: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    set_interface(device, name, FLAGS)
}

/// Makes a TAP that stays when `device` is closed, until it is deleted as any link is. Only root may open it.
///
/// # Errors
///
/// `EBUSY` when there is a link of that name, `EPERM`.
pub fn create(device: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    set_interface(device, name, FLAGS | libc::IFF_TUN_EXCL)?;
    // Without an owner everybody may open it, and the device file is everybody's.
    set(device, libc::TUNSETOWNER, 0)?;
    // Last: until here it goes with its descriptor.
    set(device, libc::TUNSETPERSIST, 1)
}

fn set_interface(device: BorrowedFd<'_>, name: &str, flags: libc::c_int) -> io::Result<()> {
    let flags = u16::try_from(flags).expect("16 bits");
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags.cast_signed(),
        },
    };
    // The last byte stays zero. A name that does not fit must not become another.
    let place = &mut request.ifr_name[..libc::IFNAMSIZ - 1];
    if name.is_empty() || name.len() > place.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in place.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(done)
}

fn set(device: BorrowedFd<'_>, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: both requests take a number and no pointer.
    check(unsafe { libc::ioctl(device.as_raw_fd(), request, value) })
}

fn check(done: libc::c_int) -> io::Result<()> {
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
