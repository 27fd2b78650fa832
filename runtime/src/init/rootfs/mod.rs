//! The container's file system: from the spec's mounts to a process that has nothing else as `/`.
//!
//! ```text
//! parent                     init, in its namespaces
//! Plan::prepare  ──fork──►   setup ──► createContainer hooks ──► pivot ──► finish ──► startContainer hooks …
//! check, open from outside   mounts,   (they still see           no way    masked and read-only paths,
//!                            devices   the host)                 back      read-only root, propagation
//! ```
//!
//! In a mount namespace that is not the container's own nothing is built: [`shared`] finds the root there and enters it.
//!
//! Promises:
//! - Each option is parsed once, in the parent; init only executes.
//! - Every destination is resolved by the kernel with the rootfs as `/` and mounted on by descriptor, so a link in the
//!   image, or one exchanged while we work, cannot lead outside (CVE-2021-30465, CVE-2024-45310).
//! - What is mounted as `/proc`, `/sys` or from `/dev` is proved to be what it claims by file system magic or device
//!   number before it is relied on (CVE-2019-16884, CVE-2019-19921, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).
//!
//! All of it blocks, and works on the calling process's mount namespace, umask and working directory: the caller is
//! single-threaded.

mod cgroup;
mod console;
mod copy_up;
mod devices;
mod error;
mod idmap;
mod masked;
mod mounts;
mod options;
mod pivot;
mod plan;
pub mod procfs;
mod resolve;
mod setup;
pub mod shared;
#[cfg(test)]
mod tests;

pub use console::Console;
pub use error::{Error, Result};
pub use masked::{DEFAULT_MASKED, DEFAULT_READONLY, finish, thermal_throttle_paths};
pub use pivot::pivot;
pub use plan::Plan;
pub use setup::{Mounted, setup};
