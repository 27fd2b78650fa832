//! The host's side of a network interface: a TAP (Documentation/networking/tuntap.rst).
#![allow(unsafe_code)] // ioctls that nobody has wrapped

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::HEADER_LEN;

/// What a TAP may leave to who reads from it: checksums, and cutting what is larger than a frame.
pub(super) const OFFLOADS: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN | libc::TUN_F_UFO;

/// An open TAP. Frames read from it and written to it have the header of virtio 1.2 §5.1.6 before them.
#[derive(Debug)]
pub(crate) struct Tap {
    file: File,
}

impl Tap {
    /// Opens the TAP called `name`, or makes one that goes with this process when there is none: its addresses and bridge
    /// are the caller's affair, either way.
    ///
    /// # Errors
    ///
    /// When it cannot be had; the text says why, without its name.
    pub(crate) fn open(name: &str) -> io::Result<Tap> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|e| io::Error::new(e.kind(), format!("cannot open /dev/net/tun: {e}")))?;
        let tap = Tap { file };
        tap.attach(name)?;
        let length = libc::c_int::try_from(HEADER_LEN).expect("12");
        // SAFETY: the kernel reads one int from a place that outlives the call.
        let done = unsafe { libc::ioctl(tap.file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        // What the guest's driver may ask for later works now or never. Until it does nothing is left to it.
        tap.set_offloads(OFFLOADS)?;
        tap.set_offloads(0)?;
        Ok(tap)
    }

    fn attach(&self, name: &str) -> io::Result<()> {
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: libc::c_short::try_from(flags)
                    .expect("16 bits, the first of which is none of ours"),
            },
        };
        // Checked to be shorter, so that a zero stays at the end.
        for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1]
            .iter_mut()
            .zip(name.bytes())
        {
            *to = from.cast_signed();
        }
        // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if done >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        let why = match error.raw_os_error() {
            Some(libc::EBUSY) => "another process has it open",
            Some(libc::EINVAL) => "it is no TAP, or one with several queues",
            _ => return Err(error),
        };
        Err(io::Error::new(error.kind(), why))
    }

    /// What may be left to the reader from now on, of [`OFFLOADS`].
    pub(super) fn set_offloads(&self, offloads: libc::c_uint) -> io::Result<()> {
        // SAFETY: this ioctl takes a number and no pointer.
        let done = unsafe {
            libc::ioctl(
                self.file.as_raw_fd(),
                libc::TUNSETOFFLOAD,
                libc::c_ulong::from(offloads),
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
