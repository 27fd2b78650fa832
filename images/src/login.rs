//! `berth login` and `logout`: credentials in docker's `config.json`, verified before they are kept.

use crate::Images;
use crate::error::{Error, Result};

impl Images {
    /// Checks user and password against `registry` (`docker.io`, `localhost:5000`), then stores them. Blocks.
    ///
    /// # Errors
    /// The registry refuses them, is unreachable, or the file cannot be written.
    pub fn login(&self, _registry: &str, _user: &str, _password: &str) -> Result<()> {
        Err(Error::Unsupported("login"))
    }

    /// Forgets the credentials of `registry`; returns whether there were any.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn logout(&self, _registry: &str) -> Result<bool> {
        Err(Error::Unsupported("logout"))
    }
}
