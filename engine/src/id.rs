//! Container ids and names: parsed once, safe as path components ever after.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a string is no id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not 64 lower-case hexadecimal digits.
    #[error("a container id is 64 lower-case hexadecimal digits, not {0:?}")]
    Id(String),
    /// Not a name as docker allows them.
    #[error("a container name is [a-zA-Z0-9][a-zA-Z0-9_.-]+ of at most 255 bytes, not {0:?}")]
    Name(String),
}

/// 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// A fresh id from the kernel's random source.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0u8; 32];
        fill_random(&mut bytes)?;
        let mut hex = String::with_capacity(64);
        for b in bytes {
            hex.push(char::from(b"0123456789abcdef"[usize::from(b >> 4)]));
            hex.push(char::from(b"0123456789abcdef"[usize::from(b & 15)]));
        }
        Ok(ContainerId(hex))
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, as docker prints them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

/// Fills the whole buffer from getrandom(2).
pub(crate) fn fill_random(mut buf: &mut [u8]) -> std::io::Result<()> {
    while !buf.is_empty() {
        let n = rustix::rand::getrandom(&mut *buf, rustix::rand::GetRandomFlags::empty())?;
        buf = &mut buf[n..];
    }
    Ok(())
}

impl FromStr for ContainerId {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        if s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(ContainerId(s.to_owned()))
        } else {
            Err(InvalidName::Id(s.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidName;
    fn try_from(s: String) -> Result<Self, InvalidName> {
        s.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name as docker allows them: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    /// The name without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        // docker prints names with a leading slash in inspect and takes them back that way.
        let name = s.strip_prefix('/').unwrap_or(s);
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && (2..=255).contains(&name.len()) {
            Ok(ContainerName(name.to_owned()))
        } else {
            Err(InvalidName::Name(s.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ContainerName {
    type Error = InvalidName;
    fn try_from(s: String) -> Result<Self, InvalidName> {
        s.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> String {
        name.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn random_ids_parse_and_differ() {
        let a = ContainerId::random().unwrap();
        assert_eq!(a.as_str().parse::<ContainerId>().unwrap(), a);
        assert_ne!(a, ContainerId::random().unwrap());
    }

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in [
            "", "a", "..", ".hidden", "a/b", "a\nb", "-x", "a b", "é2", "x\0y", "//ab",
        ] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(256).parse::<ContainerName>().is_err());
        assert_eq!("/web-1".parse::<ContainerName>().unwrap().as_str(), "web-1");
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_one_safe_component(s in "\\PC{0,40}") {
            if let Ok(name) = s.parse::<ContainerName>() {
                let path = std::path::Path::new(name.as_str());
                prop_assert_eq!(path.components().count(), 1);
                prop_assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))));
            }
        }

        #[test]
        fn only_hex_ids(s in "\\PC{0,70}") {
            if let Ok(id) = s.parse::<ContainerId>() {
                prop_assert!(id.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
    }
}
