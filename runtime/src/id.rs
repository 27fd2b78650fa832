//! Container ids: a name that becomes a file name, so it is checked once, here.

use std::fmt;

use crate::error::{Error, Result};

/// Longest id: it must fit a file name with a suffix, and a socket path with room for the directories before it.
pub const LENGTH_MAX: usize = 128;

/// A checked container id: letters, digits and `_ + - .`, never `.` or `..`, at most [`LENGTH_MAX`] bytes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks and takes an id.
    ///
    /// # Errors
    ///
    /// [`Error::Id`] says what is wrong with it.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        let why = if id.is_empty() {
            "it is empty"
        } else if id.len() > LENGTH_MAX {
            "it is longer than 128 bytes"
        } else if id == "." || id == ".." {
            "it names a directory"
        } else if !id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b))
        {
            "only letters, digits and _ + - . are allowed"
        } else {
            return Ok(Self(id));
        };
        // Foreign text on its way to a terminal: escape what could drive it.
        Err(Error::Id {
            id: id
                .chars()
                .take(LENGTH_MAX)
                .collect::<String>()
                .escape_debug()
                .to_string(),
            why,
        })
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_that_leave_the_state_directory_are_refused() {
        for id in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            "é",
            &"x".repeat(129),
        ] {
            assert!(ContainerId::new(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn ids_in_use_by_engines_are_taken() {
        for id in [
            "a",
            "test-1",
            "k8s_pod.1+x",
            &"f".repeat(64),
            "..a",
            &"x".repeat(128),
        ] {
            assert!(ContainerId::new(id).is_ok(), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_id_is_one_plain_path_component(id in ".{0,140}") {
            if let Ok(id) = ContainerId::new(id) {
                let path = std::path::Path::new(id.as_str());
                let parts: Vec<_> = path.components().collect();
                prop_assert!(matches!(parts[..], [std::path::Component::Normal(_)]));
            }
        }
    }
}
