//! A device rule, checked.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};

pub(crate) const SETTING: &str = "linux.resources.devices";

/// Kind of device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Block device, `BPF_DEVCG_DEV_BLOCK`.
    Block = 1,
    /// Character device, `BPF_DEVCG_DEV_CHAR`.
    Char = 2,
}

/// Accesses as bits, with the values of `BPF_DEVCG_ACC_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access(pub u8);

impl Access {
    /// Making a node.
    pub const MKNOD: Self = Self(1);
    /// Opening to read.
    pub const READ: Self = Self(2);
    /// Opening to write.
    pub const WRITE: Self = Self(4);
    /// All three.
    pub const ALL: Self = Self(7);

    /// As the v1 files spell it: `rwm`.
    pub fn letters(self) -> String {
        [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')]
            .into_iter()
            .filter(|(bit, _)| self.0 & bit.0 != 0)
            .map(|(_, letter)| letter)
            .collect()
    }

    /// From letters; `None` for any other than `r`, `w`, `m`.
    pub fn parse(letters: &str) -> Option<Self> {
        letters.chars().try_fold(Self(0), |access, letter| {
            let bit = match letter {
                'r' => Self::READ,
                'w' => Self::WRITE,
                'm' => Self::MKNOD,
                _ => return None,
            };
            Some(Self(access.0 | bit.0))
        })
    }
}

/// Which nodes a rule is about. `None` matches any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nodes {
    /// Block or character.
    pub kind: Option<Kind>,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Allows or denies.
    pub allow: bool,
    /// What it is about.
    pub nodes: Nodes,
    /// Which accesses it decides.
    pub access: Access,
}

impl Rule {
    /// Checks a rule of the configuration.
    pub fn parse(rule: &LinuxDeviceCgroup) -> Result<Self> {
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(Kind::Block),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
            Some(LinuxDeviceType::P) => return Err(bad("p", "a FIFO is not subject to device rules")),
        };
        let access = match rule.access().as_deref() {
            // The spec leaves access optional; kubelet and docker write deny-all rules both ways.
            None | Some("") => Access::ALL,
            Some(letters) => Access::parse(letters)
                .ok_or_else(|| bad(letters, "access is made of the letters r, w and m"))?,
        };
        Ok(Self {
            allow: rule.allow(),
            nodes: Nodes {
                kind,
                major: number(rule.major())?,
                minor: number(rule.minor())?,
            },
            access,
        })
    }

    /// Whether this rule is about every access to every device.
    pub(crate) fn is_everything(&self) -> bool {
        self.nodes
            == Nodes {
                kind: None,
                major: None,
                minor: None,
            }
            && self.access == Access::ALL
    }
}

impl Nodes {
    /// Whether every node of `other` is one of these.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        covers(self.kind, other.kind) && covers(self.major, other.major) && covers(self.minor, other.minor)
    }

    /// The nodes in both, `None` if there are none.
    pub(crate) fn intersection(&self, other: &Self) -> Option<Self> {
        Some(Self {
            kind: meet(self.kind, other.kind)?,
            major: meet(self.major, other.major)?,
            minor: meet(self.minor, other.minor)?,
        })
    }
}

fn covers<T: PartialEq>(wide: Option<T>, narrow: Option<T>) -> bool {
    wide.is_none() || wide == narrow
}

fn meet<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<Option<T>> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => None,
        (Some(a), _) => Some(Some(a)),
        (None, b) => Some(b),
    }
}

/// Absent and -1 are wildcards.
fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| bad(&value.to_string(), "is not a device number")),
    }
}

fn bad(value: &str, reason: &str) -> Error {
    Error::Invalid {
        setting: SETTING,
        value: value.escape_debug().to_string(),
        reason: reason.to_owned(),
    }
}

/// What every enforcement must agree with: the last matching rule decides, bit by bit; unmatched is denied.
#[cfg(test)]
pub(crate) fn reference(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: Access) -> bool {
    let node = Nodes {
        kind: Some(kind),
        major: Some(major),
        minor: Some(minor),
    };
    [Access::MKNOD, Access::READ, Access::WRITE]
        .into_iter()
        .filter(|bit| access.0 & bit.0 != 0)
        .all(|bit| {
            rules
                .iter()
                .rev()
                .find(|rule| rule.nodes.covers(&node) && rule.access.0 & bit.0 != 0)
                .is_some_and(|rule| rule.allow)
        })
}

#[cfg(test)]
pub(crate) mod strategy {
    use super::*;
    use proptest::prelude::*;

    /// Rules over so few numbers that they overlap all the time.
    pub(crate) fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let kind = prop_oneof![Just(None), Just(Some(Kind::Block)), Just(Some(Kind::Char))];
        let number = || prop_oneof![Just(None), (0u32..3).prop_map(Some), Just(Some(u32::MAX))];
        let rule = (any::<bool>(), kind, number(), number(), 1u8..8).prop_map(
            |(allow, kind, major, minor, access)| Rule {
                allow,
                nodes: Nodes { kind, major, minor },
                access: Access(access),
            },
        );
        proptest::collection::vec(rule, 0..6)
    }

    /// Every question that could tell two enforcements apart on such rules.
    pub(crate) fn questions() -> impl Iterator<Item = (Kind, u32, u32, Access)> {
        let numbers = [0, 1, 2, 3, u32::MAX];
        [Kind::Block, Kind::Char].into_iter().flat_map(move |kind| {
            numbers.into_iter().flat_map(move |major| {
                numbers
                    .into_iter()
                    .flat_map(move |minor| (1..8).map(move |access| (kind, major, minor, Access(access))))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Rule> {
        Rule::parse(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn wildcards_and_defaults() {
        assert!(
            parse(r#"{"allow":false,"access":"rwm"}"#)
                .unwrap()
                .is_everything()
        );
        assert!(parse(r#"{"allow":false}"#).unwrap().is_everything());
        assert!(
            parse(r#"{"allow":true,"type":"a","major":-1,"minor":-1,"access":"mrw"}"#)
                .unwrap()
                .is_everything()
        );
        let rule = parse(r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}"#).unwrap();
        assert_eq!(
            rule.nodes,
            Nodes {
                kind: Some(Kind::Char),
                major: Some(1),
                minor: Some(3)
            }
        );
        assert_eq!(rule.access.letters(), "rw");
    }

    #[test]
    fn refuses_what_means_nothing() {
        assert!(parse(r#"{"allow":true,"type":"c","access":"rx"}"#).is_err());
        assert!(parse(r#"{"allow":true,"type":"p","access":"r"}"#).is_err());
        assert!(parse(r#"{"allow":true,"type":"c","major":-2}"#).is_err());
        assert!(parse(r#"{"allow":true,"type":"c","major":4294967296}"#).is_err());
    }
}
