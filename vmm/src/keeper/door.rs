//! How a machine in its jail reaches the programs of the host's that listen for its guest: it names a port, and the keeper connects to
//! vsock's path, `_` and that port.
//!
//! ```text
//! machine ─ port, 32 bits ────────────────────► keeper      over a pair of sockets of its own, one at a time
//! machine ◄─ 0 and a connected socket, or 1 ─── keeper
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use berth_sys::fdpass;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, socketpair};

const CONNECTED: u8 = 0;
const REFUSED: u8 = 1;

/// A pair: the machine's end and the keeper's.
///
/// # Errors
///
/// Those of `socketpair(2)`.
pub(super) fn pair() -> io::Result<(Door, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (theirs, ours) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((Door(theirs), ours))
}

/// The machine's end.
#[derive(Debug)]
pub(crate) struct Door(OwnedFd);

impl Door {
    /// Asks for a connection to who listens for the guest on `port`. Blocks until the keeper has an answer, which waits for nobody.
    ///
    /// # Errors
    ///
    /// When nobody listens, or too many wait there.
    pub(crate) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        rustix::io::retry_on_intr(|| {
            let flags = rustix::net::SendFlags::NOSIGNAL;
            rustix::net::send(&self.0, &port.to_le_bytes(), flags)
        })?;
        let mut answer = [REFUSED];
        let (_, mut sockets) = fdpass::receive(&self.0, &mut answer)?;
        match (answer, sockets.pop()) {
            ([CONNECTED], Some(socket)) => Ok(socket.into()),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Answers at the keeper's end, if the machine asked; whether it may ask again. `path` is vsock's; without one nobody is reached. Does
/// not block.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] for what is no port, and when the machine takes no answers.
pub(super) fn answer(ours: BorrowedFd<'_>, path: Option<&Path>) -> io::Result<bool> {
    // A byte more than a port: what is longer is seen to be.
    let mut bytes = [0; 5];
    let port: [u8; 4] = match rustix::net::recv(ours, &mut bytes, RecvFlags::empty()) {
        Ok((4, _)) => bytes[..4].try_into().expect("four bytes"),
        // A machine without vsock, or none any more.
        Ok((0, _)) => return Ok(false),
        Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
        Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
        Err(e) => return Err(e.into()),
    };
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let connected = path
        .ok_or_else(refused)
        .and_then(|path| connect(path, u32::from_le_bytes(port)));
    match connected {
        Ok(stream) => fdpass::send(ours, &[CONNECTED], &[stream.as_fd()]),
        Err(_) => fdpass::send(ours, &[REFUSED], &[]),
    }?;
    Ok(true)
}

/// Connects to the program that listens for the guest on `port` of vsock's `path`, and does not wait for it.
///
/// # Errors
///
/// When there is none, or it is too busy to take one more now.
pub(crate) fn connect(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut path = path.as_os_str().to_owned();
    path.push(format!("_{port}"));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(PathBuf::from(path))?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// Asks from another thread, as the machine's process does.
    fn asked(path: Option<&Path>, port: u32) -> io::Result<UnixStream> {
        let (door, ours) = pair().unwrap();
        let machine = std::thread::spawn(move || door.connect(port));
        assert!(berth_sys::readiness::readable_within(&ours, None).unwrap());
        assert!(answer(ours.as_fd(), path).unwrap());
        machine.join().unwrap()
    }

    #[test]
    fn a_port_of_the_path_is_reached_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock");
        let listener = UnixListener::bind(directory.path().join("vsock_52")).unwrap();
        let mut stream = asked(Some(&path), 52).unwrap();
        stream.write_all(b"hello").unwrap();
        drop(stream);
        let mut heard = String::new();
        listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello");
        assert!(asked(Some(&path), 53).is_err());
        assert!(asked(None, 52).is_err());
    }

    #[test]
    fn what_is_no_port_is_an_error() {
        for wrong in [&b"1"[..], b"123", b"12345", b"123456789"] {
            let (door, ours) = pair().unwrap();
            rustix::net::send(&door, wrong, rustix::net::SendFlags::NOSIGNAL).unwrap();
            assert!(answer(ours.as_fd(), None).is_err(), "{wrong:?}");
        }
        let (door, ours) = pair().unwrap();
        assert!(answer(ours.as_fd(), None).unwrap(), "nobody asked");
        // A machine that asks and does not listen.
        let asks = || rustix::net::send(&door, &[0; 4], rustix::net::SendFlags::DONTWAIT).is_ok();
        let mut ends = false;
        for _ in 0..100_000 {
            if asks() && answer(ours.as_fd(), None).is_err() {
                ends = true;
                break;
            }
        }
        assert!(ends, "it is not answered without end");
        drop(door);
        let (gone, ours) = pair().unwrap();
        drop(gone);
        assert!(!answer(ours.as_fd(), None).unwrap(), "nobody will ask");
    }
}
