//! `berth run --isolation vm` in the test VM: the verbs of a container, on a kernel of its own.

use std::time::Duration;

use std::process::Command;

use berth_tests::vm::CONTAINER_MODULES;
use berth_tests::{MICROVM_MODULES, Need, Vm, VmConfig, binary, require, stock_kernel, stock_modules};

/// What Debian's kernel has as modules and a guest needs.
const GUEST_MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio-rng",
    "virtio_balloon",
    "virtiofs",
    "vmw_vsock_virtio_transport",
    "erofs",
    "overlay",
];

/// What of microVMs can be seen on the host.
const LOOK: &str = "grep -c . /proc/self/mountinfo; ls /sys/class/net; find /sys/fs/cgroup -type d | sort
    find /run/berth -name '[0-9a-f]*' -path '*containers/*' 2>/dev/null; ps -o comm | grep berth | grep -v grep; true";

/// [`LOOK`], once it shows `wanted` or after a while: shims stay for a moment.
fn settled(wanted: &str) -> String {
    format!(
        "for i in $(seq 50); do seen=$({LOOK}); [ \"$seen\" = '{wanted}' ] && break; sleep 0.2; done; echo \"$seen\""
    )
}

#[test]
fn the_verbs_of_a_container() {
    if !require(&[
        Need::Root,
        Need::Program("qemu-system-x86_64"),
        Need::Program("busybox"),
    ]) {
        return;
    }
    let scratch = tempfile::tempdir().expect("make a directory");
    let at = |name: &str| scratch.path().join(name);
    let strip = |name: &str| {
        let status = Command::new("strip")
            .arg("-o")
            .arg(at(name))
            .arg(binary(name))
            .status();
        assert!(status.is_ok_and(|status| status.success()), "strip {name}");
        at(name)
    };
    let file = |name: &str| (strip(name), format!("/bin/{name}"), 0o755);
    // Of Debian's modules what a guest needs, where the package has it.
    let tree = berth_tests::stock_modules_tree();
    let release = tree
        .file_name()
        .expect("a release")
        .to_string_lossy()
        .into_owned();
    let wanted = stock_modules(GUEST_MODULES)
        .into_iter()
        .chain([tree.join("modules.builtin")]);
    let modules = wanted.map(|file| {
        let below = file
            .strip_prefix(&tree)
            .expect("below the tree")
            .display()
            .to_string();
        (file, format!("/lib/modules/{release}/{below}"), 0o644)
    });
    let mut vm = Vm::boot(&VmConfig {
        memory_mib: 3072,
        files: modules
            .chain([
                file("berth"),
                file("berth-shim"),
                file("berth-vmm"),
                file("berth-guest"),
                (stock_kernel(), "/vmlinuz".into(), 0o644),
                (
                    berth_tests::berth::busybox_archive(scratch.path()),
                    "/busybox.tar".into(),
                    0o644,
                ),
            ])
            .collect(),
        modules: [MICROVM_MODULES, CONTAINER_MODULES].concat(),
        ..VmConfig::default()
    });
    let mut run = |command: &str| vm.run_for(command, Duration::from_secs(400));
    let _ = run("berth import /busybox.tar busybox").ok();
    let refused = run("berth run --isolation vm --network none --rm busybox true 2>&1");
    assert_eq!(refused.code, 125, "{}", refused.stdout);
    assert!(
        refused.stdout.contains("no kernel for microVMs"),
        "{}",
        refused.stdout
    );
    let add = format!("berth kernel add stock --kernel /vmlinuz --modules /lib/modules/{release}");
    let _ = run(&format!("{add} && berth kernel default stock")).ok();
    let before = run(LOOK).ok();
    let berth_run = "berth run --isolation vm --network none";

    // In the foreground: streams, input, environment, directory, user, and the end.
    let script = r#"echo out; echo err >&2; read line; echo "$line $X $(pwd) $(id -u) $(hostname)"; touch /no || echo read-only; exit 7"#;
    let front = run(&format!(
        "echo typed | {berth_run} --rm -i -e X=y -w /tmp -u 12 --hostname inside --read-only busybox sh -c '{script}' 2>/err; \
         code=$?; cat /err; exit $code"
    ));
    assert_eq!(front.code, 7, "{}", front.stdout);
    let lines: Vec<&str> = front.stdout.lines().collect();
    for line in ["out", "err", "typed y /tmp 12 inside", "read-only"] {
        assert!(lines.contains(&line), "no {line:?} in {}", front.stdout);
    }
    assert_eq!(run(&settled(&before)).ok(), before, "--rm left something");

    // Detached, with limits.
    let serve = "trap 'echo bye; exit 3' TERM; echo serving; while :; do sleep 0.1; done";
    let id = run(&format!(
        "{berth_run} -d --name box -m 64m --cpus 1.5 --pids-limit 50 busybox sh -c \"{serve}\""
    ))
    .ok();
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(
        run("berth exec box sh -c 'uname -r; nproc; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max'")
            .ok(),
        "6.1.0-56-cloud-amd64\n2\n67108864\n50"
    );
    assert_eq!(run("echo fed | berth exec -i -e A=b -w /etc -u 5 box sh -c 'cat; echo $A; pwd; id -u; echo bad >&2; exit 9' 2>/dev/null; echo $?").ok(), "fed\nb\n/etc\n5\n9");
    assert_eq!(run("berth exec box nonesuch 2>/dev/null").code, 127);
    assert_eq!(
        run("berth exec -d box touch /tmp/made && sleep 2 && berth exec box ls /tmp/made").ok(),
        "/tmp/made"
    );
    assert!(
        run("berth exec -t box sh -c 'test -t 1 && echo a-terminal'")
            .ok()
            .contains("a-terminal")
    );
    assert_eq!(run("berth logs box").ok(), "serving");
    assert!(run("berth ps").ok().contains("box"));
    assert_eq!(
        run("berth inspect -f '{{.HostConfig.Isolation}} {{.State.Status}}' box").ok(),
        "vm running"
    );
    let stats = run("berth stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' box").ok();
    assert!(stats.contains(" / 64MiB "), "{stats}");
    for verb in [
        "top box",
        "cp box:/etc/passwd /x",
        "run --rm --network container:box busybox true",
    ] {
        let refused = run(&format!("berth {verb} 2>&1"));
        assert_ne!(refused.code, 0, "{verb}");
        assert!(
            refused.stdout.contains("not supported"),
            "{verb}: {}",
            refused.stdout
        );
    }
    let _ = run("berth pause box && berth unpause box").ok();
    let _ = run("berth stop box").ok();
    assert_eq!(run("berth wait box; berth logs box").ok(), "3\nserving\nbye");
    let _ = run("berth start box").ok();
    assert_eq!(
        run("berth exec box ls /tmp/made").ok(),
        "/tmp/made",
        "what was written is there again"
    );
    let _ = run("berth kill box").ok();
    assert_eq!(run("berth wait box").ok(), "137");
    let _ = run("berth rm box").ok();

    // A terminal of its own.
    assert!(
        run(&format!("{berth_run} --rm -t busybox sh -c 'tty; stty size'"))
            .ok()
            .contains("/dev/pts/0")
    );
    assert_eq!(
        run(&format!("{berth_run} --rm busybox nonesuch 2>/dev/null")).code,
        127
    );

    // A shim that is killed takes nothing with it that the next command does not clear away.
    let _ = run(&format!("{berth_run} -d --name orphan busybox sleep 600")).ok();
    let _ = run(
        "kill -9 $(berth inspect -f '{{.State.ShimPid}}' orphan 2>/dev/null || pidof berth-shim); sleep 1",
    )
    .ok();
    assert_eq!(
        run("berth ps -a --format '{{.Names}} {{.State}}'").ok(),
        "orphan exited"
    );
    let _ = run("berth rm orphan").ok();
    assert_eq!(run(&settled(&before)).ok(), before);
}
