//! A person at a terminal: a pty whose other end is a program's controlling terminal.

use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// How long a program may take to write what a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program at a terminal, and all it has written. Dropping it kills the program.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    program: Child,
    /// Everything written so far, lossily decoded.
    pub screen: String,
    seen: usize,
}

impl Terminal {
    /// Starts `command` at a terminal of this size.
    ///
    /// # Panics
    /// When there are no terminals to be had, or the program or setsid(1) cannot be started.
    #[must_use]
    pub fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("open a terminal");
        grantpt(&master).expect("grant the terminal");
        unlockpt(&master).expect("unlock the terminal");
        let name = ptsname(&master, Vec::new()).expect("name the terminal");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(&name, flags, Mode::empty()).expect("open the terminal's other end");
        let another = || slave.try_clone().expect("duplicate a descriptor");
        // setsid(1) makes the terminal the controlling one: resizing signals its foreground process group alone.
        let mut program = Command::new("setsid");
        program
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            program.env(name, value.unwrap_or_default());
        }
        let program = program
            .stdin(another())
            .stdout(another())
            .stderr(another())
            .spawn();
        let terminal = Self {
            master,
            program: program.expect("start setsid"),
            screen: String::new(),
            seen: 0,
        };
        terminal.resize(rows, columns);
        terminal
    }

    /// Changes the size; the program gets SIGWINCH.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).expect("set the terminal's size");
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn enter(&self, text: &str) {
        let written = rustix::io::write(&self.master, text.as_bytes()).expect("write to the terminal");
        assert_eq!(written, text.len(), "the terminal takes what a person types");
    }

    /// Waits until `text` comes after what was waited for before.
    ///
    /// # Panics
    /// When it does not come; the message holds the screen.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(
                self.read(deadline),
                "{text:?} did not come; the screen:\n{}",
                self.screen
            );
        }
    }

    /// Waits for the program's end; its exit code, 128+n after signal n.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.program.try_wait().expect("wait for the program") {
                while self.read(Instant::now()) {}
                return status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            assert!(
                Instant::now() < deadline,
                "it does not end; the screen:\n{}",
                self.screen
            );
            self.read(Instant::now() + Duration::from_millis(20));
        }
    }

    /// Reads what there is; whether something came before the deadline.
    fn read(&mut self, deadline: Instant) -> bool {
        let left =
            Timespec::try_from(deadline.saturating_duration_since(Instant::now())).expect("a short time");
        let ready = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&left));
        if ready != Ok(1) {
            return false;
        }
        let mut bytes = [0; 4096];
        match rustix::io::read(&self.master, &mut bytes) {
            Ok(count) if count > 0 => {
                self.screen.push_str(&String::from_utf8_lossy(&bytes[..count]));
                true
            }
            // EIO: nobody has the other end open any more.
            _ => false,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
