//! `berth-guest`: `/init` of a microVM. It takes no arguments there; what a kernel passes on from its command line is not
//! looked at.
//!
//! `berth-guest --listen unix:PATH` serves on a Unix socket instead of vsock and leaves boot out: for tests and debugging, as
//! PID 1 of namespaces somebody else made (`unshare --pid --mount --uts --net --fork --mount-proc`). It does what it is told there
//! too, with whatever those namespaces share with the host.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;

use berth_guest::boot;
use berth_guest::error::{At, Error, Result};
use berth_guest::listen::Listener;

fn main() -> ExitCode {
    let Err(e) = run();
    eprintln!("berth-guest: {}", e.chain());
    // The kernel panics when its PID 1 ends; a guest that is of no use switches itself off, with the line above on the console.
    if std::process::id() == 1
        && let Err(e) = berth_guest::power::off()
    {
        eprintln!("berth-guest: {}", e.chain());
    }
    ExitCode::FAILURE
}

fn run() -> Result<Infallible> {
    let socket = socket_argument()?;
    if std::process::id() != 1 {
        return Err(Error::refused(
            "this is no PID 1",
            "it is to be that of a microVM, or of a pid namespace with --listen",
        ));
    }
    if socket.is_none() {
        boot::proc_first()?;
    }
    // Before a container is near: it may see this process (CVE-2019-5736).
    berth_sys::reexec::seal().at("run from", "a file no container can write")?;
    let listener = match socket {
        Some(path) => Listener::unix(&path)?,
        None => {
            boot::system()?;
            Listener::vsock()?
        }
    };
    berth_guest::serve::run(listener)
}

fn socket_argument() -> Result<Option<PathBuf>> {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|first| first != "--listen") {
        return Ok(None);
    }
    let path = args.next().and_then(|address| {
        let address = address.into_string().ok()?;
        address.strip_prefix("unix:").map(PathBuf::from)
    });
    path.map(Some)
        .ok_or_else(|| Error::refused("--listen", "give unix:PATH"))
}
