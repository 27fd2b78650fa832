//! `--init`: a PID 1 that starts the container's program, passes signals on to it and collects every orphan.
//!
//! The program is berth-shim itself under the name `docker-init`. A copy of it, never the file the host runs, is mounted
//! read-only into the container (CVE-2019-5736).

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};

use crate::error::{At, Error, Result};
use crate::paths::Paths;

/// Where containers see it, docker's place.
pub(crate) const TARGET: &str = "/sbin/docker-init";

/// The command line with init in front.
pub(crate) fn wrap(args: Vec<String>) -> Vec<String> {
    [TARGET.to_owned(), "--".to_owned()]
        .into_iter()
        .chain(args)
        .collect()
}

/// The copy to mount, made by whoever needs it first. Called by a shim: the copy is of the running program.
pub(crate) fn program(paths: &Paths) -> Result<PathBuf> {
    let path = paths.init();
    if path.exists() {
        return Ok(path);
    }
    // Several may begin at once; each fills its own file and the last rename wins.
    let aside = paths
        .state
        .join(format!("docker-init.{}", rustix::process::getpid()));
    let fill = || {
        let mut from = File::open("/proc/self/exe")?;
        let mut to = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o555)
            .open(&aside)?;
        std::io::copy(&mut from, &mut to)?;
        std::fs::rename(&aside, &path)
    };
    fill()
        .map_err(|e| {
            let _ = std::fs::remove_file(&aside);
            Error::io("create", &path, e)
        })
        .map(|()| path.clone())
}

/// Whether the program was executed as a container's init.
pub fn is_init(name: &OsStr) -> bool {
    Path::new(name).file_name() == Some(OsStr::new("docker-init"))
}

/// Init's main; `args` are `--` and the command. Returns its exit code: 128 plus the signal that ended it, 127 when it
/// is missing, 126 when it cannot be executed.
pub fn main(args: &[OsString]) -> u8 {
    match run(args) {
        Ok(code) => code,
        Err(e) => {
            use std::io::Write;
            // Nobody else is there to hear it.
            let _ = writeln!(std::io::stderr(), "docker-init: {}", e.chain());
            e.exit_code()
        }
    }
}

fn run(args: &[OsString]) -> Result<u8> {
    let [dashes, program, rest @ ..] = args else {
        return Err(Error::NoCommand("of docker-init".into()));
    };
    if dashes != "--" {
        return Err(Error::Invalid {
            what: "arguments of docker-init".into(),
            why: "expected -- and a command".into(),
        });
    }
    // Blocked before the child is born: neither its end nor a stop that comes at once is missed.
    let signals = berth_sys::signals::block_all().at("watch", "signals")?;
    // A process group of its own: what a terminal sends reaches it once, not through us a second time.
    let mut command = Command::new(program);
    command.args(rest).process_group(0);
    berth_sys::signals::unblock_at_exec(&mut command);
    let child = command.spawn().map_err(|e| {
        let program = program.to_string_lossy().into_owned();
        match e.kind() {
            ErrorKind::NotFound => Error::CommandNotFound { program },
            _ => Error::CommandNotExecutable {
                program,
                why: e.to_string(),
            },
        }
    })?;
    let pid = Pid::from_child(&child);
    let target =
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).at("open", program)?;
    let stdin = std::io::stdin();
    if rustix::termios::isatty(&stdin) {
        // It may have read from the terminal before it was its foreground, and been stopped for that.
        let _ = rustix::termios::tcsetpgrp(&stdin, pid);
        let _ = kill_process_group(pid, Signal::CONT);
    }
    loop {
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
        while let Some(signal) = berth_sys::signals::next(&signals).at("read", "signals")? {
            if signal == libc::SIGCHLD {
                continue;
            }
            // Real-time signals too, which rustix does not name. One that comes too late meets a zombie.
            let _ = berth_sys::pidfd::send_signal(&target, signal);
        }
        // One SIGCHLD may stand for many ends.
        while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
            if ended != pid {
                continue;
            }
            let code = status
                .exit_status()
                .or(status.terminating_signal().map(|n| 128 + n))
                .unwrap_or(255);
            return Ok(u8::try_from(code).unwrap_or(255));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_name_makes_it_init() {
        assert!(is_init(OsStr::new("/sbin/docker-init")) && is_init(OsStr::new("docker-init")));
        assert!(!is_init(OsStr::new("/proc/self/fd/7")) && !is_init(OsStr::new("berth-shim")));
    }

    #[test]
    fn the_command_comes_after_a_double_dash() {
        assert_eq!(wrap(vec!["-x".into()]), [TARGET, "--", "-x"]);
        assert_eq!(main(&["-x".into(), "y".into()]), 125);
    }
}
