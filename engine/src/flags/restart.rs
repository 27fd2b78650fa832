//! `--restart`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidFlag;

/// When the shim starts a container again that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After an exit code other than 0, at most this often (0: no bound).
    OnFailure {
        /// How many restarts at most; 0 is no bound.
        max: u32,
    },
    /// After any exit.
    Always,
    /// As always, but not when the user stopped it.
    UnlessStopped,
}

impl RestartPolicy {
    /// Whether a container that ended with `code` after `restarts` restarts is started again.
    pub fn restarts(self, code: i32, restarts: u32, stopped_by_user: bool) -> bool {
        if stopped_by_user {
            return false;
        }
        match self {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { max } => code != 0 && (max == 0 || restarts < max),
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        }
    }

    /// Whether a container that has run is to run again after the host has booted.
    pub fn starts_on_boot(self, stopped_by_user: bool) -> bool {
        match self {
            RestartPolicy::No | RestartPolicy::OnFailure { .. } => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !stopped_by_user,
        }
    }

    /// docker's name of the policy, without the count.
    pub fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::OnFailure { .. } => "on-failure",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
        }
    }

    /// The bound of `on-failure`, 0 for none.
    pub fn maximum_retries(self) -> u32 {
        match self {
            RestartPolicy::OnFailure { max } => max,
            _ => 0,
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: &str| InvalidFlag::new("restart policy", s, why);
        let (name, count) = match s.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (s, None),
        };
        let policy = match name {
            "no" | "" => RestartPolicy::No,
            "always" => RestartPolicy::Always,
            "unless-stopped" => RestartPolicy::UnlessStopped,
            "on-failure" => {
                let max = count
                    .map(str::parse)
                    .transpose()
                    .map_err(|_| bad("the count is no number"))?;
                return Ok(RestartPolicy::OnFailure {
                    max: max.unwrap_or(0),
                });
            }
            _ => return Err(bad("expected no, on-failure[:max], always or unless-stopped")),
        };
        match count {
            Some(_) => Err(bad("only on-failure takes a count")),
            None => Ok(policy),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartPolicy::OnFailure { max } if *max > 0 => write!(f, "on-failure:{max}"),
            other => f.write_str(other.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_parse_and_print() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:5"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        for bad in ["always:3", "on-failure:x", "on-failure:-1", "sometimes"] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn on_failure_counts_and_a_stop_is_final() {
        let policy = RestartPolicy::OnFailure { max: 2 };
        assert!(policy.restarts(1, 1, false));
        assert!(!policy.restarts(1, 2, false));
        assert!(!policy.restarts(0, 0, false));
        assert!(RestartPolicy::Always.restarts(0, 99, false));
        assert!(!RestartPolicy::Always.restarts(0, 0, true));
    }

    #[test]
    fn a_boot_starts_always_and_unless_stopped() {
        for (text, of_itself, stopped) in [
            ("no", false, false),
            ("on-failure:3", false, false),
            ("always", true, true),
            ("unless-stopped", true, false),
        ] {
            let policy: RestartPolicy = text.parse().unwrap();
            let answers = (policy.starts_on_boot(false), policy.starts_on_boot(true));
            assert_eq!(answers, (of_itself, stopped), "{text}");
        }
    }
}
