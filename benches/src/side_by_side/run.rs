//! One run of a command, and what it took.
#![allow(unsafe_code)] // wait4(2), for the peak memory of one child, is not in the standard library

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A command that takes part.
#[derive(Default)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    /// The command, with its arguments.
    pub(crate) words: Vec<String>,
    /// Runs first, if there is one.
    pub(crate) before: Vec<String>,
    /// The exit status of a success.
    pub(crate) status: i32,
    pub(crate) put: Option<Put>,
}

/// A request to a server that the command is.
pub(crate) struct Put {
    pub(crate) socket: PathBuf,
    pub(crate) path: String,
    pub(crate) body: String,
}

/// What a run took.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// From its start until it wrote something, where somebody asked.
    pub(crate) output_us: u128,
    /// From its start to its end.
    pub(crate) time_us: u128,
    pub(crate) cpu_us: u128,
    pub(crate) peak_kib: i64,
}

/// A server that does not listen after as many of these does not listen at all.
const AGAIN: Duration = Duration::from_micros(20);
const TRIES: usize = 50_000;

impl Contestant {
    /// One that is told the rest later.
    pub(crate) fn named(name: &str) -> Contestant {
        Contestant {
            name: name.to_owned(),
            ..Contestant::default()
        }
    }

    /// Runs it once, and waits for its end; `to_output`: also notes when it first writes something.
    pub(crate) fn run(&self, to_output: bool) -> Result<Run, String> {
        if !self.before.is_empty() {
            let child = spawn("before", &self.before, Stdio::null())?;
            wait("before", &self.before, child, 0)?;
        }
        let output = if to_output { Stdio::piped() } else { Stdio::null() };
        let start = Instant::now();
        let mut child = spawn(&self.name, &self.words, output)?;
        let output = child.stdout.take();
        let pid = child.id();
        let output_us = std::thread::scope(|scope| {
            if let Some(put) = &self.put {
                scope.spawn(move || put.send_or_kill(pid));
            }
            output.map(|mut output| {
                let first = output.read_exact(&mut [0]);
                let elapsed = start.elapsed().as_micros();
                let rest = output.read_to_end(&mut Vec::new());
                first.and(rest).map(|_| elapsed)
            })
        });
        let usage = wait(&self.name, &self.words, child, self.status)?;
        let time_us = start.elapsed().as_micros();
        let output_us = output_us
            .transpose()
            .map_err(|e| format!("output of {}: {e}", self.name))?;
        Ok(Run {
            output_us: output_us.unwrap_or_default(),
            time_us,
            cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
            peak_kib: usage.ru_maxrss,
        })
    }
}

impl Put {
    /// Ends the server when it cannot be asked or refuses, so that nobody waits for what it was to do.
    fn send_or_kill(&self, server: u32) {
        if let Err(why) = self.send() {
            eprintln!("side-by-side: PUT {}: {why}", self.path);
            let pid = libc::pid_t::try_from(server).expect("a pid fits pid_t");
            // SAFETY: touches no memory. The child is not waited for before this thread ends, so that the pid is its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    fn send(&self) -> Result<(), String> {
        let mut stream = self.connect()?;
        let Put { path, body, .. } = self;
        let length = body.len();
        let request =
            format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
        let mut answer = [0; 4096];
        match stream.read(&mut answer) {
            Ok(length) if length > 0 && !answer.starts_with(b"HTTP/1.1 2") => {
                Err(String::from_utf8_lossy(&answer[..length]).into_owned())
            }
            // One that has done its work may end before it answers; its status tells.
            _ => Ok(()),
        }
    }

    fn connect(&self) -> Result<UnixStream, String> {
        // SAFETY: takes a number, and is about this thread alone. Otherwise a sleep lasts 50 µs longer than it was told to.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        for _ in 0..TRIES {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return Ok(stream),
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
        Err(format!("nobody listens on {}", self.socket.display()))
    }
}

fn spawn(name: &str, words: &[String], output: Stdio) -> Result<Child, String> {
    Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("start {name} ({}): {error}", words[0]))
}

fn wait(name: &str, words: &[String], child: Child, success: i32) -> Result<libc::rusage, String> {
    let pid = libc::pid_t::try_from(child.id()).expect("a pid fits pid_t");
    let mut status = 0;
    // SAFETY: rusage is plain data for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals; the pid is a child of ours that nobody else waits for.
    if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } < 0 {
        return Err(format!("wait for {name}: {}", std::io::Error::last_os_error()));
    }
    let status = ExitStatus::from_raw(status);
    if status.code() != Some(success) {
        return Err(format!("{name} failed ({status}): {}", words.join(" ")));
    }
    Ok(usage)
}

fn micros(time: libc::timeval) -> u128 {
    // The kernel counts processor time upwards from zero.
    u128::from(time.tv_sec.unsigned_abs()) * 1_000_000 + u128::from(time.tv_usec.unsigned_abs())
}
