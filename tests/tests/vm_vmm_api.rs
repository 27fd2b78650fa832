//! The API of berth-vmm with a machine that runs Debian's kernel, in the test VM. `vmm_api.rs` is what comes before a start.

use std::path::Path;
use std::time::Duration;

use berth_tests::{Microvms, TEST_VM, VmmApi, eventually, require};
use serde_json::Value;

#[test]
fn a_machine_of_the_apis_own() {
    if !require(TEST_VM) {
        return;
    }
    let this = std::env::current_exe().expect("a running test has a path");
    let files = vec![(this, "/t/deps/vm_vmm_api".into(), 0o755)];
    let mut vms = Microvms::boot(&["virtio_mmio", "virtio_blk", "button", "evdev"], files);
    let inside = "cd /t && TMPDIR=/t /t/deps/vm_vmm_api --ignored --nocapture --test-threads 1";
    let output = vms.vm.run_for(inside, Duration::from_secs(900)).ok();
    assert!(
        output.contains(" passed") && !output.contains("skipped"),
        "{output}"
    );
}

const BOOT: &str = r#"{"kernel_image_path": "/t/vmlinuz", "initrd_path": "/t/initrd", "boot_args": "quiet console=ttyS0 panic=-1"}"#;
const START: &str = r#"{"action_type": "InstanceStart"}"#;
const KEYS: &str = r#"{"action_type": "SendCtrlAltDel"}"#;
const BUTTON: &str = r#"{"action_type": "PressPowerButton"}"#;

/// Bit 19 of ECX in leaf 1: SSE4.1.
const NO_SSE4_1: &str = r#"{"cpuid_modifiers": [{"leaf": "0x1", "subleaf": "0x0", "flags": 0,
    "modifiers": [{"register": "ecx", "bitmap": "0bxxxxxxxxxxxx0xxxxxxxxxxxxxxxxxxx"}]}]}"#;

fn says(vmm: &VmmApi, text: &str) {
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the guest says it", || vmm.text("console").contains(text));
    }));
    let (console, log) = (vmm.text("console"), vmm.text("log"));
    assert!(said.is_ok(), "no {text:?} in:\n{console}\n{log}");
}

/// Waits for the guest's shell. What is typed earlier is the serial driver's to lose.
fn listens(vmm: &VmmApi) {
    says(vmm, "guest-is-up");
    std::thread::sleep(Duration::from_secs(1));
}

fn pause(vmm: &VmmApi) {
    vmm.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    assert_eq!(vmm.ask("GET", "/", "").1["state"], "Paused");
}

fn resume(vmm: &VmmApi) {
    vmm.done("PATCH", "/vm", r#"{"state": "Resumed"}"#);
    assert_eq!(vmm.ask("GET", "/", "").1["state"], "Running");
}

/// So much was counted in all lines: there may have been one a minute.
fn counted(vmm: &VmmApi, what: &str) -> u64 {
    let text = vmm.text("metrics");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines
        .map(|line| line.pointer(what).and_then(Value::as_u64).expect("it is counted"))
        .sum()
}

#[test]
#[ignore = "runs in the test VM"]
fn http_calls_build_start_pause_and_end_a_machine() {
    let mut vmm = VmmApi::start(Path::new("/t/berth-vmm"), &[]);
    vmm.done("PUT", "/boot-source", BOOT);
    vmm.done(
        "PUT",
        "/machine-config",
        r#"{"vcpu_count": 4, "mem_size_mib": 192}"#,
    );
    std::fs::write("/t/disk", [b'd'; 4096]).unwrap();
    let drive =
        r#"{"drive_id": "data", "path_on_host": "/t/disk", "is_root_device": false, "is_read_only": true}"#;
    vmm.done("PUT", "/drives/data", drive);
    let card = r#"{"iface_id": "net", "host_dev_name": "tapapi"}"#;
    vmm.done("PUT", "/network-interfaces/net", card);
    refuses_templates_the_host_cannot_do(&vmm);
    vmm.done("PUT", "/cpu-config", "{}");
    vmm.done("PUT", "/actions", START);
    let late = vmm.refused(
        "PUT",
        "/machine-config",
        r#"{"vcpu_count": 1, "mem_size_mib": 64}"#,
    );
    assert_eq!(
        late,
        "The requested operation is not supported after starting the microVM."
    );
    listens(&vmm);
    vmm.type_at_console("echo cpus-$(nproc) disk-$(head -c 3 /dev/vda)\n");
    says(&vmm, "cpus-4 disk-ddd");
    threads_are_confined(&vmm, "2");
    counts_what_happens(&vmm);
    changes_a_disk(&mut vmm);
    changes_a_network_card(&vmm);
    stands_and_goes_on(&mut vmm);
    its_power_button_is_a_key(&mut vmm);
    // Three keys, pressed while nobody can read them.
    pause(&vmm);
    vmm.done("PUT", "/actions", KEYS);
    assert!(
        vmm.refused("PUT", "/actions", KEYS)
            .contains("does not read its keyboard")
    );
    let before = counted(&vmm, "/vcpu/exit_io_out");
    resume(&vmm);
    assert_eq!(vmm.wait(), 3, "{}", vmm.text("console"));
    assert!(!vmm.socket().exists());
    assert!(counted(&vmm, "/vcpu/exit_io_out") > before, "the end is counted");
}

/// `KEY_POWER`, 116, goes down and up again at the input device of Linux' button driver.
fn its_power_button_is_a_key(vmm: &mut VmmApi) {
    let device = "grep -A 9 'Power Button' /proc/bus/input/devices | grep -o -m 1 'event[0-9]*'";
    // Four events of 24 bytes: the key, and the end of what belongs to it, twice. Type, code and value are at 16.
    let read =
        "head -c 96 /dev/input/$device | od -An -v -w24 -tu2 | awk '{ printf \" %d-%d-%d\", $9, $10, $11 }'";
    vmm.type_at_console(&format!("device=$({device}); echo keys:$({read})\n"));
    // Nobody tells when it is open.
    eventually("the key is read", || {
        vmm.done("PUT", "/actions", BUTTON);
        std::thread::sleep(Duration::from_millis(500));
        vmm.text("console").contains("1-116-1 0-0-0 1-116-0 0-0-0")
    });
}

/// Each thread has a filter, or none: `Seccomp` of proc_pid_status(5).
fn threads_are_confined(vmm: &VmmApi, seccomp: &str) {
    let tasks = format!("/proc/{}/task", vmm.machine());
    let mut threads = 0;
    for task in std::fs::read_dir(tasks).expect("it runs") {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect("the kernel tells").trim_start_matches(':').trim()
        };
        let told = (field("NoNewPrivs"), field("Seccomp"));
        assert_eq!(told, ("1", seccomp), "{status}");
        threads += 1;
    }
    assert!(threads > 1, "a thread for each processor, and the event loop");
}

fn refuses_templates_the_host_cannot_do(vmm: &VmmApi) {
    for (template, words) in [
        (r#"{"kvm_capabilities": ["99999"]}"#, "KVM lacks capability 99999"),
        (
            r#"{"msr_modifiers": [{"addr": "0xdead", "bitmap": "0b1"}]}"#,
            "KVM lacks machine register 0xdead",
        ),
        (
            r#"{"cpuid_modifiers": [{"leaf": "0x77777777", "subleaf": "0x0", "flags": 0, "modifiers": []}]}"#,
            "KVM lacks CPUID leaf 0x77777777 subleaf 0x0",
        ),
    ] {
        vmm.done("PUT", "/cpu-config", template);
        let said = vmm.refused("PUT", "/actions", START);
        assert!(said.contains(words), "{said}");
        assert_eq!(vmm.ask("GET", "/", "").1["state"], "Not started");
    }
}

fn counts_what_happens(vmm: &VmmApi) {
    vmm.done("PUT", "/actions", r#"{"action_type": "FlushMetrics"}"#);
    assert!(counted(vmm, "/vcpu/exit_io_out") > 100);
    assert!(counted(vmm, "/vcpu/exit_mmio_read") > 10);
    assert_eq!(counted(vmm, "/put_api_requests/machine_cfg_count"), 2);
    assert_eq!(counted(vmm, "/put_api_requests/machine_cfg_fails"), 1);
    assert_eq!(counted(vmm, "/put_api_requests/drive_count"), 1);
    // Each of the templates, and the one that worked.
    assert_eq!(counted(vmm, "/put_api_requests/actions_count"), 4);
    assert_eq!(counted(vmm, "/put_api_requests/actions_fails"), 3);
}

fn changes_a_disk(vmm: &mut VmmApi) {
    std::fs::write("/t/larger", [b'e'; 8192]).unwrap();
    let wrong = r#"{"drive_id": "data", "path_on_host": "/nowhere"}"#;
    assert!(
        vmm.refused("PATCH", "/drives/data", wrong)
            .contains("/nowhere: No such file")
    );
    assert_eq!(
        vmm.refused(
            "PATCH",
            "/drives/x",
            r#"{"drive_id": "x", "path_on_host": "/t/larger"}"#
        ),
        "No drive is called x."
    );
    let larger = r#"{"drive_id": "data", "path_on_host": "/t/larger", "rate_limiter": {"ops": {"size": 100, "refill_time": 100}}}"#;
    vmm.done("PATCH", "/drives/data", larger);
    let drive = &vmm.ask("GET", "/vm/config", "").1["drives"][0];
    assert_eq!(drive["path_on_host"], "/t/larger");
    assert_eq!(drive["rate_limiter"]["ops"]["size"], 100);
    vmm.type_at_console(
        "until [ $(cat /sys/block/vda/size) = 16 ]; do sleep 0.1; done; blockdev --flushbufs /dev/vda
        echo now-$(head -c 3 /dev/vda)\n",
    );
    says(vmm, "now-eee");
}

fn changes_a_network_card(vmm: &VmmApi) {
    assert_eq!(
        vmm.refused("PATCH", "/network-interfaces/x", r#"{"iface_id": "x"}"#),
        "No network interface is called x."
    );
    for limits in [
        r#"{"bandwidth": {"size": 7, "refill_time": 10}}"#,
        r#"{"ops": {"size": 8, "refill_time": 10}}"#,
    ] {
        let change = format!(r#"{{"iface_id": "net", "tx_rate_limiter": {limits}}}"#);
        vmm.done("PATCH", "/network-interfaces/net", &change);
    }
    let card = &vmm.ask("GET", "/vm/config", "").1["network-interfaces"][0];
    assert_eq!(card["tx_rate_limiter"]["bandwidth"]["size"], 7);
    assert_eq!(card["tx_rate_limiter"]["ops"]["size"], 8);
    assert!(card["rx_rate_limiter"].is_null());
}

fn stands_and_goes_on(vmm: &mut VmmApi) {
    // A processor each, and one that talks.
    let ticks = "n=0; while [ $n -lt 100 ]; do n=$((n+1)); echo tick-$n; sleep 0.05; done";
    vmm.type_at_console(&format!(
        "for n in 1 2 3; do while :; do :; done & done; {ticks}; kill %1 %2 %3\n"
    ));
    says(vmm, "tick-10\r");
    pause(vmm);
    pause(vmm);
    let before = vmm.text("console");
    assert!(!before.contains("tick-90"), "it was paused in between");
    vmm.type_at_console("echo still-$((6*7))\n");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(vmm.text("console"), before, "it stands");
    vmm.done("PUT", "/actions", r#"{"action_type": "FlushMetrics"}"#);
    resume(vmm);
    resume(vmm);
    for _ in 0..100 {
        pause(vmm);
        resume(vmm);
    }
    // What was typed meanwhile is not lost.
    says(vmm, "still-42");
    let console = vmm.text("console");
    let ticks: Vec<u32> = console
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tick-")?.parse().ok())
        .collect();
    let all: Vec<u32> = (1..=100).collect();
    assert_eq!(ticks, all, "no tick twice or never:\n{console}");
    vmm.type_at_console("dmesg | grep -i -e lockup -e stall; echo quiet-$?\n");
    says(vmm, "quiet-1");
}

#[test]
#[ignore = "runs in the test VM"]
fn a_configuration_file_starts_what_the_api_then_governs() {
    let host = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    assert!(host.contains(" sse4_1 ") && host.contains(" ssse3 "), "{host}");
    std::fs::write("/t/template.json", NO_SSE4_1).unwrap();
    let config = format!(
        r#"{{"boot-source": {BOOT}, "machine-config": {{"vcpu_count": 1, "mem_size_mib": 192}},
            "cpu-config": "/t/template.json", "logger": {{"level": "Debug"}}}}"#
    );
    std::fs::write("/t/file.json", config).unwrap();
    let mut vmm = VmmApi::start(
        Path::new("/t/berth-vmm"),
        &["--config-file", "/t/file.json", "--no-seccomp"],
    );
    listens(&vmm);
    let (_, said) = vmm.ask("GET", "/vm/config", "");
    assert_eq!(said["cpu-config"]["cpuid_modifiers"][0]["leaf"], "0x1");
    threads_are_confined(&vmm, "0");
    vmm.type_at_console(
        "echo has-$(grep -m 1 ^flags /proc/cpuinfo | grep -o -w -e ssse3 -e sse4_1 | tr '\\n' -)end\n",
    );
    says(&vmm, "has-ssse3-end");
    pause(&vmm);
    resume(&vmm);
    vmm.type_at_console("poweroff -f\n");
    assert_eq!(vmm.wait(), 0);
}
