//! virtio-net: frames that are none, in both directions, through a TAP of the kernel's in a network namespace of its own.

use std::cell::OnceCell;

use berth_vmm::config::{RateLimiter, TokenBucket};
use berth_vmm::fuzzing::{Network, VirtioDevice};
use vm_memory::GuestMemoryMmap;

use crate::driver::{Driver, memory};
use crate::input::Input;
use crate::play::{Kind, play};

const RX: u32 = 0;
const TX: u32 = 1;
/// Before each frame, for the guest and for the packet socket.
const HEADER: usize = 12;
const SOCKET_HEADER: usize = 10;
/// Its destination is everybody, and its protocol one nobody has.
const FRAME: [u8; 60] = {
    let mut frame = [0xff; 60];
    (frame[12], frame[13]) = (0x88, 0xb5);
    frame
};

thread_local! {
    /// None without root.
    static NETWORK: OnceCell<Option<Network>> = const { OnceCell::new() };
}

struct Net<'a> {
    network: &'a Network,
    mtu: Option<u16>,
    limits: Option<RateLimiter>,
}

impl Net<'_> {
    fn device(&self, memory: &GuestMemoryMmap) -> VirtioDevice {
        VirtioDevice::net(self.network, self.mtu, self.limits, memory).expect("a network card")
    }
}

/// A header: most often one that leaves nothing undone.
fn header<const N: usize>(input: &mut Input<'_>) -> [u8; N] {
    let mut header = [0; N];
    if input.flag() {
        let said = input.bytes(N);
        header[..said.len()].copy_from_slice(said);
    }
    header
}

fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let mut frame = FRAME.to_vec();
    let said = input.below(40);
    let at = 12 + input.below(30);
    let said = input.bytes(said.min(frame.len() - at.min(frame.len())));
    let at = at.min(frame.len() - said.len());
    frame[at..at + said.len()].copy_from_slice(said);
    match input.byte() % 8 {
        0 => frame.resize(usize::from(input.u16()), 0x5a),
        1 => frame.resize(1514, 0x5a),
        _ => {}
    }
    frame
}

impl Kind for Net<'_> {
    fn request(&mut self, input: &mut Input<'_>, queue: u32) -> (Vec<u8>, Vec<u32>) {
        if queue == RX {
            let count = 1 + input.below(3);
            let room = (0..count).map(|_| input.one_of(&[12, 1526, 65_562, 2048, 100, 0]));
            return (Vec::new(), room.collect());
        }
        let mut said = header::<HEADER>(input).to_vec();
        said.extend(frame(input));
        if input.byte() < 16 {
            said.truncate(input.byte().into());
        }
        (said, Vec::new())
    }

    fn outside(&mut self, input: &mut Input<'_>, driver: &mut Driver) {
        match input.byte() % 8 {
            0 if self.limits.is_some() => {
                let bucket = |size: u16| TokenBucket {
                    size: size.into(),
                    one_time_burst: None,
                    refill_time: 1,
                };
                driver.device.change_limits(RateLimiter {
                    bandwidth: Some(bucket(input.u16())),
                    ops: Some(bucket(input.u16())),
                });
            }
            1 => {
                let _ = self.network.receive();
            }
            _ => {
                let header = header::<SOCKET_HEADER>(input);
                let _ = self.network.send(header, &frame(input));
            }
        }
    }

    fn answered(&self) -> &[u32] {
        if self.limits.is_some() { &[] } else { &[TX] }
    }

    /// A frame each way.
    fn works(&mut self, driver: &mut Driver) {
        let nothing = TokenBucket {
            size: 0,
            one_time_burst: None,
            refill_time: 0,
        };
        driver.device.change_limits(RateLimiter {
            bandwidth: Some(nothing),
            ops: Some(nothing),
        });
        driver.start(0, 0b11);
        self.network.drain();
        driver.put(TX, &[&[0; HEADER][..], &FRAME].concat(), 1, &[], false);
        driver.check_used(TX);
        let sent = self.network.receive().expect("the frame that was sent");
        assert_eq!(sent[SOCKET_HEADER..], FRAME);
        driver.put(RX, &[], 1, &[2048], false);
        assert!(
            self.network.send([0; SOCKET_HEADER], &FRAME),
            "a frame for the guest"
        );
        driver.check_used(RX);
        assert_eq!((driver.used(RX), driver.is_broken()), ((1, 72), false));
    }

    fn again(&mut self, memory: &GuestMemoryMmap) -> Option<VirtioDevice> {
        Some(self.device(memory))
    }
}

/// A driver of virtio-net.
pub(super) fn net(bytes: &[u8]) {
    NETWORK.with(|network| {
        let network =
            network.get_or_init(|| super::with_root("net").then(|| Network::alone().expect("a TAP")));
        let Some(network) = network else { return };
        network.drain();
        let mut input = Input::new(bytes);
        let how = input.byte();
        let bucket = TokenBucket {
            size: 4096,
            one_time_burst: Some(100),
            refill_time: 1,
        };
        let mut net = Net {
            network,
            mtu: (how & 1 != 0).then_some(1500),
            limits: (how & 14 == 14).then_some(RateLimiter {
                bandwidth: Some(bucket),
                ops: Some(bucket),
            }),
        };
        let memory = memory(false);
        let device = net.device(&memory.guest);
        play(&mut input, &mut Driver::new(device, memory, false), &mut net);
    });
}
