//! `berth kernel` with Debian's kernel, and what it makes of that on Debian's kernel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_tests::{Berth, Need, Output, Vm, VmConfig, require};

/// Runs `berth kernel ARGUMENTS`, busybox being the guest program.
fn kernel<const N: usize>(berth: &Berth, arguments: [&str; N]) -> Output {
    let mut command = berth.command(["kernel"].iter().chain(&arguments));
    command.env("BERTH_GUEST", busybox());
    command.output().expect("start berth").into()
}

fn busybox() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("busybox"))
        .find(|file| file.exists())
        .expect("required above")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

fn stock() -> (PathBuf, PathBuf, String) {
    let modules = berth_tests::stock_modules_tree();
    let release = modules
        .file_name()
        .expect("a release")
        .to_string_lossy()
        .into_owned();
    (berth_tests::stock_kernel(), modules, release)
}

/// The one initramfs of a stored kernel.
fn initramfs(berth: &Berth, name: &str) -> PathBuf {
    let dir = berth.root().join("kernels").join(name);
    std::fs::read_dir(dir)
        .expect("a stored kernel")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.to_string_lossy().contains("initramfs-"))
        .expect("it has an initramfs")
}

#[test]
fn kernels_are_registered_listed_chosen_and_removed() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::new();
    let (image, modules, release) = stock();
    assert_eq!(kernel(&berth, ["ls", "-q"]).ok(), "");
    let add = [
        "add",
        "stock",
        "--kernel",
        text(&image),
        "--modules",
        text(&modules),
    ];
    let added = kernel(&berth, add);
    assert_eq!(added.stderr, "", "Debian's kernel lacks nothing");
    assert_eq!(added.ok(), "stock");
    let again = kernel(&berth, add);
    assert_eq!((again.code, again.stdout.as_str()), (1, ""));
    assert!(
        again
            .stderr
            .starts_with("berth: kernel name stock is in use\nhint: "),
        "{}",
        again.stderr
    );

    assert_eq!(
        kernel(&berth, ["ls", "--format", "{{.Name}} {{.Release}} {{.Lacks}}."]).ok(),
        format!("stock {release} .")
    );
    assert!(kernel(&berth, ["ls"]).ok().starts_with("NAME      RELEASE "));
    assert_eq!(kernel(&berth, ["default", "stock"]).ok(), "stock");
    assert_eq!(kernel(&berth, ["default"]).ok(), "stock");
    assert_eq!(kernel(&berth, ["ls", "--format", "{{.Default}}"]).ok(), "*");
    let refused = kernel(&berth, ["rm", "stock"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("remove kernel stock: it is the default"),
        "{}",
        refused.stderr
    );
    assert_eq!(kernel(&berth, ["default", "nothing"]).code, 1);

    let _ = kernel(&berth, ["default", "--host"]);
    assert_eq!(kernel(&berth, ["rm", "stock"]).ok(), "stock");
    assert_eq!(kernel(&berth, ["ls", "-q"]).ok(), "");
}

#[test]
fn what_is_refused_says_why_and_leaves_nothing() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::new();
    let (image, modules, _) = stock();
    let refused = |arguments: [&str; 6], why: &str| {
        let output = kernel(&berth, arguments);
        assert_eq!(output.code, 1, "{}", output.stderr);
        assert!(output.stderr.contains(why), "{}", output.stderr);
    };
    let (image, tree) = (text(&image), text(&modules));
    refused(
        ["add", "k", "--kernel", "/etc/passwd", "--modules", tree],
        "/etc/passwd is no kernel: ",
    );
    refused(
        ["add", "k", "--kernel", image, "--modules", "/etc"],
        "/etc is no modules directory: ",
    );
    refused(
        ["add", "../k", "--kernel", image, "--modules", tree],
        "invalid kernel name",
    );
    let mut command = berth.command(["kernel", "add", "k", "--kernel", image]);
    let output: Output = command
        .env("BERTH_GUEST", "/nowhere")
        .output()
        .expect("start berth")
        .into();
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("cannot read the guest program /nowhere"),
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.contains("hint: berth-guest comes with berth"),
        "{}",
        output.stderr
    );
    assert_eq!(kernel(&berth, ["ls", "-q"]).ok(), "");
}

#[test]
fn the_modules_load_in_the_order_that_is_listed() {
    if !require(&[
        Need::Root,
        Need::Program("qemu-system-x86_64"),
        Need::Program("busybox"),
    ]) {
        return;
    }
    let berth = Berth::new();
    let (image, modules, _) = stock();
    let _ = kernel(
        &berth,
        [
            "add",
            "stock",
            "--kernel",
            text(&image),
            "--modules",
            text(&modules),
        ],
    )
    .ok();
    let mut vm = Vm::boot(&VmConfig {
        files: vec![(initramfs(&berth, "stock"), "/t/initramfs".into(), 0o644)],
        ..VmConfig::default()
    });
    let _ = vm
        .run("mkdir /x && cd /x && cpio -id </t/initramfs && cmp init /bin/busybox")
        .ok();
    let load = "cd /x && while read -r module; do insmod .$module || exit 1; done <modules; cut -d' ' -f1 /proc/modules";
    let loaded = vm.run_for(load, Duration::from_secs(120)).ok();
    for name in [
        "virtio_mmio",
        "virtio_blk",
        "virtio_net",
        "virtio_rng",
        "virtio_balloon",
        "virtiofs",
        "pvpanic_mmio",
    ] {
        assert!(loaded.lines().any(|line| line == name), "{name}: {loaded}");
    }
    let known = vm.run("cat /proc/filesystems; ls /sys/class/misc").ok();
    for name in ["erofs", "overlay", "ext4", "virtiofs", "vsock"] {
        assert!(
            known.split_whitespace().any(|word| word == name),
            "{name}: {known}"
        );
    }
}
