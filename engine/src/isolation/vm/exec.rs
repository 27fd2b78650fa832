//! `exec` in a microVM: one more process of the guest's, its streams over connections of their own.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use berth_guest::protocol::{Exec, Exit, ProcessId, Reply, Request, Stream, Streams};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::{failed, guest, out_of_turn, raw};
use crate::error::{At, Error, Result};
use crate::exec::{ExecRequest, Left, leave, terminal};

/// Runs a process of the runtime specification; its exit code, 0 at once when detached. Blocks until it has ended.
pub(crate) fn exec(run_dir: &Path, process: &Value, request: &ExecRequest) -> Result<i32> {
    let streams = if request.tty {
        Streams::Terminal
    } else {
        Streams::Pipes {
            stdin: request.interactive,
            stdout: !request.detach,
            stderr: !request.detach,
        }
    };
    let process = raw(process).map_err(|source| Error::Damaged {
        path: "process of exec".into(),
        source,
    })?;
    let mut client = guest::client(run_dir).map_err(failed)?;
    let id = match client.call(&Request::Exec(Exec { process, streams })) {
        Ok(Reply::Execed { process, .. }) => process,
        Ok(other) => return Err(out_of_turn(&other)),
        Err(e) => return Err(failed(e.into())),
    };
    if request.detach {
        return Ok(0);
    }
    let attach = |stream| guest::attach(run_dir, id, stream).map_err(failed);
    if request.tty {
        let master = attach(Stream::Terminal)?;
        let resize = |rows, columns| {
            let size = Request::Resize {
                process: id,
                rows,
                columns,
            };
            // A terminal that closed meanwhile has no size to set.
            let _ = guest::order(run_dir, &size);
        };
        if terminal(master.as_fd(), &resize, request)? == Left::ByKeys {
            leave(master.into())?;
            return Ok(0);
        }
    } else {
        let stdin = request.interactive.then(|| attach(Stream::Stdin)).transpose()?;
        join(stdin, attach(Stream::Stdout)?, attach(Stream::Stderr)?)?;
    }
    wait(run_dir, id)
}

/// The exit code of a process of the guest's. Blocks until it has ended.
pub(super) fn wait(run_dir: &Path, process: ProcessId) -> Result<i32> {
    let connection = guest::connect(run_dir).map_err(failed)?;
    guest::forever(&connection).at("wait for", "exec")?;
    match berth_guest::client::Client::new(connection).wait(process) {
        Ok(ended) => Ok(match ended.exit {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }),
        Err(e) => Err(failed(e.into())),
    }
}

/// Joins our streams with the process's, until it has closed both of its own.
fn join(stdin: Option<UnixStream>, stdout: UnixStream, stderr: UnixStream) -> Result<()> {
    let ours = std::io::stdin();
    let (mut input, mut out, mut err) = (stdin, Some(stdout), Some(stderr));
    // Kept, as a connection that is closed whole says that it broke.
    let mut _ended = None;
    let mut buffer = vec![0; 64 * 1024];
    while out.is_some() || err.is_some() {
        let mut fds = Vec::with_capacity(3);
        let mut places = [None; 3];
        let sources = [
            input.as_ref().map(|_| ours.as_fd()),
            out.as_ref().map(AsFd::as_fd),
            err.as_ref().map(AsFd::as_fd),
        ];
        for (place, fd) in places.iter_mut().zip(sources) {
            if let Some(fd) = fd {
                *place = Some(fds.len());
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::io("poll", "standard streams", e)),
        }
        let is = |n: usize| places[n].is_some_and(|at: usize| !fds[at].revents().is_empty());
        let ready = [is(0), is(1), is(2)];
        drop(fds);
        if ready[0]
            && let Some(to) = &mut input
        {
            let count = rustix::io::read(&ours, &mut buffer).unwrap_or(0);
            if count == 0 {
                // Its end is told in order, behind the data; the connection stays until the process has read all of it.
                let _ = to.shutdown(std::net::Shutdown::Write);
                _ended = input.take();
            } else if to.write_all(&buffer[..count]).is_err() {
                // It reads no more.
                input = None;
            }
        }
        if ready[1] {
            pass(&mut out, &mut std::io::stdout(), &mut buffer).at("write", "standard output")?;
        }
        if ready[2] {
            pass(&mut err, &mut std::io::stderr(), &mut buffer).at("write", "standard error")?;
        }
    }
    Ok(())
}

fn pass(from: &mut Option<UnixStream>, to: &mut impl Write, buffer: &mut [u8]) -> std::io::Result<()> {
    let Some(stream) = from else { return Ok(()) };
    match stream.read(buffer) {
        Ok(count) if count > 0 => {
            to.write_all(&buffer[..count])?;
            to.flush()
        }
        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Ok(()),
        // A machine that ended took it along.
        Ok(_) | Err(_) => {
            *from = None;
            Ok(())
        }
    }
}
