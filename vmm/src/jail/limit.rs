//! Bounds of the machine's process, as the jailer of Firecracker names them.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::error::{Error, Result};

/// A resource and how much of it the process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    resource: Resource,
    most: u64,
}

impl std::str::FromStr for Limit {
    type Err = &'static str;

    /// Reads `fsize=BYTES` or `no-file=NUMBER`.
    fn from_str(text: &str) -> Result<Limit, &'static str> {
        let form = "it must be fsize=BYTES or no-file=NUMBER";
        let (name, most) = text.split_once('=').ok_or(form)?;
        let resource = match name {
            "fsize" => Resource::Fsize,
            "no-file" => Resource::Nofile,
            _ => return Err(form),
        };
        let most = most.parse().map_err(|_| form)?;
        Ok(Limit { resource, most })
    }
}

impl Limit {
    /// Bounds the calling process and those it makes.
    ///
    /// # Errors
    ///
    /// [`Error::Jail`] when it may not have so much.
    pub(crate) fn set(self) -> Result<()> {
        let both = Rlimit {
            current: Some(self.most),
            maximum: Some(self.most),
        };
        setrlimit(self.resource, both).map_err(|e| Error::Jail {
            operation: "limit the resources of the machine's process",
            source: e.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_jailers() {
        let limit: Limit = "no-file=1024".parse().unwrap();
        assert_eq!((limit.resource, limit.most), (Resource::Nofile, 1024));
        assert!("fsize=1".parse::<Limit>().is_ok());
        for wrong in ["fsize", "fsize=", "fsize=-1", "nproc=1", "=1"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
    }
}
