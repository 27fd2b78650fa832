//! Containers on one host, docker's way, without a daemon.
//!
//! ```text
//! flags ─► CreateRequest ─ create ─► ContainerConfig ─ start ─► shim ─┬─ spec ─► runtime: create, start
//!                                                                     ├─ network: attach, DNS
//!                                                                     └─ stdio, log, exit record, restarts, health
//! every other verb: the record on disk, or a message to the shim
//! ```
//!
//! Start at [`Engine`]. Everything blocks; one `berth-shim` a container lives on after the verb. See docs/engine.md.

pub mod flags;
pub mod id;
pub mod paths;

pub mod config;
pub mod container;
pub mod error;
pub mod hint;

mod conflicts;
mod create;
mod end;
mod engine;
mod inspect;
mod list;
mod membership;
mod named_dirs;
mod names;
mod ports;
mod programs;
mod reconcile;
mod record;
mod remove;
mod start;
pub mod stop;
pub mod update;

pub mod attach;
pub mod exec;
pub mod files;
pub mod logs;
pub mod top;
mod transfer;

pub mod image_files;
pub mod init;
mod isolation;
pub mod kernel;
pub mod rootfs;
pub mod scratch;
pub mod shim;
mod spec;

pub mod events;
pub mod network;
pub mod seccomp_profile;
pub mod stats;
pub mod volumes;

pub use berth_copy as copy;

pub use attach::{AttachOptions, DetachKeys, Ended, Session};
pub use config::{ContainerConfig, CreateRequest, HostConfig, LogConfig, Resources};
pub use container::{State, Status};
pub use create::Created;
pub use engine::Engine;
pub use error::{Error, Result};
pub use exec::ExecRequest;
pub use files::Files;
pub use id::{ContainerId, ContainerName};
pub use list::{ListFilter, ListOptions, Summary};
pub use logs::{LogEntry, LogOptions, Stream};
pub use paths::Paths;
pub use ports::OpenPort;
pub use remove::RemoveOptions;
pub use start::StartOptions;
pub use stop::{StopOptions, WaitCondition};
pub use top::Top;
pub use update::UpdateRequest;
