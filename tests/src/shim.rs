//! A container's shim as the kernel shows it: its children, descriptors, threads and memory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::{Berth, HANG};

/// The shim of a container that runs.
#[derive(Debug)]
pub struct Shim {
    /// Its pid.
    pub pid: i32,
    /// The container's init, its child.
    pub init: i32,
}

impl Shim {
    /// The shim of the container with this id.
    ///
    /// # Panics
    /// When the container has no record, or does not run.
    #[must_use]
    pub fn of(berth: &Berth, id: &str) -> Self {
        let file = berth.root().join("containers").join(id).join("state.json");
        let text = std::fs::read_to_string(&file).expect("a container has a record");
        let state: serde_json::Value = serde_json::from_str(&text).expect("records are JSON");
        let pid = |key: &str| {
            let pid = state[key].as_i64().and_then(|pid| i32::try_from(pid).ok());
            pid.filter(|pid| *pid > 1)
                .unwrap_or_else(|| panic!("{key} of a running container in {text}"))
        };
        Self {
            pid: pid("shim_pid"),
            init: pid("pid"),
        }
    }

    /// Runs a detached container of busybox without a network; its id and its shim.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn run(berth: &Berth, flags: &[&str], program: &[&str]) -> (String, Self) {
        let command = [
            &["run", "--detach", "--network=none"],
            flags,
            &["busybox"],
            program,
        ];
        let id = berth.run(command.concat()).ok();
        let shim = Self::of(berth, &id);
        (id, shim)
    }

    /// Runs `berth ARGUMENTS`, which must end by itself with 0. If it hangs the shim is killed too, or nothing could remove the
    /// container.
    ///
    /// # Panics
    /// When it hangs or fails.
    #[track_caller]
    pub fn hears(&self, berth: &Berth, arguments: &[&str]) {
        let mut command = berth.command(arguments).spawn().expect("start berth");
        let deadline = Instant::now() + HANG;
        let code = loop {
            if let Some(status) = command.try_wait().expect("wait") {
                break status.code();
            }
            if Instant::now() > deadline {
                let _ = command.kill();
                let _ = command.wait();
                self.kill();
                panic!("not heard: {arguments:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(code, Some(0), "{arguments:?}");
    }

    /// Ends it as `kill -9` does.
    ///
    /// # Panics
    /// Never: a pid is positive.
    pub fn kill(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("pids are positive");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// Its children but for init: checks that run, and whatever should not be there.
    #[must_use]
    pub fn others(&self) -> Vec<i32> {
        let list = std::fs::read_to_string(self.proc(&format!("task/{}/children", self.pid)));
        let list = list.unwrap_or_default();
        let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.filter(|pid| *pid != self.init).collect()
    }

    /// How many descriptors it holds.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd"))
            .expect("the shim lives")
            .count()
    }

    /// How many threads it has.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn threads(&self) -> usize {
        std::fs::read_dir(self.proc("task"))
            .expect("the shim lives")
            .count()
    }

    /// Its anonymous memory now, in KiB.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).expect("the shim lives");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.expect("RssAnon of proc_pid_status(5)")
    }
}
