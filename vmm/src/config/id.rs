//! Names that users give their devices.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The id of a drive or a network interface: letters, digits and underscores, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// Why a text is no [`Id`]; in Firecracker's words, which clients look for.
#[derive(Debug, thiserror::Error)]
pub enum NoId {
    /// Nothing.
    #[error("The ID cannot be empty.")]
    Empty,
    /// Something else than letters, digits and underscores.
    #[error("API Resource IDs can only contain alphanumeric characters and underscores.")]
    Character,
}

/// Something that has an id.
pub trait Named {
    /// It.
    fn id(&self) -> &Id;
}

impl Id {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Id {
    type Error = NoId;

    fn try_from(text: String) -> Result<Id, NoId> {
        if text.is_empty() {
            Err(NoId::Empty)
        } else if text.chars().all(|c| c == '_' || c.is_alphanumeric()) {
            Ok(Id(text))
        } else {
            Err(NoId::Character)
        }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
