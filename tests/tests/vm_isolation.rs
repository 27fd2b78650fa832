//! `berth run --isolation vm` in the test VM: the verbs of a container, on a kernel of its own.

use berth_tests::{BerthVm, TEST_VM, require};

/// Fails, hangs or does well, as files in the container say.
const HEALTH: &str = "--health-cmd 'echo looked; test ! -e /tmp/slow || sleep 777; test -e /tmp/well' --health-interval 3s \
    --health-timeout 10s --health-retries 1";

fn its_health_is_checked(host: &mut BerthVm) {
    let mut becomes = |status: &str, change: &str, said: &str| {
        let told = host
            .run(&format!(
                "berth exec box {change}
                 until berth inspect -f '{{{{.State.Health.Status}}}} {{{{json .State.Health.Log}}}}' box |
                     grep -q '^{status} .*\"Output\":\"{said}[^}}]*}}]'; do sleep 0.5; done; berth ps"
            ))
            .ok();
        assert!(told.contains(&format!("({status})")), "{told}");
    };
    becomes("unhealthy", "true", "looked.n");
    becomes("healthy", "touch /tmp/well", "looked.n");
    becomes(
        "unhealthy",
        "touch /tmp/slow",
        "health check exceeded its timeout of 10s",
    );
    // The shell's child goes, too; the next check has one of its own.
    let left = "berth exec box rm /tmp/slow; sleep 1; until berth inspect -f '{{.State.Health.Status}}' box | grep -qx healthy; do sleep 0.5; done
        berth top box | grep -c 'sleep 777'";
    assert_eq!(host.run(left).stdout.trim(), "0");
}

#[test]
fn the_verbs_of_a_container() {
    if !require(TEST_VM) {
        return;
    }
    let mut host = BerthVm::boot();
    let refused = host.run("berth run --isolation vm --network none --rm busybox true 2>&1");
    assert_eq!(refused.code, 125, "{}", refused.stdout);
    assert!(
        refused.stdout.contains("no kernel for microVMs"),
        "{}",
        refused.stdout
    );
    host.add_kernel();
    let before = host.look();
    let berth_run = "berth run --isolation vm --network none";

    // In the foreground: streams, input, environment, directory, user, and the end.
    let script = r#"echo out; echo err >&2; read line; echo "$line $X $(pwd) $(id -u) $(hostname)"; touch /no || echo read-only; exit 7"#;
    let front = host.run(&format!(
        "echo typed | {berth_run} --rm -i -e X=y -w /tmp -u 12 --hostname inside --read-only busybox sh -c '{script}' 2>/err; \
         code=$?; cat /err; exit $code"
    ));
    assert_eq!(front.code, 7, "{}", front.stdout);
    let lines: Vec<&str> = front.stdout.lines().collect();
    for line in ["out", "err", "typed y /tmp 12 inside", "read-only"] {
        assert!(lines.contains(&line), "no {line:?} in {}", front.stdout);
    }
    assert_eq!(host.settled(&before), before, "--rm left something");

    // Detached, with limits.
    let serve = "trap 'echo bye; exit 3' TERM; echo serving; while :; do sleep 0.1; done";
    let id = host
        .run(&format!(
            "{berth_run} -d --name box -m 64m --cpus 1.5 --pids-limit 50 {HEALTH} busybox sh -c \"{serve}\""
        ))
        .ok();
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(
        host.run(
            "berth exec box sh -c 'uname -r; nproc; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max'"
        )
        .ok(),
        format!("{}\n2\n67108864\n50", host.release())
    );
    assert_eq!(host.run("echo fed | berth exec -i -e A=b -w /etc -u 5 box sh -c 'cat; echo $A; pwd; id -u; echo bad >&2; exit 9' 2>/dev/null; echo $?").ok(), "fed\nb\n/etc\n5\n9");
    assert_eq!(host.run("berth exec box nonesuch 2>/dev/null").code, 127);
    assert_eq!(
        host.run("berth exec -d box touch /tmp/made && sleep 2 && berth exec box ls /tmp/made")
            .ok(),
        "/tmp/made"
    );
    assert!(
        host.run("berth exec -t box sh -c 'test -t 1 && echo a-terminal'")
            .ok()
            .contains("a-terminal")
    );
    assert_eq!(host.run("berth logs box").ok(), "serving");
    its_health_is_checked(&mut host);
    assert_eq!(
        host.run("berth inspect -f '{{.HostConfig.Isolation}} {{.State.Status}}' box")
            .ok(),
        "vm running"
    );
    // The machine is in its jail, beside the process that the shim started: nobody, in an empty root.
    let jailed = "keeper=$(berth inspect -f '{{.State.Pid}}' box); machine=/proc/$(echo $(cat /proc/$keeper/task/$keeper/children))
        grep -c '^Uid:.18790' $machine/status; ls $machine/root";
    assert_eq!(host.run(jailed).ok(), "1");
    // It has the container's limits, and room for what is not the guest's.
    let bound = "keeper=$(berth inspect -f '{{.State.Pid}}' box); machine=$(echo $(cat /proc/$keeper/task/$keeper/children))
        group=/sys/fs/cgroup/berth/$(berth inspect -f '{{.Id}}' box); grep -cx $machine $group/cgroup.procs
        cat $group/memory.max $group/cpu.max $group/pids.max";
    assert_eq!(host.run(bound).ok(), "1\n234881024\n150000 100000\n18");
    let stats = host
        .run("berth stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' box")
        .ok();
    assert!(stats.contains(" / 64MiB "), "{stats}");
    let refused = host.run("berth run --rm --network container:box busybox true 2>&1");
    assert_ne!(refused.code, 0);
    assert!(refused.stdout.contains("not supported"), "{}", refused.stdout);
    let _ = host.run("berth pause box && berth unpause box").ok();
    let _ = host.run("berth stop box").ok();
    assert_eq!(host.run("berth wait box; berth logs box").ok(), "3\nserving\nbye");
    let _ = host.run("berth start box").ok();
    assert_eq!(
        host.run("berth exec box ls /tmp/made").ok(),
        "/tmp/made",
        "what was written is there again"
    );
    let _ = host.run("berth kill box").ok();
    assert_eq!(host.run("berth wait box").ok(), "137");
    let _ = host.run("berth rm box").ok();

    // A terminal of its own.
    assert!(
        host.run(&format!("{berth_run} --rm -t busybox sh -c 'tty; stty size'"))
            .ok()
            .contains("/dev/pts/0")
    );
    assert_eq!(
        host.run(&format!("{berth_run} --rm busybox nonesuch 2>/dev/null"))
            .code,
        127
    );

    // A shim that is killed takes nothing with it that the next command does not clear away.
    let _ = host
        .run("berth run --isolation vm -d --name orphan -p 8080:80 busybox sleep 600")
        .ok();
    let _ = host.run(
        "kill -9 $(berth inspect -f '{{.State.ShimPid}}' orphan 2>/dev/null || pidof berth-shim); sleep 1",
    )
    .ok();
    assert_eq!(
        host.run("berth ps -a --format '{{.Names}} {{.State}}'").ok(),
        "orphan exited"
    );
    let _ = host.run("berth rm orphan").ok();
    assert_eq!(host.settled(&before), before);
}
