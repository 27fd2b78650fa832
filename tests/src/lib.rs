//! Harness of the end-to-end tests: they run the built binaries against the real kernel and a real registry.
//!
//! Start with [`Berth`], a `berth` with directories of its own that removes what it made when dropped. [`Registry`] is
//! Debian's `docker-registry` on a free loopback port, [`Terminal`] a person at a pty, [`Network`] a network namespace.
//! [`require`] declares what a test needs of the host and skips aloud.

pub mod bare_guest;
pub mod berth;
pub mod berth_vm;
pub mod bundle;
pub mod disk;
pub mod microvm;
pub mod network;
pub mod nginx;
pub mod patience;
pub mod registry;
pub mod requirement;
pub mod shim;
pub mod terminal;
pub mod vm;
pub mod vmm_api;

pub use bare_guest::bare_guest;
pub use berth::{Berth, Output, busybox_tree};
pub use berth_vm::BerthVm;
pub use bundle::Bundle;
pub use disk::Disk;
pub use microvm::{Microvms, program_files};
pub use network::Network;
pub use nginx::{NGINX_SAYS, nginx_archive, nginx_layout};
pub use patience::{HANG, eventually};
pub use registry::Registry;
pub use requirement::{Need, TEST_VM, require};
pub use shim::Shim;
pub use terminal::Terminal;
pub use vm::{
    MICROVM_MODULES, Output as VmOutput, Vm, VmConfig, guest_initramfs, host_runs_stock_kernels,
    stock_kernel, stock_modules, stock_modules_tree,
};
pub use vmm_api::VmmApi;

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// One of the binaries of this build, beside the running test or program.
///
/// # Panics
/// When the binary is not there: `cargo build --workspace --bins` comes first, as in `make test`.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a running program has a path");
    let beside = this.parent().expect("it is in a directory");
    // Tests live in PROFILE/deps.
    let directory = match beside.parent() {
        Some(profile) if beside.ends_with("deps") => profile,
        _ => beside,
    };
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

/// The newest build of an integration test of this workspace, built if need be: a static program, which runs in the test VM too.
///
/// # Panics
/// When it does not build.
#[must_use]
pub fn test_binary(name: &str) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "test",
            "--locked",
            "--workspace",
            "--no-run",
            "--message-format=json",
            "--test",
            name,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("start cargo");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable")
}
