//! berth inside the test VM, with all that microVMs need: `berth run --isolation vm` works there once [`BerthVm::add_kernel`]
//! was called.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::berth::busybox_archive;
use crate::vm::{
    CONTAINER_MODULES, MICROVM_MODULES, Output, Vm, VmConfig, stock_kernel, stock_modules, stock_modules_tree,
};

/// What Debian's kernel has as modules and a guest needs.
const GUEST_MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio-rng",
    "virtio_balloon",
    "virtiofs",
    "pvpanic_mmio",
    "vmw_vsock_virtio_transport",
    "erofs",
    "overlay",
];

/// A command boots a microVM or two at most.
const COMMAND_MAX: Duration = Duration::from_secs(400);

/// What of containers can be seen on the host.
const LOOK: &str = "grep -c . /proc/self/mountinfo; ls /sys/class/net; find /sys/fs/cgroup -type d | sort
    find /run/berth -name '[0-9a-f]*' -path '*containers/*' 2>/dev/null; ps -o comm | grep berth | grep -v grep; true";

/// A test VM with berth's programs in `/bin`, and an image called `busybox`.
pub struct BerthVm {
    vm: Vm,
    /// Of the kernel in `/vmlinuz`, whose modules are in `/lib/modules`.
    release: String,
}

impl BerthVm {
    /// Boots it and imports the image.
    ///
    /// # Panics
    ///
    /// When the binaries are not there or the VM does not come up.
    #[must_use]
    pub fn boot() -> BerthVm {
        BerthVm::boot_with(Vec::new())
    }

    /// The same with `files` in it: path here, path there, mode.
    ///
    /// # Panics
    ///
    /// As [`BerthVm::boot`].
    #[must_use]
    pub fn boot_with(files: Vec<(PathBuf, String, u32)>) -> BerthVm {
        let scratch = tempfile::tempdir().expect("make a directory");
        let tree = stock_modules_tree();
        let release = tree.file_name().expect("a release").to_string_lossy();
        let wanted = stock_modules(GUEST_MODULES)
            .into_iter()
            .chain([tree.join("modules.builtin")]);
        let modules = wanted.map(|file| {
            let below = file.strip_prefix(&tree).expect("below the tree").display();
            let path = format!("/lib/modules/{release}/{below}");
            (file, path, 0o644)
        });
        let programs = ["berth", "berth-shim", "berth-vmm", "berth-guest"];
        let vm = Vm::boot(&VmConfig {
            memory_mib: 3072,
            files: modules
                .chain(programs.map(|name| program(name, scratch.path())))
                .chain(files)
                .chain([
                    (stock_kernel(), "/vmlinuz".into(), 0o644),
                    (busybox_archive(scratch.path()), "/busybox.tar".into(), 0o644),
                ])
                .collect(),
            modules: [MICROVM_MODULES, CONTAINER_MODULES].concat(),
            ..VmConfig::default()
        });
        let release = release.into_owned();
        let mut host = BerthVm { vm, release };
        let _ = host.run("berth import /busybox.tar busybox").ok();
        host
    }

    /// Runs a shell command.
    ///
    /// # Panics
    ///
    /// As [`Vm::run`].
    #[must_use]
    pub fn run(&mut self, command: &str) -> Output {
        self.vm.run_for(command, COMMAND_MAX)
    }

    /// What `uname -r` says in a microVM.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Makes `/vmlinuz` the kernel of microVMs.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub fn add_kernel(&mut self) {
        let add = format!(
            "berth kernel add stock --kernel /vmlinuz --modules /lib/modules/{}",
            self.release
        );
        let _ = self.run(&format!("{add} && berth kernel default stock")).ok();
    }

    /// What of containers can be seen on the host: mounts, links, cgroups, run directories, processes.
    ///
    /// # Panics
    ///
    /// When it cannot be looked at.
    #[must_use]
    pub fn look(&mut self) -> String {
        self.run(LOOK).ok()
    }

    /// [`BerthVm::look`], once it shows `wanted` or after a while: shims stay for a moment.
    ///
    /// # Panics
    ///
    /// When it cannot be looked at.
    #[must_use]
    pub fn settled(&mut self, wanted: &str) -> String {
        self.run(&format!(
            "for i in $(seq 50); do seen=$({LOOK}); [ \"$seen\" = '{wanted}' ] && break; sleep 0.2; done; echo \"$seen\""
        ))
        .ok()
    }
}

/// One of ours without its debug information, which would fill the VM's memory.
fn program(name: &str, scratch: &Path) -> (PathBuf, String, u32) {
    let stripped = scratch.join(name);
    let status = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(crate::binary(name))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "strip {name}");
    (stripped, format!("/bin/{name}"), 0o755)
}
