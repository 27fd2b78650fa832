//! What clients and the shim say to each other on `shim.sock`, a SOCK_SEQPACKET socket: one packet is one message, a
//! kind byte and its payload.
//!
//! ```text
//! client                          shim
//!   Attach{streams} ───────────►
//!   Stdin, StdinEof, Resize ───►
//!                     ◄───────────  Started | Failed     (first client, on the socket it was born with)
//!                     ◄───────────  Stdout, Stderr …
//!   Stop | Kill | Pause | … ───►
//!                     ◄───────────  Done | Failed
//!   Wait{final?} ──────────────►
//!                     ◄───────────  Exit{code}           (to who attached or waits; the record is written by then)
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send};
use serde::{Deserialize, Serialize};

/// Largest packet either side sends.
pub(crate) const PACKET_MAX: usize = 16 * 1024 + 1;

/// Longest wait for a shim that has nothing to wait for itself. Everything it does takes milliseconds, but for a health check
/// that something in the container keeps from starting: seconds, in which its loop stands still.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a client may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Join the streams.
    Attach {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// The terminal's new size.
    Resize {
        rows: u16,
        columns: u16,
    },
    /// Send a signal to init.
    Kill {
        signal: i32,
    },
    /// End it: signal, then after so many seconds (negative: never) SIGKILL.
    Stop {
        signal: i32,
        timeout: i64,
    },
    Pause,
    Unpause,
    /// Say when it ends; `last` ignores ends the restart policy makes good.
    Wait {
        last: bool,
    },
    /// The record `config.json` has changed; put its limits into force.
    Reload {
        limits: bool,
    },
    /// Standard input has ended.
    StdinEof,
}

/// What the shim may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Started,
    Done,
    Failed(Failure),
    Exit { code: i32 },
}

/// Why something failed, so that the other side can choose its exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound {
        program: String,
    },
    NotExecutable {
        program: String,
        why: String,
    },
    Other {
        why: String,
    },
    /// It did not start; what can be done about it, if anything.
    Start {
        why: String,
        hint: Option<String>,
    },
}

/// A packet taken apart.
#[derive(Debug)]
pub(crate) enum Packet<'a> {
    Request(Request),
    Reply(Reply),
    Stdin(&'a [u8]),
    Stdout(&'a [u8]),
    Stderr(&'a [u8]),
    /// The other side has gone.
    Gone,
}

pub(crate) const STDIN: u8 = b'i';
pub(crate) const STDOUT: u8 = b'o';
pub(crate) const STDERR: u8 = b'e';
const REQUEST: u8 = b'q';
const REPLY: u8 = b'r';

fn encode(kind: u8, message: &impl Serialize) -> Vec<u8> {
    let mut packet = vec![kind];
    serde_json::to_writer(&mut packet, message).expect("messages are plain data");
    packet
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(REQUEST, self)
    }
}

impl Reply {
    pub(crate) fn failed(why: String) -> Reply {
        Reply::Failed(Failure::Other { why })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(REPLY, self)
    }
}

/// Reads one packet. `None` when there is none now (non-blocking) or when it makes no sense.
pub(crate) fn receive<'a>(
    socket: impl AsFd,
    buffer: &'a mut [u8],
    flags: RecvFlags,
) -> rustix::io::Result<Packet<'a>> {
    let mut was_cut = false;
    let (n, _) = loop {
        match recv(&socket, &mut *buffer, flags) {
            Err(rustix::io::Errno::INTR) => {}
            // Who went without hearing us out may have spoken before: the kernel tells of the cut first, and once.
            Err(rustix::io::Errno::CONNRESET) if !was_cut => was_cut = true,
            Err(rustix::io::Errno::CONNRESET) => return Ok(Packet::Gone),
            other => break other?,
        }
    };
    let Some((kind, payload)) = buffer[..n].split_first() else {
        return Ok(Packet::Gone);
    };
    Ok(match *kind {
        STDIN => Packet::Stdin(payload),
        STDOUT => Packet::Stdout(payload),
        STDERR => Packet::Stderr(payload),
        REQUEST => Packet::Request(serde_json::from_slice(payload).map_err(|_| rustix::io::Errno::BADMSG)?),
        REPLY => Packet::Reply(serde_json::from_slice(payload).map_err(|_| rustix::io::Errno::BADMSG)?),
        _ => return Err(rustix::io::Errno::BADMSG),
    })
}

/// Sends one packet.
pub(crate) fn transmit(socket: impl AsFd, packet: &[u8], flags: SendFlags) -> rustix::io::Result<()> {
    loop {
        match send(&socket, packet, flags | SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

/// The address of `shim.sock` in an open directory: sun_path holds 108 bytes, and `STATE` may be longer.
fn address(dir: &OwnedFd) -> rustix::io::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd;
    SocketAddrUnix::new(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd()))
}

fn open_dir(dir: &Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Connects to the shim whose directory this is. EAGAIN when it has not taken in those before us for [`PATIENCE`].
pub(crate) fn connect(run_dir: &Path) -> rustix::io::Result<OwnedFd> {
    let dir = open_dir(run_dir)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // unix(7): a full queue holds connect up as it holds up a sender.
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &address(&dir)?)?;
    // From here on whoever does not take our packets holds us back.
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket)
}

/// Listens in the shim's directory. A path, never an abstract name, which any network namespace sharing the host's could
/// reach (CVE-2020-15257).
pub(crate) fn listen(run_dir: &Path) -> rustix::io::Result<OwnedFd> {
    let dir = open_dir(run_dir)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    match rustix::fs::unlinkat(&dir, "shim.sock", rustix::fs::AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) | Ok(()) => {}
        Err(e) => return Err(e),
    }
    rustix::net::bind(&socket, &address(&dir)?)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}
