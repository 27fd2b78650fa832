//! virtio-vsock: packets of connections that are there and that are not, with programs of the host's on the other side.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use berth_vmm::fuzzing::VirtioDevice;
use tempfile::TempDir;
use vm_memory::GuestMemoryMmap;

use crate::driver::{Driver, memory};
use crate::input::Input;
use crate::play::{Kind, play};

const RX: u32 = 0;
const TX: u32 = 1;
const EVENTS: u32 = 2;
const HEADER: u32 = 44;
const GUEST: u32 = 3;
/// Ports that programs of the host's listen on.
const LISTENED: [u32; 2] = [1, 2];
/// The first port of a program of the host's that connects.
const HOST_PORTS: u32 = 1 << 30;
/// Nobody has more programs.
const PROGRAMS_MAX: usize = 32;

/// Programs of the host's.
struct Host {
    directory: TempDir,
    listeners: Vec<UnixListener>,
    streams: Vec<UnixStream>,
    /// How many devices have listened there.
    devices: usize,
}

impl Host {
    fn new() -> Host {
        let directory = tempfile::tempdir().expect("a directory");
        let listeners = LISTENED.map(|port| {
            let path = directory.path().join(format!("peers_{port}"));
            let listener = UnixListener::bind(path).expect("a socket");
            listener.set_nonblocking(true).expect("a socket");
            listener
        });
        Host {
            directory,
            listeners: listeners.into(),
            streams: Vec::new(),
            devices: 0,
        }
    }

    /// Of the last device.
    fn socket(&self) -> PathBuf {
        self.directory.path().join(format!("socket{}", self.devices))
    }

    fn device(&mut self, memory: &GuestMemoryMmap) -> VirtioDevice {
        self.devices += 1;
        let peers = self.directory.path().join("peers");
        VirtioDevice::vsock(GUEST, &self.socket(), &peers, memory).expect("a socket")
    }

    fn add(&mut self, stream: UnixStream) {
        stream.set_nonblocking(true).expect("a socket");
        if self.streams.len() < PROGRAMS_MAX {
            self.streams.push(stream);
        }
    }

    fn accept(&mut self) {
        for number in 0..self.listeners.len() {
            while let Ok((stream, _)) = self.listeners[number].accept() {
                self.add(stream);
            }
        }
    }

    fn connect(&mut self, path: &Path) {
        if let Ok(stream) = UnixStream::connect(path) {
            self.add(stream);
        }
    }
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host::new());
}

struct Vsock<'a> {
    host: &'a mut Host,
}

impl Kind for Vsock<'_> {
    fn request(&mut self, input: &mut Input<'_>, queue: u32) -> (Vec<u8>, Vec<u32>) {
        match queue {
            RX => return (Vec::new(), vec![HEADER, input.one_of(&[4096, 1, 0, 65_536, 100])]),
            EVENTS => return (Vec::new(), vec![8]),
            _ => {}
        }
        let how = input.byte();
        let odd = how < 16;
        let length = match how & 3 {
            1 => input.length() % 70_000,
            // The longest there is, and one more.
            3 => input.one_of(&[1, 4096, 65_536, 65_537]),
            _ => 0,
        };
        let mut said = Vec::new();
        let cids = if odd {
            [input.u64(), input.u64()]
        } else {
            [u64::from(GUEST), 2]
        };
        said.extend(cids.into_iter().flat_map(u64::to_le_bytes));
        let guest_port = u32::from(input.byte() % 4);
        let host_port = match input.byte() {
            few @ 0..0x80 => u32::from(few % 4),
            few @ 0x80..0xf0 => HOST_PORTS + u32::from(few % 4),
            _ => input.u32(),
        };
        said.extend(guest_port.to_le_bytes());
        said.extend(host_port.to_le_bytes());
        let claimed = if odd { input.u32() } else { length };
        said.extend(claimed.to_le_bytes());
        said.extend([if odd { input.byte() } else { 1 }, 0]);
        said.extend([input.byte() % 9, 0]);
        said.extend(u32::from(input.byte() % 4).to_le_bytes());
        let buffer = input.one_of(&[0x4_0000, 0, 64, u32::MAX, 1]);
        said.extend(buffer.to_le_bytes());
        said.extend(input.length().to_le_bytes());
        said.resize(said.len() + usize::try_from(length).expect("a 64-bit host"), how);
        (said, Vec::new())
    }

    fn outside(&mut self, input: &mut Input<'_>, _driver: &mut Driver) {
        self.host.accept();
        let path = self.host.socket();
        let what = input.byte() % 8;
        if what == 0 {
            return self.host.connect(&path);
        }
        if self.host.streams.is_empty() {
            return;
        }
        let number = input.below(self.host.streams.len());
        let stream = &mut self.host.streams[number];
        // Programs do what they like, and see what comes of it.
        let _ = match what {
            1 | 2 => stream
                .write(format!("CONNECT {}\n", input.byte() % 4).as_bytes())
                .map(drop),
            3 => {
                let length = input.below(64);
                stream.write(input.bytes(length)).map(drop)
            }
            4 => stream.write(&vec![7; usize::from(input.u16())]).map(drop),
            5 => stream.read(&mut vec![0; usize::from(input.u16())]).map(drop),
            6 => stream.shutdown(input.one_of(&[Shutdown::Read, Shutdown::Write, Shutdown::Both])),
            _ => {
                self.host.streams.swap_remove(number);
                Ok(())
            }
        };
    }

    fn answered(&self) -> &[u32] {
        &[TX]
    }

    /// Who asks for a port that nobody listens on is told so.
    fn works(&mut self, driver: &mut Driver) {
        driver.start(0, 0b111);
        driver.run();
        driver.put(RX, &[], 1, &[HEADER, 64], false);
        let mut said = Vec::new();
        said.extend([u64::from(GUEST), 2].into_iter().flat_map(u64::to_le_bytes));
        said.extend([1000, 1000, 0].into_iter().flat_map(u32::to_le_bytes));
        said.extend([1, 0, 1, 0]);
        said.extend([0; 12]);
        driver.put(TX, &said, 1, &[], false);
        driver.check_used(TX);
        assert_eq!((driver.used(RX).0, driver.is_broken()), (1, false));
    }

    fn again(&mut self, memory: &GuestMemoryMmap) -> Option<VirtioDevice> {
        Some(self.host.device(memory))
    }
}

/// A driver of virtio-vsock.
pub(super) fn vsock(bytes: &[u8]) {
    HOST.with_borrow_mut(|host| {
        host.accept();
        host.streams.clear();
        let memory = memory(false);
        let device = host.device(&memory.guest);
        let mut driver = Driver::new(device, memory, false);
        play(&mut Input::new(bytes), &mut driver, &mut Vsock { host });
    });
}
