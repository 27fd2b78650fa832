//! berth-cgroups and berth-runtime on cgroup v2, with every controller, in the test VM.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use berth_tests::{Bundle, TEST_VM, Vm, VmConfig, require};
use serde_json::{Value, json};

/// One VM for all: booting it takes longer than most of the checks.
#[test]
fn on_cgroup_v2() {
    if !require(TEST_VM) {
        return;
    }
    let mut vm = Vm::boot(&VmConfig {
        files: vec![
            (
                berth_tests::binary("berth-runtime"),
                "/t/berth-runtime".into(),
                0o755,
            ),
            (berth_tests::test_binary("kernel"), "/t/deps/kernel".into(), 0o755),
            (
                berth_tests::test_binary("runtime"),
                "/t/deps/runtime".into(),
                0o755,
            ),
        ],
        ..VmConfig::default()
    });
    let setup = "mkdir -p /box/rootfs/bin /box/rootfs/dev /box/rootfs/proc /box/rootfs/sys /box/rootfs/tmp
        cp /bin/busybox /box/rootfs/bin && chroot /box/rootfs /bin/busybox --install -s /bin
        mknod /box/rootfs/mem c 1 1
        ln -s /t/berth-runtime /bin/rt";
    let _ = vm.run(setup).ok();

    type Check = fn(&mut Vm);
    let checks: &[(&str, Check)] = &[
        ("the cgroup crate's own tests", cgroup_tests),
        ("the runtime's end-to-end tests", runtime_tests),
        ("limits are visible inside", limits_are_visible_inside),
        ("devices are denied by BPF", devices_are_denied),
        ("pause stops every process", pause_and_resume),
        ("an OOM kill is reported", oom_kill_is_reported),
        ("update reaches the kernel", update_reaches_the_kernel),
        ("exec joins, delete removes", exec_joins_and_delete_removes),
    ];
    let failed: Vec<_> = checks
        .iter()
        .filter(|(_, check)| catch_unwind(AssertUnwindSafe(|| check(&mut vm))).is_err())
        .map(|(name, _)| name)
        .collect();
    assert!(failed.is_empty(), "failed: {failed:?}; their messages are above");
}

fn cgroup_tests(vm: &mut Vm) {
    let output = vm.run_for("/t/deps/kernel", Duration::from_secs(300)).ok();
    assert!(!output.contains("skipped"), "{output}");
}

fn runtime_tests(vm: &mut Vm) {
    // Linux 6.1 has no idmapped tmpfs (6.3), which the guest's root is; runc and script(1) are not in the VM.
    let skip = "--skip an_idmapped_mount_shows_other_owners --skip runc_makes_the_same_mounts \
                --skip stats_have_the_shape_of_runcs --skip a_terminal_in_the_foreground_is_the_callers";
    let _ = vm
        .run_for(&format!("/t/deps/runtime {skip}"), Duration::from_secs(600))
        .ok();
}

/// Writes the bundle of the container `id` that runs the shell script `args`, with `resources`.
fn bundle(vm: &mut Vm, id: &str, script: &str, resources: &Value) {
    let mut config = Bundle::new(&["sh", "-c", script]).config.clone();
    config["root"]["path"] = json!("/box/rootfs");
    config["linux"]["cgroupsPath"] = json!(format!("/box/{id}"));
    config["linux"]["resources"] = resources.clone();
    config["mounts"].as_array_mut().expect("mounts").push(json!(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}
    ));
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set]
            .as_array_mut()
            .expect("capabilities")
            .push(json!("CAP_MKNOD"));
    }
    let write = format!("mkdir -p /box/{id}\ncat > /box/{id}/config.json <<'END'\n{config}\nEND\n");
    let _ = vm.run(&write).ok();
}

/// The container's cgroup file, from outside.
fn file(vm: &mut Vm, id: &str, name: &str) -> String {
    vm.run(&format!("cat /sys/fs/cgroup/box/{id}/{name}")).ok()
}

fn limits_are_visible_inside(vm: &mut Vm) {
    let resources = json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 67_108_864},
        "pids": {"limit": 50},
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 512, "cpus": "1"},
        "unified": {"memory.high": "50331648", "cpu.weight.nice": "5"}
    });
    let script = "cat /proc/self/cgroup; cd /sys/fs/cgroup
        cat memory.max memory.low memory.swap.max memory.high pids.max cpu.max cpuset.cpus.effective cpu.weight.nice
        echo 1 > pids.max";
    bundle(vm, "limits", script, &resources);
    let output = vm.run("rt run -b /box/limits limits");
    let lines: Vec<_> = output.stdout.lines().collect();
    let want = [
        "0::/",
        "67108864",
        "33554432",
        "0",
        "50331648",
        "50",
        "50000 100000",
        "1",
        "5",
    ];
    assert_eq!(lines[..want.len().min(lines.len())], want, "{}", output.stdout);
    assert!(
        output.stdout.contains("Read-only file system"),
        "{}",
        output.stdout
    );
    assert_eq!(vm.run("test -e /sys/fs/cgroup/box/limits").code, 1);
}

fn devices_are_denied(vm: &mut Vm) {
    let resources = json!({"devices": [
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
    ]});
    let script = "echo x > /dev/null && echo null works
        head -c 1 /dev/zero > /dev/null && echo the default devices work
        head -c 1 /mem; mknod /tmp/mem c 1 1; mknod /tmp/null c 1 3 && rm /tmp/null && echo allowed";
    bundle(vm, "devices", script, &resources);
    let output = vm.run("rt run -b /box/devices devices").stdout;
    for want in [
        "null works",
        "the default devices work",
        "/mem: Operation not permitted",
        "mknod: /tmp/mem: Operation not permitted",
        "allowed",
    ] {
        assert!(output.contains(want), "no {want:?} in:\n{output}");
    }
}

fn pause_and_resume(vm: &mut Vm) {
    bundle(
        vm,
        "pause",
        "n=0; while :; do n=$((n+1)); echo $n > /tmp/n; done",
        &json!({}),
    );
    let _ = vm.run("rt run -d -b /box/pause pause && rt pause pause").ok();
    assert!(file(vm, "pause", "cgroup.events").contains("frozen 1"));
    assert_eq!(vm.run("rt state pause | grep -c '\"paused\"'").ok(), "1");
    assert_eq!(
        vm.run("a=$(cat /box/rootfs/tmp/n); sleep 1; [ \"$a\" = \"$(cat /box/rootfs/tmp/n)\" ]")
            .code,
        0
    );
    let _ = vm.run("rt resume pause").ok();
    let moves = "a=$(cat /box/rootfs/tmp/n); for i in $(seq 100); do
        [ \"$a\" != \"$(cat /box/rootfs/tmp/n)\" ] && exit 0; sleep 0.1; done; exit 1";
    assert_eq!(vm.run(moves).code, 0);
    let _ = vm.run("rt pause pause && rt delete --force pause").ok();
    assert_eq!(vm.run("test -e /sys/fs/cgroup/box/pause").code, 1);
}

fn oom_kill_is_reported(vm: &mut Vm) {
    let resources = json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}});
    bundle(vm, "oom", "sleep 1000", &resources);
    let script = "rt run -d -b /box/oom oom || exit 3
        rt events --interval 100ms oom > /run/events & 
        until [ -s /run/events ]; do sleep 0.1; done
        rt exec oom dd if=/dev/zero of=/dev/null bs=64M count=1; echo \"exec $?\"
        for i in $(seq 100); do grep -q '\"type\":\"oom\"' /run/events && break; sleep 0.1; done
        grep -o '\"type\":\"oom\"' /run/events | head -n 1; rt delete --force oom; wait";
    let output = vm.run(script).stdout;
    assert!(
        output.contains("exec 137") && output.contains("\"type\":\"oom\""),
        "{output}"
    );
    // An init that is killed for memory ends the container with 137, too.
    bundle(
        vm,
        "oominit",
        "exec dd if=/dev/zero of=/dev/null bs=64M count=1",
        &resources,
    );
    assert_eq!(vm.run("rt run -b /box/oominit oominit").code, 137);
}

fn update_reaches_the_kernel(vm: &mut Vm) {
    bundle(
        vm,
        "update",
        "sleep 1000",
        &json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}}),
    );
    let _ = vm.run("rt run -d -b /box/update update").ok();
    assert_eq!(file(vm, "update", "memory.swap.max"), "67108864");
    let flags =
        "--memory 80m --memory-swap 90m --pids-limit 33 --cpu-quota 20000 --cpu-period 50000 --cpuset-cpus 0";
    let _ = vm.run(&format!("rt update {flags} update")).ok();
    for (name, want) in [
        ("memory.max", "83886080"),
        ("memory.swap.max", "10485760"),
        ("pids.max", "33"),
        ("cpu.max", "20000 50000"),
        ("cpuset.cpus", "0"),
    ] {
        assert_eq!(file(vm, "update", name), want, "{name}");
    }
    let _ = vm
        .run("echo '{\"unified\": {\"memory.high\": \"41943040\"}, \"pids\": {\"limit\": -1}}' | rt update -r - update")
        .ok();
    assert_eq!(file(vm, "update", "memory.high"), "41943040");
    assert_eq!(file(vm, "update", "pids.max"), "max");
    let _ = vm.run("rt delete --force update").ok();
}

fn exec_joins_and_delete_removes(vm: &mut Vm) {
    bundle(vm, "exec", "sleep 1000", &json!({"pids": {"limit": 20}}));
    let _ = vm
        .run("rt run -d -b /box/exec exec && rt exec -d exec sleep 1001")
        .ok();
    assert_eq!(vm.run("rt exec exec cat /proc/self/cgroup").ok(), "0::/");
    assert_eq!(file(vm, "exec", "cgroup.procs").lines().count(), 2);
    // A cgroup the container's own processes made below theirs goes with it.
    let _ = vm
        .run("mkdir /sys/fs/cgroup/box/exec/below && rt delete --force exec")
        .ok();
    assert_eq!(
        vm.run("ls /sys/fs/cgroup/box 2> /dev/null | grep -x exec; true")
            .ok(),
        ""
    );
}
