//! cgroup v1, hybrid and v2 behind one handle, with the cgroupfs driver. Knows nothing of containers.
//!
//! ```text
//! Hierarchy::detect ──► Cgroup::create ──► Cgroup::apply ──► Cgroup::entry ──► clone3 (v2) / Entry::enter (v1)
//!                       Cgroup::open(Saved) ──► stats, processes, freeze, kill, remove
//! ```
//!
//! Start at [`cgroup`]. A cgroup is a path below the root of its hierarchy ([`path`]); on v1 the same path is made in
//! every hierarchy. Control files are written only for what was asked; everything else keeps the kernel's default.

pub mod error;

pub mod parents;
mod path;

pub mod hierarchy;

mod dir;

pub mod cgroup;

pub mod entry;

mod apply;

pub mod devices;

mod freezer;

mod processes;

pub mod stats;

pub use cgroup::{Cgroup, Saved};
pub use entry::Entry;
pub use error::{Error, Result};
pub use hierarchy::{Hierarchy, Layout};
pub use path::CgroupPath;
pub use stats::Stats;
