//! `--health-*` and the image's HEALTHCHECK.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the shim asks a container whether it is well. Defaults are docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", line]`, or `["NONE"]` to switch the image's off.
    pub test: Vec<String>,
    /// Between the end of one check and the start of the next; 30 s when not given.
    pub interval: Option<Duration>,
    /// After which a check is killed and counts as failed; 30 s when not given.
    pub timeout: Option<Duration>,
    /// For how long after the start failures do not count; 0 when not given.
    pub start_period: Option<Duration>,
    /// Between checks during the start period; 5 s when not given.
    pub start_interval: Option<Duration>,
    /// Consecutive failures after which the container is unhealthy; 3 when not given.
    pub retries: Option<u32>,
}

impl Healthcheck {
    /// Refuses what docker refuses: checks that would follow one another without rest.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a time above 0 and below a millisecond.
    pub fn check(&self) -> Result<()> {
        let times = [
            ("--health-interval", self.interval),
            ("--health-timeout", self.timeout),
            ("--health-start-period", self.start_period),
            ("--health-start-interval", self.start_interval),
        ];
        for (flag, time) in times {
            if time.is_some_and(|time| !time.is_zero() && time < Duration::from_millis(1)) {
                return Err(Error::Invalid {
                    what: flag.into(),
                    why: "the shortest time is 1ms; 0 is the default".into(),
                });
            }
        }
        Ok(())
    }

    /// Between checks.
    pub fn interval(&self) -> Duration {
        self.interval
            .filter(|d| !d.is_zero())
            .unwrap_or(Duration::from_secs(30))
    }

    /// For one check.
    pub fn timeout(&self) -> Duration {
        self.timeout
            .filter(|d| !d.is_zero())
            .unwrap_or(Duration::from_secs(30))
    }

    /// Grace after the start.
    pub fn start_period(&self) -> Duration {
        self.start_period.unwrap_or_default()
    }

    /// Between checks during the grace.
    pub fn start_interval(&self) -> Duration {
        self.start_interval
            .filter(|d| !d.is_zero())
            .unwrap_or(Duration::from_secs(5))
    }

    /// Failures that make it unhealthy.
    pub fn retries(&self) -> u32 {
        self.retries.filter(|n| *n > 0).unwrap_or(3)
    }

    /// The command to run inside, or none when there is nothing to check.
    pub fn command(&self) -> Option<Vec<String>> {
        match self.test.split_first() {
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => Some(rest.to_vec()),
            Some((kind, rest)) if kind == "CMD-SHELL" && !rest.is_empty() => {
                Some(vec!["/bin/sh".into(), "-c".into(), rest.join(" ")])
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_form_and_none() {
        let check = |test: &[&str]| Healthcheck {
            test: test.iter().map(ToString::to_string).collect(),
            interval: None,
            timeout: None,
            start_period: None,
            start_interval: None,
            retries: None,
        };
        assert_eq!(
            check(&["CMD-SHELL", "exit 1"]).command().unwrap(),
            ["/bin/sh", "-c", "exit 1"]
        );
        assert_eq!(check(&["NONE"]).command(), None);
        assert_eq!(check(&[]).command(), None);
        assert_eq!(check(&[]).retries(), 3);
    }
}
