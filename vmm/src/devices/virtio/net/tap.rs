//! The host's side of a network interface: a TAP (Documentation/networking/tuntap.rst).
#![allow(unsafe_code)] // ioctls that nobody has wrapped

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use berth_sys::tap;

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
        let file = tap::device()
            .map_err(|e| io::Error::new(e.kind(), format!("cannot open {}: {e}", tap::DEVICE)))?;
        tap::attach(file.as_fd(), name).map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::EBUSY) => "another process has it open",
                Some(libc::EINVAL) => "it is no TAP, or one with several queues",
                _ => return error,
            };
            io::Error::new(error.kind(), why)
        })?;
        let tap = Tap { file };
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

    /// The same TAP once more.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn again(&self) -> io::Result<Tap> {
        let file = self.file.try_clone()?;
        Ok(Tap { file })
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
