//! Images in docker's JSON shapes.

use serde_json::Value;

use crate::Images;
use crate::error::{Error, Result};

/// A row of `berth history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The image id on the topmost row, `<missing>` below it.
    pub id: String,
    /// RFC 3339, or empty.
    pub created: String,
    /// The instruction.
    pub created_by: String,
    /// Bytes of the layer, 0 for steps without one.
    pub size: u64,
    /// Free text.
    pub comment: String,
}

impl Images {
    /// One element of `docker image inspect`'s array.
    ///
    /// # Errors
    /// As [`Images::resolve`].
    pub fn inspect(&self, _name: &str) -> Result<Value> {
        Err(Error::Unsupported("inspect"))
    }

    /// How the image was made.
    ///
    /// # Errors
    /// As [`Images::resolve`].
    pub fn history(&self, _name: &str) -> Result<Vec<HistoryRow>> {
        Err(Error::Unsupported("history"))
    }
}
