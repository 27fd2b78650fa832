//! The health check: a process of exec now and then, watched by the shim's loop like everything else.
//!
//! ```text
//! waiting ─ next ─► probing ─ ends, or killed at its timeout ─► result: streak, status ─► waiting
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_runtime::{Console, Container, ExecOptions, Stdio};
use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::config::ContainerConfig;
use crate::container::{Health, HealthResult};
use crate::error::{At, Error, Result};
use crate::exec::{self, ExecRequest};
use crate::flags::Healthcheck;
use crate::paths::Paths;

/// Bytes of output kept of a check, docker's bound.
const OUTPUT_MAX: usize = 4096;
/// Longest wait for a step of a check's start; milliseconds unless something in the container keeps it from going on.
const PATIENCE: Duration = Duration::from_secs(3);
/// Outcomes kept.
const LOG_MAX: usize = 5;

/// The check of one run of a container.
#[derive(Debug)]
pub(super) struct Monitor {
    check: Healthcheck,
    command: Vec<String>,
    began: Instant,
    next: Instant,
    probe: Option<Probe>,
}

#[derive(Debug)]
struct Probe {
    process: OwnedFd,
    pid: i32,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    start: Timestamp,
    deadline: Instant,
    timed_out: bool,
}

impl Monitor {
    /// The monitor of a container that starts now; none when it has no check.
    pub(super) fn new(config: &ContainerConfig, now: Instant) -> Option<Monitor> {
        let check = config.healthcheck.clone()?;
        let command = check.command()?;
        let mut monitor = Monitor {
            check,
            command,
            began: now,
            next: now,
            probe: None,
        };
        monitor.next = now + monitor.pause(true, now);
        Some(monitor)
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.probe {
            // Killed already; its descriptor says the rest.
            Some(probe) if probe.timed_out => None,
            Some(probe) => Some(probe.deadline),
            None => Some(self.next),
        }
    }

    /// The check that runs.
    pub(super) fn pid(&self) -> Option<i32> {
        self.probe.as_ref().map(|p| p.pid)
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.probe
            .iter()
            .flat_map(|p| [Some(p.process.as_fd()), p.output.as_ref().map(AsFd::as_fd)])
            .flatten()
    }

    /// Does what is due; true when `health` changed. `may_start` is false while the container is frozen.
    pub(super) fn step(
        &mut self,
        container: &Container,
        paths: &Paths,
        config: &ContainerConfig,
        may_start: bool,
        health: &mut Health,
    ) -> bool {
        let now = Instant::now();
        let Some(probe) = &mut self.probe else {
            if now < self.next {
                return false;
            }
            if !may_start {
                self.next = now + self.pause(health.status == "starting", now);
                return false;
            }
            return match self.begin(container, paths, config, now) {
                Ok(probe) => {
                    self.probe = Some(probe);
                    false
                }
                Err(e) => {
                    let at = Timestamp::now();
                    let result = HealthResult {
                        start: at,
                        end: at,
                        exit_code: e.exit_code().into(),
                        output: e.chain(),
                    };
                    self.judge(result, now, health);
                    true
                }
            };
        };
        probe.read();
        if now >= probe.deadline && !probe.timed_out {
            probe.timed_out = true;
            probe.kill();
        }
        if !berth_sys::pidfd::ended_within(&probe.process, Some(Duration::ZERO)).unwrap_or(true) {
            return false;
        }
        let Some(mut probe) = self.probe.take() else {
            return false;
        };
        let result = probe.result(&self.check);
        self.judge(result, now, health);
        true
    }

    fn begin(
        &self,
        container: &Container,
        paths: &Paths,
        config: &ContainerConfig,
        now: Instant,
    ) -> Result<Probe> {
        let request = ExecRequest {
            command: self.command.clone(),
            ..ExecRequest::default()
        };
        let root = exec::root_of(container.pid())?;
        let process = exec::process(config, &request, root.as_fd())?;
        let process = serde_json::from_value(process).map_err(|source| Error::Damaged {
            path: "process of the health check".into(),
            source,
        })?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe for", "the health check")?;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .at("open", "/dev/null")?;
        let both = write.try_clone().at("prepare", "the health check")?;
        rustix::io::ioctl_fionbio(&read, true).at("prepare", "the health check")?;
        let options = ExecOptions {
            stdio: Stdio::Fds([null, write, both]),
            console: Console::None,
            seccomp_cache: Some(paths.seccomp()),
            // Until the program runs the loop stands still, and stop and kill go unheard.
            patience: Some(PATIENCE.min(self.check.timeout())),
            ..ExecOptions::default()
        };
        let started = container
            .exec(&process, options)
            .map_err(|e| super::runtime_error(&config.id, e))?;
        Ok(Probe {
            process: started.pidfd,
            pid: started.pid,
            output: Some(read),
            text: Vec::new(),
            start: Timestamp::now(),
            deadline: now + self.check.timeout(),
            timed_out: false,
        })
    }

    fn in_grace(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) < self.check.start_period()
    }

    fn pause(&self, starting: bool, now: Instant) -> Duration {
        if starting && self.in_grace(now) {
            self.check.start_interval()
        } else {
            self.check.interval()
        }
    }

    fn judge(&mut self, result: HealthResult, now: Instant, health: &mut Health) {
        let starting = health.status == "starting";
        if result.exit_code == 0 {
            health.failing_streak = 0;
            health.status = "healthy".into();
        } else if !(starting && self.in_grace(now)) {
            health.failing_streak += 1;
            if health.failing_streak >= self.check.retries() {
                health.status = "unhealthy".into();
            }
        }
        health.log.push(result);
        let surplus = health.log.len().saturating_sub(LOG_MAX);
        health.log.drain(..surplus);
        self.next = now + self.pause(health.status == "starting", now);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // With --pid host a check would outlive its container.
        if let Some(probe) = &self.probe {
            probe.kill();
            let _ = berth_sys::pidfd::wait(&probe.process);
        }
    }
}

impl Probe {
    /// The whole session of the check, so that a shell's children go too. Its pid cannot have a new owner: nobody but us
    /// collects it, and we have not yet.
    fn kill(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let _ = berth_sys::pidfd::send_signal(&self.process, libc::SIGKILL);
    }

    /// Takes what is there, one buffer at a time: a check that floods its output cannot hold up the loop.
    fn read(&mut self) {
        let Some(fd) = &self.output else { return };
        let mut buffer = [0u8; OUTPUT_MAX];
        match rustix::io::read(fd, &mut buffer) {
            Ok(n) if n > 0 => {
                let room = OUTPUT_MAX - self.text.len();
                self.text.extend_from_slice(&buffer[..n.min(room)]);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            _ => self.output = None,
        }
    }

    fn result(&mut self, check: &Healthcheck) -> HealthResult {
        self.read();
        let code = berth_sys::pidfd::wait(&self.process).map_or(-1, berth_sys::pidfd::Exit::code);
        let (exit_code, output) = if self.timed_out {
            (
                -1,
                format!("health check exceeded its timeout of {:?}", check.timeout()),
            )
        } else {
            (code, String::from_utf8_lossy(&self.text).into_owned())
        };
        HealthResult {
            start: self.start,
            end: Timestamp::now(),
            exit_code,
            output,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(retries: u32, grace: Duration) -> Monitor {
        let now = Instant::now();
        Monitor {
            check: Healthcheck {
                test: vec!["CMD".into(), "true".into()],
                interval: Some(Duration::from_secs(60)),
                timeout: None,
                start_period: Some(grace),
                start_interval: Some(Duration::from_secs(1)),
                retries: Some(retries),
            },
            command: vec!["true".into()],
            began: now,
            next: now,
            probe: None,
        }
    }

    fn result(exit_code: i32) -> HealthResult {
        HealthResult {
            start: Timestamp::UNIX_EPOCH,
            end: Timestamp::UNIX_EPOCH,
            exit_code,
            output: String::new(),
        }
    }

    fn starting() -> Health {
        Health {
            status: "starting".into(),
            ..Health::default()
        }
    }

    #[test]
    fn so_many_failures_in_a_row_are_unhealthy_and_one_success_heals() {
        let (mut m, mut health) = (monitor(2, Duration::ZERO), starting());
        m.judge(result(1), m.began, &mut health);
        assert_eq!(health.status, "starting");
        m.judge(result(1), m.began, &mut health);
        assert_eq!((health.status.as_str(), health.failing_streak), ("unhealthy", 2));
        m.judge(result(0), m.began, &mut health);
        assert_eq!((health.status.as_str(), health.failing_streak), ("healthy", 0));
        for _ in 0..9 {
            m.judge(result(0), m.began, &mut health);
        }
        assert_eq!(health.log.len(), LOG_MAX);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_and_come_faster() {
        let (mut m, mut health) = (monitor(1, Duration::from_secs(100)), starting());
        m.judge(result(1), m.began, &mut health);
        assert_eq!((health.status.as_str(), health.failing_streak), ("starting", 0));
        assert_eq!(m.next - m.began, Duration::from_secs(1));
        m.judge(result(1), m.began + Duration::from_secs(100), &mut health);
        assert_eq!(health.status, "unhealthy");
    }
}
