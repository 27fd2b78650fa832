//! A process the shim watches, in a microVM: its streams and the word of its end are connections.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_guest::client::Client;
use berth_guest::frame::{self, Incoming, Progress};
use berth_guest::protocol::{Exec, Exit, ProcessId, Reply, Request, Stream, Streams};
use serde_json::Value;

use super::{awaited, failed, guest, out_of_turn, raw};
use crate::error::{At, Error, Result};
use crate::isolation::{Probe, Watched};

/// Starts a process of the runtime specification.
pub(super) fn start(run_dir: &Path, process: &Value, patience: Duration) -> Result<Probe> {
    let process = raw(process).map_err(|source| Error::Damaged {
        path: "process of the health check".into(),
        source,
    })?;
    let streams = Streams::Pipes {
        stdin: false,
        stdout: true,
        stderr: true,
    };
    let connection = guest::connect(run_dir).map_err(failed)?;
    // The shim's loop stands still meanwhile.
    connection
        .set_read_timeout(Some(patience))
        .at("prepare", "the health check")?;
    let id = match Client::new(connection).call(&Request::Exec(Exec { process, streams })) {
        Ok(Reply::Execed { process, .. }) => process,
        Ok(other) => return Err(out_of_turn(&other)),
        Err(e) => return Err(failed(e.into())),
    };
    watch(run_dir, id).inspect_err(|_| kill(run_dir, id))
}

fn watch(run_dir: &Path, id: ProcessId) -> Result<Probe> {
    let mut outputs = Vec::with_capacity(2);
    for stream in [Stream::Stdout, Stream::Stderr] {
        outputs.push(guest::attach(run_dir, id, stream).map_err(failed)?);
    }
    let end = awaited(run_dir, id)?;
    for connection in outputs.iter().chain([&end]) {
        connection
            .set_nonblocking(true)
            .at("prepare", "the health check")?;
    }
    let process = InGuest {
        run_dir: run_dir.into(),
        id,
        end,
        incoming: Incoming::default(),
        killed: false,
    };
    Ok(Probe {
        process: Box::new(process),
        outputs: outputs.into_iter().map(OwnedFd::from).collect(),
    })
}

/// A guest that does not answer is the next check's to find out.
fn kill(run_dir: &Path, process: ProcessId) {
    let signal = libc::SIGKILL;
    let _ = guest::order(run_dir, &Request::Kill { process, signal });
}

#[derive(Debug)]
struct InGuest {
    run_dir: PathBuf,
    id: ProcessId,
    /// Where the end is told.
    end: UnixStream,
    incoming: Incoming,
    killed: bool,
}

impl Watched for InGuest {
    fn ended(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    fn exit_code(&mut self) -> Option<i32> {
        if self.killed {
            // Not waited for: a guest that is stuck would keep the check from ending.
            return Some(128 + libc::SIGKILL);
        }
        let reply = loop {
            match self.incoming.advance(&mut self.end) {
                Ok(Progress::Partial) => {}
                Ok(Progress::Frame(body)) => break serde_json::from_slice(&body).ok(),
                Err(frame::Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Ok(Progress::Ended) | Err(_) => break None,
            }
        };
        Some(match reply {
            Some(Reply::Ended(ended)) => match ended.exit {
                Exit::Code(code) => code,
                Exit::Signal(signal) => 128 + signal,
            },
            _ => crate::reconcile::UNKNOWN_EXIT,
        })
    }

    fn pid(&self) -> Option<i32> {
        None
    }

    fn outputs_lag(&self) -> bool {
        !self.killed
    }

    fn kill(&mut self) {
        self.killed = true;
        kill(&self.run_dir, self.id);
    }
}
