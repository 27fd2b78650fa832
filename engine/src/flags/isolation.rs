//! `--isolation`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidFlag;

/// What stands between a container and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces and cgroups of the host's kernel.
    #[default]
    Container,
    /// A microVM with a kernel of its own.
    Vm,
}

impl FromStr for Isolation {
    type Err = InvalidFlag;

    fn from_str(text: &str) -> Result<Self, InvalidFlag> {
        match text {
            // docker's name for "as always".
            "container" | "default" => Ok(Isolation::Container),
            "vm" => Ok(Isolation::Vm),
            _ => Err(InvalidFlag::new("isolation", text, "it is container or vm")),
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isolation::Container => "container",
            Isolation::Vm => "vm",
        })
    }
}
