//! Conversations with the program that is PID 1 of a microVM (docs/guest.md), through the monitor's Unix socket.
//!
//! Nothing that comes from there is believed for longer than [`PATIENCE`]: a guest's kernel may be its container's by now.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_guest::client::{self, Client};
use berth_guest::protocol::{PORT, ProcessId, Request, Stream};

/// The longest wait for an answer that should come at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// `OK 4294967295\n` and no more.
const LINE_MAX: usize = 16;

/// What of the container's run directory the monitor sees from its jail: the sockets between guest and host.
pub(crate) const SOCKETS: &str = "guest";
/// The monitor's socket, in the container's run directory.
pub(crate) const SOCKET: &str = "guest/vsock";

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody answers.
    #[error("cannot reach the guest")]
    Unreachable(#[source] io::Error),
    /// What it answered.
    #[error(transparent)]
    Conversation(#[from] client::Error),
}

/// Opens a connection to PID 1 of the microVM whose run directory this is. Blocks, for [`PATIENCE`] at most.
pub(crate) fn connect(run_dir: &Path) -> Result<UnixStream, Error> {
    reach(run_dir).map_err(Error::Unreachable)
}

fn reach(run_dir: &Path) -> io::Result<UnixStream> {
    use std::os::fd::AsRawFd;
    // By descriptor: sun_path holds 108 bytes, and `STATE` may be longer.
    let dir = std::fs::File::open(run_dir)?;
    let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "CONNECT {PORT}")?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        if line.len() == LINE_MAX || stream.read(&mut byte)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "its monitor or its PID 1 does not take the connection",
            ));
        }
        line.push(byte[0]);
    }
    Ok(stream)
}

/// A conversation of its own.
pub(crate) fn client(run_dir: &Path) -> Result<Client<UnixStream>, Error> {
    Ok(Client::new(connect(run_dir)?))
}

/// Asks for one thing that is answered with "done".
pub(crate) fn order(run_dir: &Path, request: &Request) -> Result<(), Error> {
    Ok(client(run_dir)?.order(request)?)
}

/// A stream of a process, to be read and written without limits of time.
pub(crate) fn attach(run_dir: &Path, process: ProcessId, stream: Stream) -> Result<UnixStream, Error> {
    let connection = client(run_dir)?.attach(process, stream)?;
    forever(&connection).map_err(Error::Unreachable)?;
    Ok(connection)
}

/// Lets what is read from a connection come when it comes.
pub(crate) fn forever(connection: &UnixStream) -> io::Result<()> {
    connection.set_read_timeout(None)?;
    connection.set_write_timeout(None)
}
