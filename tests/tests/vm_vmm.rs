//! berth-vmm boots Debian's own kernel, in the test VM where KVM can run one.

use std::path::Path;
use std::process::Command;

use berth_tests::{Microvms, Need, VmOutput, require};

/// Runs a microVM and types `typed` at its shell.
fn microvm(vms: &mut Microvms, kernel: &str, vcpus: u8, memory_mib: u32, typed: &str) -> VmOutput {
    let config = format!(
        r#"{{"boot-source": {{"kernel_image_path": "{kernel}", "initrd_path": "/t/initrd", "boot_args": "console=ttyS0 panic=-1"}},
            "machine-config": {{"vcpu_count": {vcpus}, "mem_size_mib": {memory_mib}}}}}"#
    );
    vms.run(&config, typed)
}

#[test]
fn debians_kernel_boots_to_a_shell() {
    if !require(&[
        Need::Root,
        Need::Program("qemu-system-x86_64"),
        Need::Program("busybox"),
        Need::Program("lz4"),
    ]) {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let bzimage = berth_tests::stock_kernel();
    let vmlinux = scratch.path().join("vmlinux");
    extract(&bzimage, &vmlinux);
    let mut vm = Microvms::boot(&["pvpanic_mmio"], vec![(vmlinux, "/t/vmlinux".into(), 0o644)]);

    // The numbers of a boot loader without one, and of PVH's code in Linux.
    for (kernel, vcpus, loader) in [("/t/vmlinuz", 1, "loader 255"), ("/t/vmlinux", 4, "loader 176")] {
        let typed = r"nproc; echo loader $(cat /proc/sys/kernel/bootloader_type)
            cat /sys/devices/system/clocksource/clocksource0/current_clocksource; grep MemTotal /proc/meminfo; poweroff -f\n";
        let output = microvm(&mut vm, kernel, vcpus, 256, typed);
        assert_eq!(output.code, 0, "{kernel}: {}", output.stdout);
        assert!(
            output.stdout.contains("guest-is-up"),
            "{kernel}: {}",
            output.stdout
        );
        let lines: Vec<&str> = output.stdout.lines().map(str::trim).collect();
        assert!(lines.contains(&loader), "{kernel}: {}", output.stdout);
        assert!(
            lines.contains(&vcpus.to_string().as_str()),
            "{kernel}: {}",
            output.stdout
        );
        assert!(lines.contains(&"kvm-clock"), "{kernel}: {}", output.stdout);
        let kib = lines.iter().find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        });
        // The kernel keeps some for itself.
        assert!(
            kib.is_some_and(|kib: u32| (200 << 10..256 << 10).contains(&kib)),
            "{kernel}: {kib:?}"
        );
    }

    let output = microvm(&mut vm, "/t/vmlinux", 1, 256, r"reboot -f\n");
    assert_eq!(output.code, 3, "a reset: {}", output.stdout);
    let output = microvm(&mut vm, "/t/vmlinux", 1, 256, r"echo c >/proc/sysrq-trigger\n");
    assert_eq!(output.code, 5, "a panic is told: {}", output.stdout);
    assert!(
        output.stdout.contains("Kernel panic - not syncing: sysrq"),
        "{}",
        output.stdout
    );

    for (kernel, words) in [
        (
            "/t/nowhere",
            "kernel /t/nowhere: cannot read it: No such file or directory",
        ),
        (
            "/t/vm.json",
            "kernel /t/vm.json: it is neither an ELF file nor a bzImage",
        ),
    ] {
        let output = microvm(&mut vm, kernel, 1, 256, "");
        assert_eq!(output.code, 1, "{}", output.stdout);
        assert!(output.stdout.contains(words), "{}", output.stdout);
    }
    // The kernel fits, the initial file system does not.
    let _ = vm
        .vm
        .run("dd if=/dev/zero of=/t/initrd bs=1M count=200 2>/dev/null")
        .ok();
    let output = microvm(&mut vm, "/t/vmlinux", 1, 128, "");
    assert_eq!(output.code, 1, "{}", output.stdout);
    assert!(
        output.stdout.contains("initrd /t/initrd: it needs"),
        "{}",
        output.stdout
    );
}

/// The ELF file inside a bzImage, by `lz4`: not with the code that is tested here.
fn extract(bzimage: &Path, to: &Path) {
    let image = std::fs::read(bzimage).expect("the kernel");
    let word =
        |at: usize| usize::try_from(u32::from_le_bytes(image[at..at + 4].try_into().unwrap())).unwrap();
    let from = (usize::from(image[0x1f1]) + 1) * 512 + word(0x248);
    // The last four bytes are the unpacked length.
    let packed = to.with_extension("lz4");
    std::fs::write(&packed, &image[from..from + word(0x24c) - 4]).expect("the payload");
    let unpacked = Command::new("lz4")
        .args(["-dc"])
        .arg(&packed)
        .output()
        .expect("lz4");
    assert!(
        unpacked.status.success(),
        "{}",
        String::from_utf8_lossy(&unpacked.stderr)
    );
    std::fs::write(to, unpacked.stdout).expect("the kernel");
}
