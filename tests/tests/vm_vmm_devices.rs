//! Small devices of berth-vmm, driven by Debian's own virtio drivers in the test VM.

use std::path::Path;
use std::time::Duration;

use berth_tests::{Microvms, TEST_VM, VmmApi, eventually, require};
use serde_json::Value;

#[test]
fn debians_drivers_use_the_small_devices() {
    if !require(TEST_VM) {
        return;
    }
    let this = std::env::current_exe().expect("a running test has a path");
    let files = vec![(this, "/t/deps/vm_vmm_devices".into(), 0o755)];
    let modules = ["virtio_mmio", "virtio-rng", "virtio_balloon"];
    let mut vms = Microvms::boot(&modules, files);
    let inside = "cd /t && TMPDIR=/t /t/deps/vm_vmm_devices --ignored --nocapture --test-threads 1";
    let output = vms.vm.run_for(inside, Duration::from_secs(900)).ok();
    assert!(
        output.contains(" passed") && !output.contains("skipped"),
        "{output}"
    );
}

const BOOT: &str = r#"{"kernel_image_path": "/t/vmlinuz", "initrd_path": "/t/initrd", "boot_args": "quiet console=ttyS0 panic=-1"}"#;

/// A machine of 256 MiB with a device, whose shell listens.
fn machine(path: &str, device: &str) -> VmmApi {
    let vmm = VmmApi::start(Path::new("/t/berth-vmm"), &[]);
    vmm.done("PUT", "/boot-source", BOOT);
    vmm.done(
        "PUT",
        "/machine-config",
        r#"{"vcpu_count": 1, "mem_size_mib": 256}"#,
    );
    vmm.done("PUT", path, device);
    vmm.done("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#);
    eventually("the guest is up", || vmm.text("console").contains("guest-is-up"));
    // What is typed earlier is the serial driver's to lose.
    std::thread::sleep(Duration::from_secs(1));
    vmm
}

/// Types a command, and waits for what it says behind `word`.
fn asked(vmm: &mut VmmApi, command: &str, word: &str) -> String {
    let before = vmm.text("console").len();
    vmm.type_at_console(&format!("{command}\n"));
    let mut said = None;
    eventually(word, || {
        let console = vmm.text("console");
        let lines = console[before..].split_inclusive('\n');
        let mut whole = lines.filter(|line| line.ends_with('\n'));
        said = whole.find_map(|line| line.trim().strip_prefix(word).map(str::to_owned));
        said.is_some()
    });
    said.expect("it was said")
}

fn off(mut vmm: VmmApi) {
    vmm.type_at_console("poweroff -f\n");
    assert_eq!(vmm.wait(), 0, "{}", vmm.text("console"));
}

/// What the host holds of the machine, in MiB.
fn resident_mib(vmm: &VmmApi) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", vmm.machine())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("kB");
    kib.parse::<u64>().expect("a number") / 1024
}

/// Lets the guest's kernel touch 100 MiB and free them again.
fn use_memory(vmm: &mut VmmApi) {
    let fill = "dd if=/dev/zero of=/fill bs=1M count=100 2>/dev/null; echo filled-$(wc -c </fill)";
    assert_eq!(asked(vmm, fill, "filled-"), "104857600");
    assert!(resident_mib(vmm) >= 100);
    vmm.type_at_console("rm /fill\n");
}

#[test]
#[ignore = "runs in the test VM"]
fn guests_draw_random_numbers() {
    let limit = r#"{"rate_limiter": {"bandwidth": {"size": 16384, "refill_time": 500}}}"#;
    let mut vmm = machine("/entropy", limit);
    let source = "echo source $(cat /sys/class/misc/hw_random/rng_current)";
    assert_eq!(asked(&mut vmm, source, "source "), "virtio_rng.0");
    let draw = "dd if=/dev/hwrng of=/a bs=4096 count=16 iflag=fullblock 2>/dev/null; echo length $(wc -c </a) $(gzip -c /a | wc -c)";
    let lengths = asked(&mut vmm, draw, "length ");
    let (length, packed) = lengths.split_once(' ').unwrap();
    assert_eq!(length, "65536", "the limit slows and does not end");
    assert!(
        packed.parse::<u64>().unwrap() > 65_536,
        "random numbers cannot be packed"
    );
    off(vmm);
}

#[test]
#[ignore = "runs in the test VM"]
fn balloons_take_memory_and_give_it_back() {
    let balloon = r#"{"amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1}"#;
    let mut vmm = machine("/balloon", balloon);
    use_memory(&mut vmm);
    let before = resident_mib(&vmm);
    vmm.done("PATCH", "/balloon", r#"{"amount_mib": 120}"#);
    let statistics = |vmm: &VmmApi| {
        let (status, told) = vmm.ask("GET", "/balloon/statistics", "");
        assert_eq!(status, 200, "{told}");
        told
    };
    let holds = |vmm: &VmmApi, mib: u64| {
        eventually("the balloon has its size", || {
            statistics(vmm)["actual_mib"] == mib
        });
    };
    holds(&vmm, 120);
    let now = resident_mib(&vmm);
    assert!(now + 60 < before, "{before} MiB before, {now} now");

    let free = |told: &Value| told["free_memory"].as_u64().map(|bytes| bytes >> 20);
    eventually("the guest tells of its memory", || {
        free(&statistics(&vmm)).is_some_and(|mib| mib < 100)
    });
    assert!(statistics(&vmm)["total_memory"].as_u64() > Some(100 << 20));
    assert_eq!(vmm.ask("GET", "/balloon", "").1["amount_mib"], 120);
    vmm.done("PATCH", "/balloon", r#"{"amount_mib": 0}"#);
    holds(&vmm, 0);
    eventually("the guest has its memory", || {
        free(&statistics(&vmm)).is_some_and(|mib| mib > 120)
    });
    use_memory(&mut vmm);

    let asks = |interval_s: u16| format!(r#"{{"stats_polling_interval_s": {interval_s}}}"#);
    vmm.done("PATCH", "/balloon/statistics", &asks(5));
    assert_eq!(vmm.ask("GET", "/balloon", "").1["stats_polling_interval_s"], 5);
    assert_eq!(
        vmm.refused("PATCH", "/balloon/statistics", &asks(0)),
        "Cannot enable/disable the statistics after boot."
    );
    let large = vmm.refused("PATCH", "/balloon", r#"{"amount_mib": 257}"#);
    assert!(large.contains("257 MiB are more than the machine has"), "{large}");
    assert_eq!(statistics(&vmm)["target_mib"], 0);
    off(vmm);
}

#[test]
#[ignore = "runs in the test VM"]
fn free_pages_go_to_the_host() {
    let balloon = r#"{"amount_mib": 0, "deflate_on_oom": false, "free_page_reporting": true}"#;
    let mut vmm = machine("/balloon", balloon);
    use_memory(&mut vmm);
    eventually("the host has them", || resident_mib(&vmm) < 100);
    assert_eq!(
        vmm.refused("GET", "/balloon/statistics", ""),
        "Statistics for the balloon device are not enabled"
    );
    use_memory(&mut vmm);
    off(vmm);
}
