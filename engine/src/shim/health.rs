//! The health check: a process of exec now and then, watched by the shim's loop like everything else.
//!
//! ```text
//! waiting ─ next ─► probing ─ ends, or killed at its timeout ─► result: streak, status ─► waiting
//! ```

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};

use crate::config::ContainerConfig;
use crate::container::{Health, HealthResult};
use crate::error::Result;
use crate::exec::ExecRequest;
use crate::flags::Healthcheck;
use crate::isolation::{Probe, Sandbox};
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
    running: Option<Check>,
}

#[derive(Debug)]
struct Check {
    probe: Probe,
    text: Vec<u8>,
    start: Timestamp,
    deadline: Instant,
    timed_out: bool,
    /// It has ended, and its output may not be all there.
    code: Option<i32>,
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
            running: None,
        };
        monitor.next = now + monitor.pause(true, now);
        Some(monitor)
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.running {
            // Killed already; its descriptor says the rest.
            Some(check) if check.timed_out => None,
            Some(check) => Some(check.deadline),
            None => Some(self.next),
        }
    }

    /// The check that runs.
    pub(super) fn pid(&self) -> Option<i32> {
        self.running.as_ref().and_then(|check| check.probe.process.pid())
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running.iter().flat_map(|check| {
            let Probe { process, outputs } = &check.probe;
            let end = check.code.is_none().then(|| process.ended());
            end.into_iter().chain(outputs.iter().map(AsFd::as_fd))
        })
    }

    /// Does what is due; true when `health` changed. `may_start` is false while the container is frozen.
    pub(super) fn step(
        &mut self,
        sandbox: &dyn Sandbox,
        paths: &Paths,
        config: &ContainerConfig,
        may_start: bool,
        health: &mut Health,
    ) -> bool {
        let now = Instant::now();
        let Some(check) = &mut self.running else {
            if now < self.next {
                return false;
            }
            if !may_start {
                self.next = now + self.pause(health.status == "starting", now);
                return false;
            }
            return match self.begin(sandbox, paths, config, now) {
                Ok(check) => {
                    self.running = Some(check);
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
        check.read();
        if now >= check.deadline && !check.timed_out {
            check.timed_out = true;
            check.probe.process.kill();
        }
        let Some(result) = check.result(&self.check) else {
            return false;
        };
        self.running = None;
        self.judge(result, now, health);
        true
    }

    fn begin(
        &self,
        sandbox: &dyn Sandbox,
        paths: &Paths,
        config: &ContainerConfig,
        now: Instant,
    ) -> Result<Check> {
        let request = ExecRequest {
            command: self.command.clone(),
            ..ExecRequest::default()
        };
        let patience = PATIENCE.min(self.check.timeout());
        Ok(Check {
            probe: sandbox.probe(paths, config, &request, patience)?,
            text: Vec::new(),
            start: Timestamp::now(),
            deadline: now + self.check.timeout(),
            timed_out: false,
            code: None,
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
        if let Some(check) = &mut self.running {
            let process = &mut check.probe.process;
            process.kill();
            while process.exit_code().is_none() {
                let _ = poll(
                    &mut [PollFd::from_borrowed_fd(process.ended(), PollFlags::IN)],
                    None,
                );
            }
        }
    }
}

impl Check {
    /// Takes what is there, one buffer of each stream at a time: a check that floods its output cannot hold up the loop.
    fn read(&mut self) {
        let text = &mut self.text;
        self.probe.outputs.retain(|output| {
            let mut buffer = [0u8; OUTPUT_MAX];
            match rustix::io::read(output, &mut buffer) {
                Ok(n) if n > 0 => {
                    let room = OUTPUT_MAX - text.len();
                    text.extend_from_slice(&buffer[..n.min(room)]);
                    true
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
                _ => false,
            }
        });
    }

    /// What came of it, once it has ended.
    fn result(&mut self, check: &Healthcheck) -> Option<HealthResult> {
        let Probe { process, outputs } = &mut self.probe;
        if self.code.is_none() {
            self.code = process.exit_code();
        }
        let code = self.code?;
        if process.outputs_lag() && !outputs.is_empty() {
            return None;
        }
        self.read();
        let (exit_code, output) = if self.timed_out {
            (
                -1,
                format!("health check exceeded its timeout of {:?}", check.timeout()),
            )
        } else {
            (code, String::from_utf8_lossy(&self.text).into_owned())
        };
        Some(HealthResult {
            start: self.start,
            end: Timestamp::now(),
            exit_code,
            output,
        })
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
            running: None,
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
