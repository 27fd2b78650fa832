//! Where the host comes in.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use berth_sys::vsock;

use crate::error::{At, Result};
use crate::frame;
use crate::protocol::{PORT, READY_PORT, Ready, VERSION};

/// A door the host knocks at.
#[derive(Debug)]
pub enum Listener {
    /// The guest's vsock port. Only the host is let in.
    Vsock(OwnedFd),
    /// A Unix socket, for tests and debugging on a machine without vsock. Whoever may connect is let in.
    Unix(UnixListener),
}

impl Listener {
    /// Listens on [`PORT`].
    ///
    /// # Errors
    ///
    /// The kernel has no vsock, or the port is taken.
    pub fn vsock() -> Result<Self> {
        vsock::listen(PORT)
            .map(Listener::Vsock)
            .at("listen on", format!("vsock port {PORT}"))
    }

    /// Listens on a Unix socket, whose path must be free.
    ///
    /// # Errors
    ///
    /// The errno of bind(2) or listen(2).
    pub fn unix(path: &Path) -> Result<Self> {
        UnixListener::bind(path)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map(Listener::Unix)
            .at("listen on", path.display().to_string())
    }

    /// Takes one connection, non-blocking; none when nobody is there any more, or nobody who is let in.
    ///
    /// # Errors
    ///
    /// The errno of accept(2) but for those.
    pub fn accept(&self) -> io::Result<Option<File>> {
        let taken = match self {
            Listener::Vsock(listener) => match vsock::accept(listener) {
                // With a loopback transport, or one to a nested guest, the container could come this way.
                Ok((_, cid)) if cid != vsock::CID_HOST => return Ok(None),
                other => other.map(|(socket, _)| File::from(socket)),
            },
            Listener::Unix(listener) => listener.accept().and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                Ok(File::from(OwnedFd::from(socket)))
            }),
        };
        match taken {
            Ok(socket) => Ok(Some(socket)),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Tells the host that it may come, so that it need not try again and again. A host that does not want to know is fine.
    pub fn announce(&self) {
        let Listener::Vsock(_) = self else { return };
        let said = vsock::connect(vsock::CID_HOST, READY_PORT)
            .map_err(frame::Error::from)
            .and_then(|socket| frame::send(&mut File::from(socket), &Ready { version: VERSION }));
        if let Err(e) = said {
            eprintln!("berth-guest: the host was not told that the guest is ready: {e}");
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Vsock(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}
