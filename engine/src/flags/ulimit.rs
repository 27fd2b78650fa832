//! `--ulimit`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidFlag;

/// `name=soft[:hard]`; `-1` is unlimited, a missing hard limit is the soft one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// docker's lower-case name, such as `nofile`.
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

const NAMES: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

impl Ulimit {
    /// The name as the runtime spec wants it, `RLIMIT_NOFILE`.
    pub fn rlimit_name(&self) -> String {
        format!("RLIMIT_{}", self.name.to_ascii_uppercase())
    }
}

impl FromStr for Ulimit {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: &str| InvalidFlag::new("ulimit", s, why);
        let (name, limits) = s
            .split_once('=')
            .ok_or_else(|| bad("expected name=soft[:hard]"))?;
        if !NAMES.contains(&name) {
            return Err(bad("no such limit"));
        }
        let number = |t: &str| match t {
            "-1" | "unlimited" => Ok(u64::MAX),
            _ if t.bytes().all(|b| b.is_ascii_digit()) => {
                t.parse().map_err(|_| bad("expected a number or -1"))
            }
            _ => Err(bad("expected a number or -1")),
        };
        let (soft, hard) = match limits.split_once(':') {
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        if soft > hard {
            return Err(bad("the soft limit is above the hard one"));
        }
        Ok(Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        })
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |n: u64| {
            if n == u64::MAX {
                "-1".to_owned()
            } else {
                n.to_string()
            }
        };
        write!(f, "{}={}:{}", self.name, show(self.soft), show(self.hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn soft_alone_is_both() {
        let limit: Ulimit = "nofile=1024".parse().unwrap();
        assert_eq!((limit.soft, limit.hard), (1024, 1024));
        assert_eq!("core=-1".parse::<Ulimit>().unwrap().hard, u64::MAX);
        for bad in [
            "nofile",
            "nofile=",
            "x=1",
            "nofile=2:1",
            "nofile=-1:5",
            "nofile=+3",
            "nofile=1:2:3",
        ] {
            assert!(bad.parse::<Ulimit>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(soft in 0u64..u64::MAX, more in 0u64..1000) {
            let limit = Ulimit { name: "nofile".into(), soft, hard: soft.saturating_add(more) };
            prop_assert_eq!(limit.to_string().parse::<Ulimit>().unwrap(), limit);
        }
    }
}
