//! `--user`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidFlag;

/// `user[:group]`, each a name or a number; what a name means is looked up in the image at start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserSpec {
    /// Name or uid; empty is root.
    pub user: String,
    /// Name or gid, if one was given.
    pub group: Option<String>,
}

impl FromStr for UserSpec {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: &str| InvalidFlag::new("user", s, why);
        if s.chars().any(|c| c.is_control()) || s.len() > 512 {
            return Err(bad("control characters or too long"));
        }
        let (user, group) = match s.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (s, None),
        };
        if group.is_some_and(|g| g.contains(':')) {
            return Err(bad("expected user[:group]"));
        }
        Ok(UserSpec {
            user: user.to_owned(),
            group: group.filter(|g| !g.is_empty()).map(str::to_owned),
        })
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        match &self.group {
            Some(group) => write!(f, ":{group}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for UserSpec {
    type Error = InvalidFlag;
    fn try_from(s: String) -> Result<Self, InvalidFlag> {
        s.parse()
    }
}

impl From<UserSpec> for String {
    fn from(user: UserSpec) -> String {
        user.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_group() {
        let user: UserSpec = "www-data:33".parse().unwrap();
        assert_eq!(
            (user.user.as_str(), user.group.as_deref()),
            ("www-data", Some("33"))
        );
        assert_eq!("1000:".parse::<UserSpec>().unwrap().group, None);
        assert!("a:b:c".parse::<UserSpec>().is_err());
        assert!("a\nb".parse::<UserSpec>().is_err());
    }
}
