//! The test VM: Debian's stock kernel under QEMU, with cgroup v2, every controller, and modules this host may lack.
//!
//! ```text
//! kernel   package ─► vmlinuz, modules/        once, in target/testvm
//! modules  names ─► files in loading order     from the `depends=` strings inside them
//! initramfs   busybox, modules, init, files of the test ─► cpio
//! qemu     boots it: ttyS0 is the console, ttyS1 takes commands and gives their output
//! ```
//!
//! [`Vm::boot`] needs no KVM: without it QEMU emulates, and the guest is up in a few seconds. Boot one VM per test binary
//! and run many commands in it. Dropping the [`Vm`] kills it.

mod initramfs;
mod kernel;
mod modules;
mod qemu;

pub use qemu::{Output, Vm, host_runs_stock_kernels};

use std::io;
use std::path::{Path, PathBuf};

/// What containers need: overlayfs, bridges, and the parts of nftables that address translation uses.
pub const CONTAINER_MODULES: &[&str] = &[
    "overlay",
    "bridge",
    "br_netfilter",
    "veth",
    "dummy",
    "tun",
    "nf_conntrack",
    "nf_nat",
    "nf_tables",
    "nft_meta_bridge",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_redir",
    "nft_ct",
    "nft_fib",
    "nft_fib_inet",
    "nft_reject",
    "nft_reject_inet",
    "nft_limit",
    "nft_log",
    "nf_conntrack_netlink",
];

/// What microVMs need: KVM nested in the VM (AMD's, as the emulated CPU), and the file system of their roots.
pub const MICROVM_MODULES: &[&str] = &["irqbypass", "kvm", "kvm-amd", "tun", "erofs"];

/// Debian's unmodified kernel as its package ships it, a bzImage. Fetched once; blocks meanwhile.
///
/// # Panics
/// When the package cannot be downloaded or unpacked.
#[must_use]
pub fn stock_kernel() -> PathBuf {
    kernel::Kernel::fetch().image
}

/// The files of modules of that kernel, each behind those it needs; built-in ones are left out. Fetched like it.
///
/// # Panics
///
/// When a name is no module of that kernel's.
#[must_use]
pub fn stock_modules(wanted: &[&str]) -> Vec<PathBuf> {
    modules::load_order(&kernel::Kernel::fetch().modules, wanted)
}

/// Writes the initramfs of a microVM: `init` is its `/init`, and `/modules` lists the files of `modules` and of those they need
/// in loading order, one absolute path a line, as berth-guest reads them.
///
/// # Errors
///
/// A file cannot be read or written.
pub fn guest_initramfs(to: &Path, init: &Path, modules: &[&str]) -> io::Result<()> {
    let mut archive = initramfs::Initramfs::create(to)?;
    archive.file("init", 0o755, init)?;
    let mut order = String::new();
    for file in stock_modules(modules) {
        let name = file
            .file_name()
            .ok_or(io::ErrorKind::InvalidData)?
            .to_string_lossy();
        let path = format!("/lib/modules/{name}");
        archive.file(&path, 0o600, &file)?;
        order.push_str(&path);
        order.push('\n');
    }
    archive.bytes("modules", 0o600, order.as_bytes())?;
    archive.finish()
}

/// The modules directory of that kernel, `lib/modules/RELEASE`; without what depmod(8) would make there.
///
/// # Panics
///
/// When the package cannot be downloaded or unpacked.
#[must_use]
pub fn stock_modules_tree() -> PathBuf {
    kernel::Kernel::fetch().modules
}

/// A VM to boot.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// Memory, in MiB. The guest's root is a tmpfs, so files count towards it.
    pub memory_mib: u32,
    /// CPUs.
    pub cpus: u32,
    /// Files to put in: path here, path in the guest (missing directories are made), mode.
    pub files: Vec<(PathBuf, String, u32)>,
    /// Kernel modules to load at boot, in this order, each after those it depends on. Built-in ones are skipped.
    pub modules: Vec<&'static str>,
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            memory_mib: 1024,
            cpus: 2,
            files: Vec::new(),
            modules: Vec::new(),
        }
    }
}
