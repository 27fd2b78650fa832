//! The host's side: Unix sockets in Firecracker's convention.
//!
//! ```text
//! host asks:   connects to UDS_PATH, sends "CONNECT <guest port>\n", reads "OK <host port>\n" once the guest accepted
//! guest asks:  connects to host port P: a program of the host's listens on UDS_PATH_P
//! ```

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{Timespec, epoll};

use crate::keeper::{self, Door};
use crate::socket_file::SocketFile;

/// Programs that connected and have not said where to; the oldest goes when there are more.
const GREETING_MAX: usize = 64;
/// `CONNECT 4294967295\n` and some room for blanks.
const LINE_MAX: usize = 32;

/// What the event loop found at the host's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Somebody wants to connect.
    Arrival,
    /// A program that has not said where to may have.
    Greeting(u64),
    /// Something happened to a connection's socket.
    Connection {
        /// The number it was watched with.
        number: u64,
        /// There may be something to read, if only the end.
        readable: bool,
        /// Both directions are closed.
        hung_up: bool,
    },
}

/// A program of the host's that connected and has not said where to.
#[derive(Debug)]
struct Greeting {
    number: u64,
    stream: UnixStream,
    line: Vec<u8>,
}

/// What became of a program's greeting.
#[derive(Debug)]
pub(super) enum Greeted {
    /// It is not complete.
    NotYet,
    /// It was none, or the program left.
    Refused,
    /// It wants to talk to this port of the guest's.
    Wants(UnixStream, u32),
}

/// The programs of the host's that listen for the guest.
#[derive(Debug)]
pub(crate) enum Peers {
    /// On this path, `_` and the port.
    At(PathBuf),
    /// As the process outside of the jail knows.
    Beyond(Door),
}

/// The listening socket, and everything of the host's that is watched for this device.
#[derive(Debug)]
pub(super) struct Host {
    listener: UnixListener,
    peers: Peers,
    /// Watches all sockets, for one descriptor in the event loop.
    epoll: std::os::fd::OwnedFd,
    greetings: Vec<Greeting>,
    /// Numbers what is watched; never used twice, so that an event of something gone finds nothing.
    next: u64,
}

/// The listener's number.
const LISTENER: u64 = 0;
/// Greetings have odd numbers, connections even ones.
const STEP: u64 = 2;

impl Host {
    /// Listens on `path`, which must not be there; it goes with the second value.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`.
    pub(super) fn listen(path: &Path, peers: Peers) -> io::Result<(Host, SocketFile)> {
        let listener = UnixListener::bind(path)?;
        let file = SocketFile::of(path);
        let host = Host {
            listener,
            peers,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            greetings: Vec::new(),
            next: STEP,
        };
        host.listener.set_nonblocking(true)?;
        host.watch(host.listener.as_fd(), LISTENER)?;
        Ok((host, file))
    }

    /// Readable when [`Host::events`] has something.
    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn watch(&self, fd: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(number),
            flags,
        )?)
    }

    /// Watches a connection's socket until it is closed; the number its events have.
    pub(super) fn watch_connection(&mut self, stream: &UnixStream) -> io::Result<u64> {
        let number = self.next;
        self.next += STEP;
        self.watch(stream.as_fd(), number)?;
        Ok(number)
    }

    /// What happened since the last time, a bounded part of it; empty when nothing did.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut events = Vec::with_capacity(64);
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Fails for descriptors that are none alone.
        let _ = epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&now),
        );
        let found = events.iter().map(|event| {
            let (flags, number) = (event.flags, event.data.u64());
            let closed = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            match number {
                LISTENER => Event::Arrival,
                number if number % STEP == 1 => Event::Greeting(number),
                number => Event::Connection {
                    number,
                    readable: flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP | closed),
                    hung_up: flags.intersects(closed),
                },
            }
        });
        found.collect()
    }

    /// Takes programs that want to connect, until there is none.
    pub(super) fn arrivals(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // None left, or no descriptors: who waits is let in after the next who comes.
                Err(_) => return,
            };
            let number = self.next + 1;
            self.next += STEP;
            if stream.set_nonblocking(true).is_err() || self.watch(stream.as_fd(), number).is_err() {
                continue;
            }
            if self.greetings.len() == GREETING_MAX {
                self.greetings.remove(0);
            }
            self.greetings.push(Greeting {
                number,
                stream,
                line: Vec::new(),
            });
        }
    }

    /// Reads what a program said so far, up to the end of its line and no further: what follows is the guest's.
    pub(super) fn greeting(&mut self, number: u64) -> Greeted {
        let Some(at) = self
            .greetings
            .iter()
            .position(|greeting| greeting.number == number)
        else {
            return Greeted::NotYet;
        };
        let greeting = &mut self.greetings[at];
        let port = loop {
            let mut byte = [0];
            match greeting.stream.read(&mut byte) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Greeted::NotYet,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(1) if byte == *b"\n" => break port_of(&greeting.line),
                Ok(1) if greeting.line.len() < LINE_MAX => greeting.line.push(byte[0]),
                Ok(_) | Err(_) => break None,
            }
        };
        let greeting = self.greetings.remove(at);
        match port {
            Some(port) => {
                // From here on it is watched as a connection.
                let _ = epoll::delete(&self.epoll, &greeting.stream);
                Greeted::Wants(greeting.stream, port)
            }
            None => Greeted::Refused,
        }
    }

    /// Connects to the program of the host's that listens for the guest on `port`.
    ///
    /// # Errors
    ///
    /// When there is none, or it is too busy to take one more now.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        match &self.peers {
            Peers::At(path) => keeper::connect(path, port),
            Peers::Beyond(door) => door.connect(port),
        }
    }
}

fn port_of(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (command, port) = (words.next()?, words.next()?);
    (command.eq_ignore_ascii_case("connect") && words.next().is_none())
        .then(|| port.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_a_port_or_nothing() {
        assert_eq!(port_of(b"CONNECT 1024"), Some(1024));
        assert_eq!(port_of(b"connect 4294967295\r"), Some(u32::MAX));
        for line in [
            &b""[..],
            b"CONNECT",
            b"CONNECT x",
            b"CONNECT -1",
            b"CONNECT 4294967296",
            b"CONNECT 1 2",
            b"GET / HTTP/1.1",
            b"CONNECT \xff",
        ] {
            assert_eq!(port_of(line), None, "{line:?}");
        }
    }
}
