//! Rules as v1's `devices` controller knows them: a default, and exceptions to it.
//!
//! The kernel allows an access against a denying default if one exception covers all of it, and denies it against an
//! allowing default if one exception touches any of it (security/device_cgroup.c).

use super::rule::{Access, Kind, Nodes, Rule, SETTING};
use crate::dir::Dir;
use crate::error::{Error, Result};

/// A default and its exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    allow_by_default: bool,
    exceptions: Vec<(Nodes, Access)>,
}

impl Policy {
    /// Brings a list of rules into v1's form, or says which rule has none.
    pub(super) fn compile(rules: &[Rule]) -> Result<Self> {
        let mut policy = Self {
            allow_by_default: false,
            exceptions: Vec::new(),
        };
        for rule in rules {
            if rule.is_everything() {
                policy = Self {
                    allow_by_default: rule.allow,
                    exceptions: Vec::new(),
                };
                continue;
            }
            // `a` in a v1 file means everything, whatever numbers follow: spell both kinds out instead.
            let kinds = rule
                .nodes
                .kind
                .map_or(vec![Kind::Block, Kind::Char], |kind| vec![kind]);
            for kind in kinds {
                let nodes = Nodes {
                    kind: Some(kind),
                    ..rule.nodes
                };
                if rule.allow == policy.allow_by_default {
                    policy.withdraw(nodes, rule.access)?;
                } else {
                    policy.add(nodes, rule.access);
                }
            }
        }
        policy.close();
        Ok(policy)
    }

    fn add(&mut self, nodes: Nodes, access: Access) {
        match self.exceptions.iter_mut().find(|(other, _)| *other == nodes) {
            Some((_, other)) => other.0 |= access.0,
            None => self.exceptions.push((nodes, access)),
        }
    }

    /// Takes back exceptions within `nodes`. One that reaches beyond cannot be cut: v1 has no exception to an exception.
    fn withdraw(&mut self, nodes: Nodes, access: Access) -> Result<()> {
        for (other, other_access) in &mut self.exceptions {
            if other_access.0 & access.0 == 0 || nodes.intersection(other).is_none() {
                continue;
            }
            if !nodes.covers(other) {
                let reason = format!(
                    "cgroup v1 cannot except {} {} from {} {}",
                    spelled(&nodes),
                    access.letters(),
                    spelled(other),
                    other_access.letters()
                );
                return Err(Error::Unsupported {
                    setting: SETTING,
                    reason,
                });
            }
            other_access.0 &= !access.0;
        }
        self.exceptions.retain(|(_, access)| access.0 != 0);
        Ok(())
    }

    /// `1:* r` and `1:3 w` together allow to open 1:3 for both, but v1 wants one exception that says so.
    fn close(&mut self) {
        if self.allow_by_default {
            return;
        }
        loop {
            let mut missing = None;
            for (at, (nodes, access)) in self.exceptions.iter().enumerate() {
                for (other, other_access) in &self.exceptions[at + 1..] {
                    let Some(both) = nodes.intersection(other) else {
                        continue;
                    };
                    let union = Access(access.0 | other_access.0);
                    let covered =
                        |(known, have): &(Nodes, Access)| known.covers(&both) && have.0 & union.0 == union.0;
                    if !self.exceptions.iter().any(covered) {
                        missing = Some((both, union));
                    }
                }
            }
            let Some((nodes, access)) = missing else { return };
            self.add(nodes, access);
        }
    }

    /// From `devices.list`. With an allowing default the kernel does not show the exceptions.
    fn parse(list: &str) -> Option<Self> {
        let mut policy = Self {
            allow_by_default: false,
            exceptions: Vec::new(),
        };
        for line in list.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (kind, numbers, access) = (fields.next()?, fields.next()?, fields.next()?);
            let kind = match kind {
                "a" => {
                    return Some(Self {
                        allow_by_default: true,
                        exceptions: Vec::new(),
                    });
                }
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return None,
            };
            let (major, minor) = numbers.split_once(':')?;
            let number = |text: &str| {
                if text == "*" {
                    Some(None)
                } else {
                    text.parse().ok().map(Some)
                }
            };
            let nodes = Nodes {
                kind: Some(kind),
                major: number(major)?,
                minor: number(minor)?,
            };
            policy.add(nodes, Access::parse(access)?);
        }
        Some(policy)
    }
}

/// Writes what differs from the rules in force.
pub(super) fn apply(dir: &Dir, wanted: &Policy) -> Result<()> {
    let list = dir.read("devices.list")?;
    let current = Policy::parse(&list).ok_or_else(|| Error::Parse {
        file: dir.path().join("devices.list"),
        text: list.clone(),
    })?;
    let (add, withdraw) = if wanted.allow_by_default {
        ("devices.deny", "devices.allow")
    } else {
        ("devices.allow", "devices.deny")
    };
    // An allowing default may have exceptions we cannot see, so only a denying one is edited in place.
    if wanted.allow_by_default || current.allow_by_default {
        dir.write(withdraw, "a")?;
        return wanted
            .exceptions
            .iter()
            .try_for_each(|(nodes, access)| dir.write(add, &line(nodes, *access)));
    }
    let access_in = |policy: &Policy, nodes: &Nodes| {
        policy
            .exceptions
            .iter()
            .find(|(other, _)| other == nodes)
            .map_or(0, |(_, access)| access.0)
    };
    // Denials first: an update that fails halfway errs on the strict side.
    for (nodes, access) in &current.exceptions {
        let surplus = Access(access.0 & !access_in(wanted, nodes));
        if surplus.0 != 0 {
            dir.write(withdraw, &line(nodes, surplus))?;
        }
    }
    for (nodes, access) in &wanted.exceptions {
        let lacking = Access(access.0 & !access_in(&current, nodes));
        if lacking.0 != 0 {
            dir.write(add, &line(nodes, lacking))?;
        }
    }
    Ok(())
}

fn line(nodes: &Nodes, access: Access) -> String {
    format!("{} {}", spelled(nodes), access.letters())
}

fn spelled(nodes: &Nodes) -> String {
    let kind = match nodes.kind {
        Some(Kind::Block) => 'b',
        Some(Kind::Char) => 'c',
        None => 'a',
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    format!("{kind} {}:{}", number(nodes.major), number(nodes.minor))
}

#[cfg(test)]
mod tests {
    use super::super::rule::{reference, strategy};
    use super::*;
    use proptest::prelude::*;

    /// The kernel's decision, after security/device_cgroup.c.
    fn kernel(policy: &Policy, kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        let node = Nodes {
            kind: Some(kind),
            major: Some(major),
            minor: Some(minor),
        };
        let mut matching = policy.exceptions.iter().filter(|(nodes, _)| nodes.covers(&node));
        if policy.allow_by_default {
            !matching.any(|(_, exception)| exception.0 & access.0 != 0)
        } else {
            matching.any(|(_, exception)| exception.0 & access.0 == access.0)
        }
    }

    fn rule(allow: bool, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
        Rule {
            allow,
            nodes: Nodes {
                kind: Some(Kind::Char),
                major,
                minor,
            },
            access: Access(access),
        }
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused() {
        let error =
            Policy::compile(&[rule(true, Some(1), None, 7), rule(false, Some(1), Some(3), 4)]).unwrap_err();
        assert!(error.to_string().contains("c 1:3 w from c 1:* rwm"), "{error}");
    }

    #[test]
    fn a_wildcard_denial_takes_back_what_it_covers() {
        let policy =
            Policy::compile(&[rule(true, Some(1), Some(3), 7), rule(false, Some(1), None, 4)]).unwrap();
        assert_eq!(policy.exceptions.len(), 1);
        assert_eq!(policy.exceptions[0].1.letters(), "rm");
    }

    #[test]
    fn reads_the_kernels_list() {
        let policy = Policy::parse("c *:* m\nb *:* m\nc 1:3 rwm").unwrap();
        assert_eq!(policy.exceptions.len(), 3);
        assert!(Policy::parse("a *:* rwm").unwrap().allow_by_default);
        assert!(Policy::parse("").unwrap().exceptions.is_empty());
        assert!(Policy::parse("x 1:3 rwm").is_none());
    }

    proptest! {
        #[test]
        fn v1_decides_as_the_rules_do(rules in strategy::rules()) {
            if let Ok(policy) = Policy::compile(&rules) {
                for (kind, major, minor, access) in strategy::questions() {
                    prop_assert_eq!(
                        kernel(&policy, kind, major, minor, access),
                        reference(&rules, kind, major, minor, access),
                        "{:?} {:?}:{} {:?} {:?}", kind, major, minor, access, policy
                    );
                }
            }
        }
    }
}
