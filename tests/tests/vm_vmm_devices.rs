//! Small devices of berth-vmm, driven by Debian's own virtio drivers in the test VM.

use berth_tests::{Microvms, Need, require};

fn possible() -> bool {
    require(&[
        Need::Root,
        Need::Program("qemu-system-x86_64"),
        Need::Program("busybox"),
    ])
}

/// The rest of the first line that begins with `word`.
fn said<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(word))
        .unwrap_or_else(|| panic!("no {word} in:\n{text}"))
}

#[test]
fn guests_draw_random_numbers() {
    if !possible() {
        return;
    }
    let mut vms = Microvms::boot(&["virtio_mmio", "virtio-rng"], Vec::new());
    let config = r#"{"boot-source": {"kernel_image_path": "/t/vmlinuz", "initrd_path": "/t/initrd", "boot_args": "console=ttyS0 panic=-1"},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 256},
        "entropy": {"rate_limiter": {"bandwidth": {"size": 65536, "refill_time": 500}}}}"#;
    let typed = [
        "stty -echo; dmesg -n 1",
        "echo source $(cat /sys/class/misc/hw_random/rng_current)",
        "dd if=/dev/hwrng of=/a bs=4096 count=64 iflag=fullblock 2>/dev/null",
        "echo length $(wc -c </a) $(gzip -c /a | wc -c)",
        "poweroff -f",
    ];
    let output = vms.run(config, &(typed.join("\\n") + "\\n"));
    assert_eq!(output.code, 0, "{}", output.stdout);
    assert_eq!(said(&output.stdout, "source "), "virtio_rng.0");
    let (length, packed) = said(&output.stdout, "length ").split_once(' ').unwrap();
    assert_eq!(length, "262144", "the limit slows and does not end");
    assert!(
        packed.parse::<u64>().unwrap() > 262_144,
        "random numbers cannot be packed"
    );
}
