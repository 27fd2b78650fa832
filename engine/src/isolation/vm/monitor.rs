//! The monitor's process: one `berth-vmm` a microVM, a child of the shim.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use berth_guest::protocol::{READY_PORT, Ready, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::guest::{SOCKET, SOCKETS};
use super::host_cgroup::HostCgroup;
use super::programs::Programs;
use crate::error::{At, Error, Result};

/// How long a guest may take to boot. An emulated processor on a busy machine takes the better part of a minute.
const BOOT: Duration = Duration::from_secs(180);
/// What is kept of the console for whoever has to be told why a guest did not boot.
const CONSOLE_MAX: usize = 2048;
/// The guest's address; nobody else is on its vsock.
const CID: u32 = 3;
/// Quiet, because each byte on the console is an exit to the monitor; a panic ends the machine.
const CMDLINE: &str = "console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on";

/// A disk of the guest's.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    /// The serial number the guest finds it by: at most 20 letters and digits.
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
}

/// What a machine is to be.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) vcpus: u8,
    pub(super) memory_mib: u64,
    pub(super) disks: Vec<Disk>,
    /// In the monitor's own words.
    pub(super) shares: Value,
    /// Likewise.
    pub(super) cards: Value,
}

/// A monitor that runs, and its files in the run directory.
#[derive(Debug)]
pub(super) struct Monitor {
    child: Child,
    pidfd: OwnedFd,
    run_dir: PathBuf,
    cgroup: HostCgroup,
}

/// Files of ours in the run directory.
const CONFIG: &str = "vm.json";
const WORDS: &str = "vmm.err";

impl Monitor {
    /// Starts the machine in `cgroup` and waits until its PID 1 listens.
    pub(super) fn start(
        run_dir: &Path,
        programs: &Programs,
        machine: &Machine,
        cgroup: HostCgroup,
    ) -> Result<Monitor> {
        clear(run_dir);
        let config = run_dir.join(CONFIG);
        let text = serde_json::to_vec(&configuration(programs, machine)).expect("plain data");
        std::fs::write(&config, text).at("write", &config)?;
        let words = run_dir.join(WORDS);
        let sockets = run_dir.join(SOCKETS);
        // The process outside of the jail, which is root, connects for the machine.
        std::fs::create_dir(&sockets)
            .and_then(|()| std::fs::set_permissions(&sockets, Permissions::from_mode(0o700)))
            .at("create directory", &sockets)?;
        let ready = run_dir.join(format!("{SOCKET}_{READY_PORT}"));
        let listener = listen(&sockets, &ready).at("listen on", &ready)?;
        let mut command = Command::new(&programs.monitor);
        command
            .args(["--no-api", "--config-file", CONFIG])
            .args(cgroup.flags())
            // Names of sockets stay short relative to it.
            .current_dir(run_dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&words).at("create", &words)?);
        // Nobody else knows of it until the record names it, when the guest is up.
        berth_sys::signals::kill_with_starter(&mut command);
        let child = command.spawn().at("execute", &programs.monitor)?;
        let pid = rustix::process::Pid::from_child(&child);
        let mut monitor = Monitor {
            pidfd: rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                .at("open", "a pidfd of berth-vmm")?,
            child,
            run_dir: run_dir.into(),
            cgroup,
        };
        let console = monitor.child.stdout.take().expect("it was asked for");
        monitor.booted(&listener, console)?;
        // Nobody connects there a second time.
        let _ = std::fs::remove_file(&ready);
        Ok(monitor)
    }

    /// Waits for the guest's first word. The console is let go afterwards: what the guest says there is dropped.
    fn booted(&mut self, listener: &UnixListener, mut console: ChildStdout) -> Result<()> {
        let until = Instant::now() + BOOT;
        let mut said = Vec::new();
        let mut open = true;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failed("it was not up after three minutes", &said));
            }
            let mut fds = vec![
                PollFd::new(listener, PollFlags::IN),
                PollFd::new(&self.pidfd, PollFlags::IN),
            ];
            if open {
                fds.push(PollFd::new(&console, PollFlags::IN));
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(1) + 1,
                tv_nsec: 0,
            };
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("wait for", "the guest", e)),
            }
            let is = |n: usize| fds.get(n).is_some_and(|fd| !fd.revents().is_empty());
            let (word, ended, console_says) = (is(0), is(1), is(2));
            drop(fds);
            if console_says {
                let mut buffer = [0; 1024];
                let count = console.read(&mut buffer).unwrap_or(0);
                open = count > 0;
                said.extend_from_slice(&buffer[..count]);
                let surplus = said.len().saturating_sub(CONSOLE_MAX);
                said.drain(..surplus);
            }
            if word {
                return self.first_word(listener, &said);
            }
            if ended && !console_says {
                let why = format!("it ended before it was up{}", self.end());
                return Err(self.failed(&why, &said));
            }
        }
    }

    fn first_word(&self, listener: &UnixListener, said: &[u8]) -> Result<()> {
        let hear = || {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            berth_guest::frame::receive::<Ready>(&mut stream).map_err(io::Error::other)
        };
        match hear() {
            Ok(Some(Ready { version: VERSION })) => Ok(()),
            Ok(Some(Ready { version })) => {
                let why = format!("its PID 1 speaks version {version} of the protocol, berth {VERSION}");
                Err(self.failed(&why, said))
            }
            Ok(None) => Err(self.failed("its PID 1 said nothing", said)),
            Err(e) => Err(self.failed(&e.to_string(), said)),
        }
    }

    /// What its exit status says (docs/vmm.md), behind a comma.
    fn end(&mut self) -> String {
        let Ok(status) = self.child.wait() else {
            return String::new();
        };
        match (status.code(), status.signal()) {
            (Some(0), _) => ", switched off by the guest".into(),
            (Some(3), _) => ", reset by the guest, as kernels do that find no way on".into(),
            (Some(4), _) => {
                ", as the guest lost control of its processor: the kernel may not be for this host's KVM"
                    .into()
            }
            (Some(5), _) => ", as the guest's kernel panicked".into(),
            // Its own words say why.
            (Some(_), _) | (None, None) => String::new(),
            (None, Some(signal)) => format!(", killed by signal {signal}"),
        }
    }

    /// With the monitor's own words, or the end of the console's.
    fn failed(&self, why: &str, said: &[u8]) -> Error {
        let words = std::fs::read_to_string(self.run_dir.join(WORDS)).unwrap_or_default();
        let said = String::from_utf8_lossy(said);
        let last: Vec<&str> = match words.trim() {
            "" => said
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect(),
            words => words.lines().collect(),
        };
        let last = last[last.len().saturating_sub(3)..].join("; ");
        let last = last.replace(|c: char| c.is_control(), "?");
        Error::MicroVm {
            why: if last.is_empty() {
                why.into()
            } else {
                format!("{why}: {last}")
            },
        }
    }

    /// Where its limits are.
    pub(super) fn cgroup(&self) -> &HostCgroup {
        &self.cgroup
    }

    /// Its pid and start time.
    pub(super) fn process(&self) -> (i32, u64) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        let start = berth_sys::pidfd::stat(pid).map_or(0, |stat| stat.start_time);
        (pid, start)
    }

    /// Waits for it to end by itself; whether it did.
    pub(super) fn ends_within(&self, patience: Duration) -> bool {
        berth_sys::pidfd::ended_within(&self.pidfd, Some(patience)).unwrap_or(false)
    }

    /// Pulls the plug.
    pub(super) fn kill(&self) {
        // It may have ended; then there is nothing to kill.
        let _ = berth_sys::pidfd::send_signal(&self.pidfd, libc::SIGKILL);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
        clear(&self.run_dir);
    }
}

/// Removes what a monitor leaves in the run directory. Fine when there is nothing.
pub(crate) fn clear(run_dir: &Path) {
    for name in [CONFIG, WORDS, SOCKET, &format!("{SOCKET}_{READY_PORT}")] {
        let _ = std::fs::remove_file(run_dir.join(name));
    }
    let _ = std::fs::remove_dir(run_dir.join(SOCKETS));
}

/// Listens in `dir` by descriptor: `sun_path` holds 108 bytes, and `STATE` may be longer.
fn listen(dir: &Path, path: &Path) -> io::Result<UnixListener> {
    use std::os::fd::AsRawFd;
    let dir = File::open(dir)?;
    let name = path.file_name().expect("a name").to_string_lossy();
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

fn configuration(programs: &Programs, machine: &Machine) -> Value {
    let drives: Vec<Value> = machine
        .disks
        .iter()
        .map(|disk| {
            json!({
                "drive_id": disk.id,
                "path_on_host": disk.path,
                "is_root_device": false,
                "is_read_only": disk.read_only,
                // What a guest flushes is what it finds after a power cut.
                "cache_type": if disk.read_only { "Unsafe" } else { "Writeback" },
            })
        })
        .collect();
    json!({
        "boot-source": {
            "kernel_image_path": programs.kernel,
            "initrd_path": programs.initramfs,
            "boot_args": CMDLINE,
        },
        "machine-config": { "vcpu_count": machine.vcpus, "mem_size_mib": machine.memory_mib },
        "drives": drives,
        "shared-directories": machine.shares,
        "network-interfaces": machine.cards,
        "vsock": { "guest_cid": CID, "uds_path": SOCKET },
        "entropy": {},
    })
}
