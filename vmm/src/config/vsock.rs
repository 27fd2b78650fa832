//! Sockets between host and guest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Below are the hypervisor's, the loopback's and the host's (vsock(7)).
const CID_MIN: u32 = 3;

/// A vsock device whose host side are Unix sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The guest's address.
    pub guest_cid: u32,
    /// Where the host connects to; with `_` and a port behind it, where the guest does.
    pub uds_path: PathBuf,
    /// A name without use; Firecracker takes one from old clients.
    #[serde(default, skip_serializing)]
    pub vsock_id: Option<String>,
}

impl Vsock {
    pub(super) fn check(&self) -> Result<()> {
        // The last number stands for any address.
        if self.guest_cid < CID_MIN || self.guest_cid == u32::MAX {
            return Err(Error::Invalid {
                field: "vsock.guest_cid",
                why: format!("{} is not between {CID_MIN} and {}", self.guest_cid, u32::MAX - 1),
            });
        }
        Ok(())
    }
}
