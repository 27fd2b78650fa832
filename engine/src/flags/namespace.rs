//! `--pid`, `--ipc`, `--uts`, `--userns`, `--cgroupns`, `--network`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidFlag;

macro_rules! string_serde {
    ($ty:ty) => {
        impl TryFrom<String> for $ty {
            type Error = InvalidFlag;
            fn try_from(s: String) -> Result<Self, InvalidFlag> {
                s.parse()
            }
        }
        impl From<$ty> for String {
            fn from(mode: $ty) -> String {
                mode.to_string()
            }
        }
    };
}

/// `--pid`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PidMode {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of a running container, by name or id.
    Container(String),
}

/// `--ipc`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IpcMode {
    /// One of its own; berth lets others join it, as docker's `shareable`.
    #[default]
    Private,
    /// One of its own, with no /dev/shm.
    None,
    /// The host's.
    Host,
    /// That of a running container, by name or id.
    Container(String),
}

/// `--uts`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UtsMode {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// `--userns`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UsernsMode {
    /// The host's: the default, as docker's without `userns-remap`.
    #[default]
    Host,
}

/// `--cgroupns`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CgroupnsMode {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// `--network`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Bridge,
    /// Loopback only.
    None,
    /// The host's.
    Host,
    /// That of a running container, by name or id.
    Container(String),
    /// A network the user made.
    Named(String),
}

fn container(s: &str) -> Option<&str> {
    s.strip_prefix("container:").filter(|rest| !rest.is_empty())
}

impl FromStr for PidMode {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        match s {
            "" | "private" => Ok(PidMode::Private),
            "host" => Ok(PidMode::Host),
            _ => container(s)
                .map(|c| PidMode::Container(c.into()))
                .ok_or_else(|| InvalidFlag::new("pid mode", s, "expected private, host or container:NAME")),
        }
    }
}

impl fmt::Display for PidMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PidMode::Private => Ok(()),
            PidMode::Host => f.write_str("host"),
            PidMode::Container(c) => write!(f, "container:{c}"),
        }
    }
}

impl FromStr for IpcMode {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        match s {
            "" | "private" | "shareable" => Ok(IpcMode::Private),
            "none" => Ok(IpcMode::None),
            "host" => Ok(IpcMode::Host),
            _ => container(s).map(|c| IpcMode::Container(c.into())).ok_or_else(|| {
                InvalidFlag::new(
                    "ipc mode",
                    s,
                    "expected private, shareable, none, host or container:NAME",
                )
            }),
        }
    }
}

impl fmt::Display for IpcMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IpcMode::Private => f.write_str("private"),
            IpcMode::None => f.write_str("none"),
            IpcMode::Host => f.write_str("host"),
            IpcMode::Container(c) => write!(f, "container:{c}"),
        }
    }
}

impl FromStr for UtsMode {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        match s {
            "" | "private" => Ok(UtsMode::Private),
            "host" => Ok(UtsMode::Host),
            _ => Err(InvalidFlag::new("uts mode", s, "expected private or host")),
        }
    }
}

impl fmt::Display for UtsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == UtsMode::Host { "host" } else { "" })
    }
}

impl FromStr for UsernsMode {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        match s {
            "" | "host" => Ok(UsernsMode::Host),
            _ => Err(InvalidFlag::new(
                "userns mode",
                s,
                "not supported: only the host's user namespace",
            )),
        }
    }
}

impl fmt::Display for UsernsMode {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl FromStr for CgroupnsMode {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        match s {
            "" | "private" => Ok(CgroupnsMode::Private),
            "host" => Ok(CgroupnsMode::Host),
            _ => Err(InvalidFlag::new("cgroupns mode", s, "expected private or host")),
        }
    }
}

impl fmt::Display for CgroupnsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == CgroupnsMode::Host {
            "host"
        } else {
            "private"
        })
    }
}

impl FromStr for NetworkMode {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        match s {
            "" | "default" | "bridge" => Ok(NetworkMode::Bridge),
            "none" => Ok(NetworkMode::None),
            "host" => Ok(NetworkMode::Host),
            _ if s.starts_with("container:") => container(s)
                .map(|c| NetworkMode::Container(c.into()))
                .ok_or_else(|| InvalidFlag::new("network", s, "container: needs a name")),
            // The name is checked like a container's: it becomes a file name.
            _ if s.parse::<crate::id::ContainerName>().is_ok() && !s.starts_with('/') => {
                Ok(NetworkMode::Named(s.into()))
            }
            _ => Err(InvalidFlag::new("network", s, "no name of a network")),
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkMode::Bridge => f.write_str("bridge"),
            NetworkMode::None => f.write_str("none"),
            NetworkMode::Host => f.write_str("host"),
            NetworkMode::Container(c) => write!(f, "container:{c}"),
            NetworkMode::Named(name) => f.write_str(name),
        }
    }
}

string_serde!(PidMode);
string_serde!(IpcMode);
string_serde!(UtsMode);
string_serde!(UsernsMode);
string_serde!(CgroupnsMode);
string_serde!(NetworkMode);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn modes_parse() {
        assert_eq!(
            "container:db".parse::<PidMode>().unwrap(),
            PidMode::Container("db".into())
        );
        assert!("container:".parse::<PidMode>().is_err());
        assert!("keep-id".parse::<UsernsMode>().is_err());
        assert_eq!(
            "backend".parse::<NetworkMode>().unwrap(),
            NetworkMode::Named("backend".into())
        );
        assert!("../x".parse::<NetworkMode>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(s in "[a-z:/.]{0,16}") {
            if let Ok(mode) = s.parse::<NetworkMode>() {
                prop_assert_eq!(mode.to_string().parse::<NetworkMode>().unwrap(), mode);
            }
            if let Ok(mode) = s.parse::<IpcMode>() {
                prop_assert_eq!(mode.to_string().parse::<IpcMode>().unwrap(), mode);
            }
        }
    }
}
