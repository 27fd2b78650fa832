//! berth-guest in microVMs inside the test VM: puts together what `tests/guest` needs and runs it there.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use berth_tests::{MICROVM_MODULES, Need, Vm, VmConfig, require, stock_kernel};

/// What Debian's kernel has as modules and a guest needs.
const GUEST_MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "vmw_vsock_virtio_transport",
    "erofs",
    "overlay",
];

#[test]
fn in_microvms() {
    if !require(&[
        Need::Root,
        Need::Program("qemu-system-x86_64"),
        Need::Program("busybox"),
        Need::Program("mkfs.erofs"),
        Need::Program("mkfs.ext4"),
    ]) {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let at = |name: &str| scratch.path().join(name);
    base(&at("base"));
    top(&at("top"));
    for layer in ["base", "top"] {
        let image = at(&format!("{layer}.erofs"));
        run(Command::new("mkfs.erofs")
            .arg("--quiet")
            .arg(image)
            .arg(at(layer)));
    }
    let drive = std::fs::File::create(at("scratch.ext4")).expect("a file");
    drive.set_len(16 << 20).expect("a length");
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F"])
        .arg(at("scratch.ext4")));
    // Without debugging information: a guest has all of its initramfs in memory.
    run(Command::new("strip")
        .args(["--strip-debug", "-o"])
        .arg(at("berth-guest"))
        .arg(berth_tests::binary("berth-guest")));
    berth_tests::guest_initramfs(&at("guest.initrd"), &at("berth-guest"), GUEST_MODULES)
        .expect("write the guest's initramfs");

    let file = |name: &str| (at(name), format!("/t/{name}"), 0o644);
    let mut files = berth_tests::program_files("/usr/sbin/e2fsck", "");
    files.extend([
        (berth_tests::binary("berth-vmm"), "/t/berth-vmm".into(), 0o755),
        (stock_kernel(), "/t/vmlinuz".into(), 0o644),
        (berth_tests::test_binary("guest"), "/t/deps/guest".into(), 0o755),
        file("guest.initrd"),
        file("base.erofs"),
        file("top.erofs"),
        file("scratch.ext4"),
    ]);
    let mut vm = Vm::boot(&VmConfig {
        memory_mib: 2048,
        files,
        modules: [MICROVM_MODULES, &["vsock_loopback"]].concat(),
        ..VmConfig::default()
    });
    // One of them alone: BERTH_GUEST_TESTS=streams.
    let filter = std::env::var("BERTH_GUEST_TESTS").unwrap_or_default();
    let output = vm
        .run_for(
            &format!("/t/deps/guest --ignored --test-threads 1 {filter}"),
            Duration::from_secs(2400),
        )
        .ok();
    assert!(
        output.contains(" passed") && !output.contains(" 0 passed"),
        "{output}"
    );
}

/// busybox, and the root's own mode and owner.
fn base(root: &Path) {
    berth_tests::busybox_tree(root);
    for directory in ["proc", "dev", "sys", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(directory)).expect("make a mount point");
    }
    for (name, content) in [
        ("both", "base\n"),
        ("only-base", "base\n"),
        ("hidden", "base\n"),
        ("etc/hosts", ""),
    ] {
        std::fs::write(root.join(name), content).expect("write a file");
    }
}

/// One file over the base's, and a whiteout.
fn top(root: &Path) {
    std::fs::create_dir(root).expect("make the layer");
    std::fs::write(root.join("both"), "top\n").expect("write a file");
    run(Command::new("mknod")
        .arg(root.join("hidden"))
        .args(["c", "0", "0"]));
    std::fs::set_permissions(root, PermissionsExt::from_mode(0o757)).expect("set the mode");
    chown(root, Some(12), Some(34)).expect("set the owner");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
