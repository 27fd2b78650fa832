//! virtio-rng (virtio 1.2 §5.4): random numbers of the host's kernel for the guest's.

use std::os::fd::RawFd;
use std::time::Instant;

use rustix::rand::{GetRandomFlags, getrandom};
use vm_memory::GuestMemoryMmap;

use super::chain::{Chain, Malformed};
use super::device::{Active, Device};
use super::saved::Kept;
use super::throttle::Throttle;

const QUEUE_SIZE: u16 = 256;
/// The most bytes one request is given; who asks for more gets a part (virtio 1.2 §5.4.6.1). A guest cannot keep the event
/// loop for as long as 4 GiB of random numbers take.
const BYTES_MAX: usize = 64 << 10;

/// A source of random numbers as the guest sees it.
pub(crate) struct Rng {
    throttle: Throttle,
}

impl Rng {
    pub(crate) fn new(throttle: Throttle) -> Rng {
        Rng { throttle }
    }

    fn serve(&mut self, memory: &GuestMemoryMmap, mut chain: Chain) -> Result<Option<usize>, Malformed> {
        if chain.readable() > 0 {
            return Err(Malformed("a request for random numbers has something to say"));
        }
        let wanted = chain.writable().min(BYTES_MAX);
        if !self.throttle.allows(wanted as u64, Instant::now()) {
            return Ok(None);
        }
        let mut given = 0;
        let mut bytes = [0; 4096];
        while given < wanted {
            let part = bytes.len().min(wanted - given);
            // Without flags it waits for the kernel's first randomness, which a host that runs guests has had.
            match rustix::io::retry_on_intr(|| getrandom(&mut bytes[..part], GetRandomFlags::empty())) {
                Ok(length) => {
                    chain.write(memory, &bytes[..length])?;
                    given += length;
                }
                // The guest gets what there is.
                Err(_) => break,
            }
        }
        Ok(Some(given))
    }
}

impl Device for Rng {
    fn kind(&self) -> u32 {
        virtio_bindings::virtio_ids::VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn sources(&self) -> Vec<RawFd> {
        vec![self.throttle.timer()]
    }

    fn notified(&mut self, active: &mut Active, queue: usize) -> Result<(), Malformed> {
        active.drain(queue, |memory, chain| self.serve(memory, chain))
    }

    fn ready(&mut self, active: Option<&mut Active>, _timer: usize) -> Result<(), Malformed> {
        match active {
            Some(active) => self.notified(active, 0),
            None => Ok(()),
        }
    }

    fn save(&mut self) -> Result<Kept, &'static str> {
        Ok(Kept::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RateLimiter, TokenBucket};
    use crate::devices::virtio::driver::{BUFFERS, Descriptor, Driver, NEXT, WRITE};

    fn rng(limits: Option<RateLimiter>) -> Driver {
        Driver::start(Rng::new(Throttle::new(limits, Instant::now()).unwrap()))
    }

    /// How many bytes of a range are not zero.
    fn random(driver: &Driver, at: u64, length: usize) -> usize {
        let bytes = driver.bytes(at, length);
        bytes.iter().filter(|byte| **byte != 0).count()
    }

    #[test]
    fn every_byte_asked_for_is_random() {
        let mut driver = rng(None);
        driver.send(0, &[(BUFFERS, 1000, true), (BUFFERS + 0x1000, 9000, true)]);
        assert_eq!(driver.used(0), (1, 10_000));
        assert!(random(&driver, BUFFERS, 1000) > 900);
        assert_eq!(
            random(&driver, BUFFERS + 1000, 0x1000 - 1000),
            0,
            "what was not asked for"
        );
        assert!(random(&driver, BUFFERS + 0x1000 + 8000, 1000) > 900);
        let first = driver.bytes(BUFFERS, 64);
        driver.send(0, &[(BUFFERS, 64, true)]);
        assert_eq!(driver.used(0), (2, 64));
        assert_ne!(driver.bytes(BUFFERS, 64), first);
    }

    #[test]
    fn a_request_gets_no_more_than_64_kib() {
        let mut driver = rng(None);
        driver.send(0, &[(BUFFERS, 0x4_0000, true)]);
        assert_eq!(driver.used(0), (1, 0x1_0000));
        assert_eq!(random(&driver, BUFFERS + 0x1_0000, 0x3_0000), 0);
        // As many descriptors as there are, all of them the same large buffer.
        for number in 0..256 {
            let descriptor = Descriptor {
                at: BUFFERS,
                length: 0x4_0000,
                flags: if number < 255 { WRITE | NEXT } else { WRITE },
                next: number + 1,
            };
            driver.describe(0, number, descriptor);
        }
        driver.offer(0, 0);
        assert_eq!(driver.used(0), (2, 0x1_0000));
    }

    #[test]
    fn a_request_for_nothing_is_answered() {
        let mut driver = rng(None);
        driver.send(0, &[(BUFFERS, 0, true)]);
        assert_eq!((driver.used(0), driver.is_broken()), ((1, 0), false));
        driver.send(0, &[(BUFFERS, 0, true), (BUFFERS, 3, true), (BUFFERS, 0, true)]);
        assert_eq!(driver.used(0), (2, 3));
    }

    #[test]
    fn a_request_that_says_something_stops_the_device() {
        let mut driver = rng(None);
        driver.send(0, &[(BUFFERS, 8, false), (BUFFERS, 8, true)]);
        assert!(driver.is_broken());
        assert_eq!(driver.used(0).0, 0);
        driver.restart();
        driver.send(0, &[(BUFFERS, 8, true)]);
        assert_eq!(driver.used(0), (1, 8));
    }

    #[test]
    fn a_slowed_source_keeps_the_request() {
        let bucket = TokenBucket {
            size: 100,
            one_time_burst: None,
            refill_time: 1_000_000,
        };
        let limits = RateLimiter {
            bandwidth: Some(bucket),
            ops: None,
        };
        let mut driver = rng(Some(limits));
        driver.send(0, &[(BUFFERS, 100, true)]);
        assert_eq!(driver.used(0), (1, 100));
        driver.send(0, &[(BUFFERS, 100, true)]);
        assert_eq!((driver.used(0), driver.is_broken()), ((1, 100), false));
    }
}
