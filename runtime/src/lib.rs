//! The OCI Runtime Spec 1.2 as a library; the binary `berth-runtime` is runc's command line over it.
//!
//! ```text
//! config.json ─ bundle ─► Bundle ─ validate ─► ContainerSpec ─┬─ create (parent) ◄── sync ──► init (child)
//!                                                             └─► state.json: what start, kill, delete, exec need
//! ```
//!
//! [`Container`] is the handle on all of it. Everything here blocks and is meant for a single-threaded process:
//! [`Container::create`] and [`Container::exec`] clone without executing, and a child of a process with threads could
//! wait forever for a lock one of them held. Call [`berth_sys::reexec::seal`] first thing in `main`
//! (CVE-2019-5736); both refuse with [`Error::NotSealed`] in a program that has not.

pub mod bundle;
pub mod capabilities;
pub mod container;
mod create;
pub mod error;
pub mod exec;
pub mod features;
pub mod hooks;
pub mod id;
pub mod init;
mod intermediate;
pub mod process;
pub mod ps;
mod resources;
pub mod seccomp;
pub mod state;
pub mod sync;
pub mod validate;

pub use bundle::Bundle;
pub use container::{Console, Container, CreateOptions, Created, Stdio};
pub use error::{Error, Result};
pub use exec::{ExecOptions, ExecProcess};
pub use id::ContainerId;
pub use state::{Record, StateRoot, Status};
pub use validate::ContainerSpec;
