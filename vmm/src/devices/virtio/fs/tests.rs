//! A driver that speaks FUSE, well and badly, to a directory of the host's, served by a thread that is confined as a share's
//! is: a system call that is missing from its list ends the tests. Sharing a directory takes `CAP_SYS_ADMIN`.

mod files;
mod guards;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use fuse_backend_rs::abi::fuse_abi::Opcode;
use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use super::{Budget, Directory, Fs};
use crate::devices::virtio::driver::{BUFFERS, Descriptor, Driver, NEXT, WRITE};
use crate::devices::virtio::endpoint::Endpoint;
use crate::seccomp::Seccomp;
use crate::shares::Shares;

const REQUESTS: u32 = 1;
const ANSWER: u64 = BUFFERS + 0x4_0000;
const ROOM: u32 = 0x3_0000;
const ROOT: u64 = 1;

/// A guest that mounted a share.
struct Guest {
    driver: Driver,
    /// The other thread.
    shares: Shares,
    answers: u16,
    host: TempDir,
}

type Answer = Result<Vec<u8>, i32>;

fn guest(read_only: bool, fill: impl FnOnce(&Path)) -> Guest {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("share")).unwrap();
    fs::write(host.path().join("secret"), "secret").unwrap();
    fill(&host.path().join("share"));
    let directory = Directory::share(&host.path().join("share"), read_only, Budget::of(64)).unwrap();
    Guest::of(directory, host)
}

/// One field behind the other.
fn fields(numbers: &[u64], names: &[&str]) -> Vec<u8> {
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    for name in names {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Two fields of 32 bits.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Guest {
    fn of(directory: Directory, host: TempDir) -> Guest {
        let driver = Driver::start(Fs::new("tag", directory));
        // Names a call that is missing.
        Seccomp::On.prepare().unwrap();
        let endpoint = Endpoint::new(driver.shared.clone());
        Guest {
            shares: Shares::start(vec![endpoint], Seccomp::On, false).unwrap(),
            driver,
            answers: 0,
            host,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.host.path().join("share").join(name)
    }

    /// A request of user 7, group 8, and what came back.
    fn ask(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Answer {
        let length = u32::try_from(40 + body.len()).unwrap();
        let mut request = Vec::new();
        request.extend_from_slice(&length.to_le_bytes());
        request.extend_from_slice(&(opcode as u32).to_le_bytes());
        request.extend(fields(&[99, node, pair(7, 8), 0], &[]));
        request.extend_from_slice(body);
        self.send(&request, ROOM).expect("an answer")
    }

    /// Any bytes, and any room; none when nothing was said.
    fn send(&mut self, request: &[u8], room: u32) -> Option<Answer> {
        self.driver
            .memory
            .write_slice(request, GuestAddress(BUFFERS))
            .unwrap();
        let length = u32::try_from(request.len()).unwrap();
        self.driver
            .put(REQUESTS, &[(BUFFERS, length, false), (ANSWER, room, true)]);
        self.driver.ring(REQUESTS);
        self.answers = self.answers.wrapping_add(1);
        let (count, said) = self.driver.used(REQUESTS);
        assert_eq!(count, self.answers);
        assert!(said <= room);
        if said == 0 {
            return None;
        }
        let answer = self.driver.bytes(ANSWER, usize::try_from(said).unwrap());
        assert_eq!(u32::from_le_bytes(answer[..4].try_into().unwrap()), said);
        let error = i32::from_le_bytes(answer[4..8].try_into().unwrap());
        Some(if error == 0 {
            Ok(answer[16..].to_vec())
        } else {
            Err(-error)
        })
    }

    /// The number of a name, or why there is none.
    fn look_up(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        self.ask(Opcode::Lookup, parent, &fields(&[], &[name]))
            .map(|entry| number(&entry, 0))
    }

    fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        let body = fields(&[pair(flags.cast_unsigned(), 0)], &[]);
        self.ask(Opcode::Open, node, &body)
            .map(|opened| number(&opened, 0))
    }

    fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Answer {
        self.ask(
            Opcode::Read,
            node,
            &fields(&[handle, offset, pair(size, 0), 0, 0], &[]),
        )
    }

    fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Answer {
        let size = u32::try_from(data.len()).unwrap();
        let mut body = fields(&[handle, offset, pair(size, 0), 0, 0], &[]);
        body.extend_from_slice(data);
        self.ask(Opcode::Write, node, &body)
    }

    fn create(&mut self, name: &str, flags: i32, mode: u32) -> Result<(u64, u64), i32> {
        let body = fields(&[pair(flags.cast_unsigned(), mode), 0], &[name]);
        let made = self.ask(Opcode::Create, ROOT, &body)?;
        Ok((number(&made, 0), number(&made, 128)))
    }

    fn names(&mut self, node: u64) -> Vec<String> {
        let handle = self.ask(Opcode::Opendir, node, &fields(&[0], &[])).unwrap();
        let handle = number(&handle, 0);
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            // Small, so that it takes many.
            let body = fields(&[handle, offset, pair(200, 0), 0, 0], &[]);
            let listed = self.ask(Opcode::Readdir, node, &body).unwrap();
            if listed.is_empty() {
                break;
            }
            let mut at = 0;
            while at < listed.len() {
                offset = number(&listed, at + 8);
                let length = usize::try_from(number(&listed, at + 16) & 0xffff).unwrap();
                names.push(String::from_utf8(listed[at + 24..at + 24 + length].to_vec()).unwrap());
                at += (24 + length).next_multiple_of(8);
            }
        }
        names.sort();
        names
    }

    /// SETATTR of these fields.
    fn change(&mut self, node: u64, valid: u32, size: u64, mode: u32) -> Answer {
        let mut body = fields(&[pair(valid, 0), 0, size, 0, 0, 0, 0, 0, 0], &[]);
        body[68..72].copy_from_slice(&mode.to_le_bytes());
        body.extend_from_slice(&[0; 16]);
        self.ask(Opcode::Setattr, node, &body)
    }
}
