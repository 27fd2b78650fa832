//! x
use std::os::fd::OwnedFd;
/// Both ends of the container's terminal, from the container's own devpts; close-on-exec.
#[derive(Debug)]
pub struct Console {
    /// For the console socket.
    pub master: OwnedFd,
    /// For the container's stdio; already bound on `/dev/console`.
    pub slave: OwnedFd,
}
