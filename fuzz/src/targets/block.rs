//! virtio-blk: no request reaches beyond the disk, and none writes to one that is read-only.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use berth_vmm::config::{RateLimiter, TokenBucket};
use berth_vmm::fuzzing::VirtioDevice;
use virtio_bindings::virtio_blk as blk;
use vm_memory::GuestMemoryMmap;

use crate::driver::{Driver, memory};
use crate::input::Input;
use crate::play::{Kind, play};

const SECTOR: usize = 512;
const SECTORS: u8 = 64;
/// Bytes of the disk, and how many stand behind it in a file that is no whole number of sectors.
const DISK: usize = SECTOR * SECTORS as usize;
const REST: usize = 100;

/// Two files in memory, and how to open them again.
struct Disks {
    files: [File; 2],
    paths: [PathBuf; 2],
}

impl Disks {
    fn new() -> Disks {
        let files = ["first", "second"].map(|name| {
            let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC);
            File::from(file.expect("a file in memory"))
        });
        let paths = files
            .each_ref()
            .map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        Disks { files, paths }
    }

    /// Every sector holds its number.
    fn fill(&self) {
        for file in &self.files {
            file.set_len(0).expect("a file in memory");
            let sectors = (0..SECTORS).flat_map(|sector| [sector; SECTOR]);
            file.write_all_at(&sectors.collect::<Vec<_>>(), 0).expect("room");
            file.set_len((DISK + REST) as u64).expect("room");
        }
    }

    /// Their length is what it was, and so is, when nobody may write to it, what is in them.
    fn check(&self, read_only: bool) {
        for file in &self.files {
            let length = file.metadata().expect("a file").len();
            assert_eq!(length, (DISK + REST) as u64, "the disk's length");
            let mut rest = [1; REST];
            file.read_exact_at(&mut rest, DISK as u64).expect("its end");
            assert_eq!(rest, [0; REST], "what is behind the disk was written");
            if read_only {
                let mut sectors = vec![0; DISK];
                file.read_exact_at(&mut sectors, 0).expect("all of it");
                let kept = (0_u8..).zip(sectors.chunks(SECTOR));
                kept.for_each(|(number, sector)| {
                    assert_eq!(sector, [number; SECTOR], "a read-only disk was written");
                });
            }
        }
    }
}

thread_local! {
    static DISKS: RefCell<Disks> = RefCell::new(Disks::new());
}

struct Block<'a> {
    paths: &'a [PathBuf; 2],
    read_only: bool,
    limited: bool,
}

impl Kind for Block<'_> {
    fn request(&mut self, input: &mut Input<'_>, _queue: u32) -> (Vec<u8>, Vec<u32>) {
        let kinds = [
            blk::VIRTIO_BLK_T_IN,
            blk::VIRTIO_BLK_T_OUT,
            blk::VIRTIO_BLK_T_FLUSH,
            blk::VIRTIO_BLK_T_GET_ID,
            blk::VIRTIO_BLK_T_DISCARD,
            blk::VIRTIO_BLK_T_WRITE_ZEROES,
            u32::MAX,
        ];
        let kind = input.one_of(&kinds);
        let mut said = Vec::new();
        said.extend_from_slice(&kind.to_le_bytes());
        said.extend_from_slice(&[0; 4]);
        let sector = if input.flag() {
            input.byte().into()
        } else {
            input.u64()
        };
        said.extend_from_slice(&sector.to_le_bytes());
        let sectors = input.below(4);
        let mut room = Vec::new();
        match kind {
            blk::VIRTIO_BLK_T_OUT => said.resize(said.len() + sectors * SECTOR, 0xee),
            blk::VIRTIO_BLK_T_DISCARD | blk::VIRTIO_BLK_T_WRITE_ZEROES => {
                for _ in 0..sectors {
                    let (from, count) = (input.byte(), input.byte());
                    said.extend_from_slice(&u64::from(from).to_le_bytes());
                    said.extend_from_slice(&u32::from(count).to_le_bytes());
                    said.extend_from_slice(&u32::from(input.byte() % 4).to_le_bytes());
                }
            }
            _ => room.extend((0..sectors).map(|_| input.one_of(&[0, 20, 512, 513, 1024, 40_000]))),
        }
        if input.byte() < 16 {
            said.truncate(input.byte().into());
        }
        room.push(1);
        (said, room)
    }

    fn outside(&mut self, input: &mut Input<'_>, driver: &mut Driver) {
        match input.byte() % 4 {
            0 => driver.device.change_file(&self.paths[1], self.read_only),
            1 => driver.device.change_file(Path::new("/"), self.read_only),
            _ if self.limited => driver.device.change_limits(limits(input)),
            _ => {}
        }
    }

    fn answered(&self) -> &[u32] {
        if self.limited { &[] } else { &[0] }
    }

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
        driver.start(0, 1);
        let mut said = [0; 16];
        said[8] = 63;
        driver.put(0, &said, 1, &[512, 1], false);
        driver.check_used(0);
        assert_eq!((driver.used(0), driver.is_broken()), ((1, 513), false));
    }

    fn again(&mut self, memory: &GuestMemoryMmap) -> Option<VirtioDevice> {
        VirtioDevice::block(&self.paths[0], self.read_only, None, memory).ok()
    }
}

fn limits(input: &mut Input<'_>) -> RateLimiter {
    let mut bucket = || {
        let bucket = TokenBucket {
            size: input.u32().into(),
            one_time_burst: input.flag().then(|| input.u16().into()),
            refill_time: input.u16().into(),
        };
        input.flag().then_some(bucket)
    };
    RateLimiter {
        bandwidth: bucket(),
        ops: bucket(),
    }
}

/// A driver of virtio-blk.
pub(super) fn block(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let (read_only, limited) = (how & 1 != 0, how & 2 != 0);
    DISKS.with_borrow(|disks| {
        disks.fill();
        let limits = limited.then(|| limits(&mut input));
        let memory = memory(false);
        let device = VirtioDevice::block(&disks.paths[0], read_only, limits, &memory.guest).expect("a disk");
        let mut block = Block {
            paths: &disks.paths,
            read_only,
            limited,
        };
        play(&mut input, &mut Driver::new(device, memory, false), &mut block);
        disks.check(read_only);
    });
}
