//! Feeding the kernel's random number generator, `random(4)`.

#![allow(unsafe_code)] // ioctls without a wrapper

use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags};

/// Longest seed of [`reseed`].
pub const SEED_MAX: usize = 4096;

/// Mixes `seed` in, counts every bit of it as random, and makes the generator draw new keys from its pool at once
/// (`RNDADDENTROPY`, `RNDRESEEDCRNG`).
///
/// # Errors
///
/// `EINVAL` for a seed that is empty or longer than [`SEED_MAX`]; `EPERM` without `CAP_SYS_ADMIN`.
pub fn reseed(seed: &[u8]) -> io::Result<()> {
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    /// `struct rand_pool_info` with room for the longest seed.
    #[repr(C)]
    struct Pool {
        bits: libc::c_int,
        bytes: libc::c_int,
        seed: [u8; SEED_MAX],
    }
    if seed.is_empty() || seed.len() > SEED_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let bytes = i32::try_from(seed.len()).map_err(io::Error::other)?;
    let mut pool = Pool {
        bits: bytes * 8,
        bytes,
        seed: [0; SEED_MAX],
    };
    pool.seed[..seed.len()].copy_from_slice(seed);
    let device = rustix::fs::open("/dev/urandom", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: the kernel reads `bytes` bytes of `seed`, which are there; the second call takes no argument.
    let rc = unsafe {
        match libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const pool) {
            0 => libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG),
            failed => failed,
        }
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_a_seed_from_root_and_bounds_hold() {
        for bad in [&[][..], &[0; SEED_MAX + 1]] {
            assert_eq!(reseed(bad).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        let mut seed = [0; 32];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).unwrap();
        match reseed(&seed) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => eprintln!("skipped: needs root"),
            Err(e) => panic!("{e}"),
        }
    }
}
