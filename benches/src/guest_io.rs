//! How fast a guest's disk and network are, measured inside it, for `bench-microvm` (tests/src/bin).
//!
//! Usage: `guest-io disk DEVICE` reads and overwrites a block device, past the guest's cache; `guest-io network ADDRESS` speaks TCP with
//! `guest-io serve ADDRESS` on the other side. Prints a line for each figure: `what`, a tab, the number, and its unit behind a blank.
//! Throughputs are of [`SPELL`], latencies the median of as many as fit into it.
#![allow(clippy::print_stdout)] // figures are what it is for

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long each thing is done.
const SPELL: Duration = Duration::from_secs(2);
const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
/// What a client says it will do.
const SEND: u8 = b's';
const RECEIVE: u8 = b'r';
const ECHO: u8 = b'e';

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["disk", device] => disk(device),
        ["network", address] => network(address),
        ["serve", address] => serve(address),
        _ => Err("usage: guest-io disk DEVICE | network ADDRESS | serve ADDRESS".into()),
    }
}

fn disk(device: &str) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(device)?;
    let mut memory = Aligned::new();
    let length = length(&file)?;
    // Not timed: what backs the disk is made, and read once.
    for at in (0..length).step_by(MIB) {
        file.write_all_at(memory.bytes(MIB), at)?;
    }
    let mut at = (0..length).step_by(MIB).cycle();
    let mut next = || at.next().expect("it goes round");
    throughput("read, 1 MiB each", || {
        Ok(file.read_exact_at(memory.bytes(MIB), next()).map(|()| MIB)?)
    })?;
    throughput("write, 1 MiB each", || {
        Ok(file.write_all_at(memory.bytes(MIB), next()).map(|()| MIB)?)
    })?;
    // A stride that is no divisor of the length meets every page, and none twice in a row.
    let mut pages = (0..).map(|n: u64| n * 4097 % (length / PAGE as u64) * PAGE as u64);
    let mut next = || pages.next().expect("there are more");
    latency("read of 4 KiB", || {
        Ok(file.read_exact_at(memory.bytes(PAGE), next())?)
    })?;
    latency("write of 4 KiB", || {
        Ok(file.write_all_at(memory.bytes(PAGE), next())?)
    })?;
    latency("write of 4 KiB and flush", || {
        file.write_all_at(memory.bytes(PAGE), next())?;
        Ok(file.sync_data()?)
    })
}

fn length(mut file: &File) -> Result<u64> {
    Ok(std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?)
}

fn network(address: &str) -> Result<()> {
    let mut bytes = vec![0; MIB / 4];
    let mut stream = ask(address, SEND)?;
    throughput("TCP to the host", || {
        stream.write_all(&bytes)?;
        Ok(bytes.len())
    })?;
    // The host speaks with one at a time.
    drop(stream);
    let mut stream = ask(address, RECEIVE)?;
    throughput("TCP from the host", || Ok(stream.read(&mut bytes)?))?;
    drop(stream);
    let mut stream = ask(address, ECHO)?;
    latency("a byte by TCP, there and back", || {
        stream.write_all(&[0])?;
        Ok(stream.read_exact(&mut [0])?)
    })
}

fn ask(address: &str, what: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[what])?;
    Ok(stream)
}

/// Does what clients ask, until it is killed.
fn serve(address: &str) -> Result<()> {
    for stream in TcpListener::bind(address)?.incoming() {
        // The end of a client is an error here.
        let _ = answer(stream?);
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut what = [0];
    stream.read_exact(&mut what)?;
    let mut bytes = vec![0; MIB / 4];
    loop {
        match what[0] {
            SEND if stream.read(&mut bytes)? == 0 => return Ok(()),
            SEND => {}
            RECEIVE => stream.write_all(&bytes)?,
            _ => {
                stream.read_exact(&mut bytes[..1])?;
                stream.write_all(&bytes[..1])?;
            }
        }
    }
}

/// Does `step` for a while, each time with so many bytes.
fn throughput(what: &str, mut step: impl FnMut() -> Result<usize>) -> Result<()> {
    let begin = Instant::now();
    let mut bytes = 0;
    while begin.elapsed() < SPELL {
        bytes += step()?;
    }
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let mib = bytes as f64 / MIB as f64;
    println!("{what}\t{:.2} MiB/s", mib / begin.elapsed().as_secs_f64());
    Ok(())
}

fn latency(what: &str, mut step: impl FnMut() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed() < SPELL {
        let before = Instant::now();
        step()?;
        times.push(before.elapsed());
    }
    times.sort();
    println!("{what}\t{} us", times[times.len() / 2].as_micros());
    Ok(())
}

/// A MiB that begins with a page, as `O_DIRECT` wants it.
struct Aligned {
    bytes: Vec<u8>,
    first: usize,
}

impl Aligned {
    fn new() -> Aligned {
        let bytes = vec![0x5a; MIB + PAGE];
        let first = bytes.as_ptr().align_offset(PAGE);
        Aligned { bytes, first }
    }

    fn bytes(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.first..][..length]
    }
}
