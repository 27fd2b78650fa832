//! One microVM: a KVM monitor that boots a stock Linux kernel with as few devices as it takes.
//!
//! ```text
//! keeper: settings, the API ─ forks ─► the machine's process, in its jail:
//! config ─ checks ─► boot: memory ─► kernel, initrd, command line ─► ACPI ─► vCPUs ─► run: one event loop, a thread a vCPU,
//!                                                                                            and one a shared directory
//! ```
//!
//! Start at [`boot`], the recipe, and [`arch::x86_64::layout`], the map of guest memory. See docs/vmm.md.

pub mod config;
mod error;
pub mod exit;

pub mod boot;
pub mod keeper;
pub mod run;

pub mod api;
pub mod control;
pub mod jail;
pub mod logger;
pub mod metrics;
pub mod seccomp;
pub mod snapshot;

mod console;
mod kvm;
mod memory;
mod processors;
mod shares;
mod socket_file;
mod vcpu;
mod vm;

pub mod loader;

pub mod arch;

pub mod bus;
pub mod devices;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

pub use error::{Error, Result};
pub use exit::Exit;
