//! Seccomp filters: from the spec's `linux.seccomp` to a program in the kernel.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;

/// What can go wrong with a filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The spec's field is wrong.
    #[error("linux.seccomp.{field}: {reason}")]
    Invalid {
        /// Below `linux.seccomp`.
        field: String,
        /// Why not.
        reason: String,
    },
}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A compiled filter, ready to load.
#[derive(Debug)]
pub struct Filter {}

impl Filter {
    /// Compiles, or takes from `cache_dir` what an equal profile compiled to before. Parent's side.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field.
    pub fn compile(seccomp: &LinuxSeccomp, cache_dir: Option<&Path>) -> Result<Filter> {
        let _ = (seccomp, cache_dir);
        Err(Error::Invalid {
            field: "syscalls".into(),
            reason: "not supported: being written".into(),
        })
    }

    /// Whether [`load`](Self::load) will return a notify descriptor; `listenerPath` is then set, and its socket has to
    /// be connected before the load.
    pub fn notifies(&self) -> bool {
        false
    }

    /// Installs the filter on the calling thread (all threads with TSYNC). Needs no_new_privs or CAP_SYS_ADMIN. Returns the
    /// notify descriptor if the filter notifies; hand it over with [`send_listener`](Self::send_listener) next.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn load(&self) -> Result<Option<OwnedFd>> {
        Ok(None)
    }

    /// Sends the notify descriptor and the container process state (JSON, config-linux.md#containerprocessstate) over the
    /// connected `listenerPath` socket, with a system call that this filter does not itself hold up for the listener.
    ///
    /// # Errors
    /// The send's errno.
    pub fn send_listener(&self, socket: BorrowedFd<'_>, state: &[u8], notify: BorrowedFd<'_>) -> Result<()> {
        let _ = (socket, state, notify);
        Ok(())
    }
}
