//! What `berth run --isolation vm` says of a machine that never comes up. Its kernel is a few instructions long, so that any KVM
//! runs it.

use berth_tests::{Berth, Need, bare_guest, require};

#[test]
fn a_kernel_that_ends_at_once_is_told_by_how_it_ended() {
    if !require(&[
        Need::Root,
        Need::Kvm,
        Need::Program("busybox"),
        Need::Program("mkfs.ext4"),
    ]) {
        return;
    }
    let berth = Berth::with_busybox();
    for (name, code, words) in [
        // mov dx, 0x600; mov al, 0x34; out dx, al: ACPI's S5.
        (
            "off",
            &b"\x66\xba\x00\x06\xb0\x34\xee\xf4"[..],
            "switched off by the guest",
        ),
        // mov al, 0xfe; out 0x64, al: the keyboard controller's reset.
        ("reset", b"\xb0\xfe\xe6\x64\xf4", "reset by the guest"),
        // ud2, and nobody there to handle it.
        ("lost", b"\x0f\x0b", "as the guest lost control of its processor"),
        // mov dx, 0x505; mov al, 1; out dx, al: pvpanic.
        (
            "panic",
            b"\x66\xba\x05\x05\xb0\x01\xee\xf4",
            "as the guest's kernel panicked",
        ),
    ] {
        let kernel = berth.scratch().join(name);
        // By its banner the file is a kernel of Linux's.
        let code = [code, b"Linux version 0.0.0-nothing (nobody)"].concat();
        std::fs::write(&kernel, bare_guest(&code)).expect("write the kernel");
        let added = berth.run(["kernel", "add", name, "--kernel", kernel.to_str().expect("UTF-8")]);
        assert!(
            added.stderr.contains("/lib/modules/0.0.0-nothing is not there"),
            "{}",
            added.stderr
        );
        let _ = added.ok();
        let _ = berth.run(["kernel", "default", name]).ok();
        let run = berth.run([
            "run",
            "--rm",
            "--isolation",
            "vm",
            "--network",
            "none",
            "busybox",
            "true",
        ]);
        assert_eq!(run.code, 125, "{}", run.stderr);
        let told = format!("it ended before it was up, {words}");
        assert!(run.stderr.contains(&told), "{name}: {}", run.stderr);
        assert_eq!(berth.run(["ps", "-aq"]).ok(), "");
    }
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn without_kvm_one_line_says_so() {
    if !require(&[Need::Root]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (kernel, config) = (directory.path().join("kernel"), directory.path().join("vm.json"));
    std::fs::write(&kernel, bare_guest(b"\xf4")).expect("write the kernel");
    let settings = format!(
        r#"{{"boot-source": {{"kernel_image_path": "{}"}}, "machine-config": {{"vcpu_count": 1, "mem_size_mib": 8}}}}"#,
        kernel.display()
    );
    std::fs::write(&config, settings).expect("write the configuration");
    let output = std::process::Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs none /dev && exec \"$@\"",
            "sh",
        ])
        .arg(berth_tests::binary("berth-vmm"))
        .args(["--no-api", "--config-file"])
        .arg(&config)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("start it");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains("/dev/kvm") && told.contains("No such file or directory"),
        "{told}"
    );
}
