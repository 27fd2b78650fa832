//! `run` and `update`: limits, seen in the container's own cgroup files (v1, hybrid or v2) and in inspect.

use berth_tests::Berth;

use crate::fixture::{berth, eventually, field, inside, sleeping};

/// Shows a limit under either layout; the file names are those of v1 and v2.
fn limit(berth: &Berth, flags: &[&str], v1: &str, v2: &str) -> String {
    let script = format!(
        "for f in /sys/fs/cgroup/{v1} /sys/fs/cgroup/{v2}; do [ -e $f ] && cat $f && exit; done; exit 1"
    );
    inside(berth, flags, &script)
}

#[test]
fn memory_and_swap() {
    let Some(berth) = berth() else { return };
    let memory = |flags: &[&str]| limit(&berth, flags, "memory/memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(&["-m", "64m"]), "67108864");
    assert_eq!(memory(&["--memory", "67108864"]), "67108864");
    let swap = |flags: &[&str]| {
        limit(
            &berth,
            flags,
            "memory/memory.memsw.limit_in_bytes",
            "memory.swap.max",
        )
    };
    let is_v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let both = |v1: u64| if is_v2 { v1 - (64 << 20) } else { v1 }.to_string();
    if is_v2 || std::path::Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
        // Twice the memory unless said otherwise, as docker has it.
        assert_eq!(swap(&["-m", "64m"]), both(128 << 20));
        assert_eq!(swap(&["-m", "64m", "--memory-swap", "96m"]), both(96 << 20));
    }
    for (flags, names) in [
        (&["-m", "1k"][..], "memory"),
        (&["-m", "64m", "--memory-swap", "32m"], "swap"),
        (&["--memory-swap", "64m"], "memory"),
        (&["-m", "many"], "many"),
        (&["-m", "64m", "--memory-reservation", "128m"], "reservation"),
    ] {
        let refused = berth.run(["run", "--rm"].iter().chain(flags).chain(&["busybox", "true"]));
        assert_eq!(refused.code, 125, "{flags:?}");
        assert!(refused.stderr.contains(names), "{flags:?}: {}", refused.stderr);
    }
}

#[test]
fn who_needs_more_memory_than_its_limit_is_killed_and_it_is_told() {
    let Some(berth) = berth() else { return };
    let ran = berth.run([
        "run",
        "--name",
        "greedy",
        "-m",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=64M",
        "count=1",
    ]);
    assert_eq!(ran.code, 137, "{}", ran.stderr);
    assert_eq!(field(&berth, "greedy", "/State/OOMKilled"), true);
    let flags = ["--since", "1h", "--until", "0s", "--format", "{{.Action}}"];
    let told = berth.run(["events"].iter().chain(&flags)).ok();
    assert!(told.ends_with("start\noom\ndie"), "{told}");
    assert_eq!(field(&berth, "greedy", "/HostConfig/Memory"), 16 << 20);
}

#[test]
fn cpus_pids_and_the_rest() {
    let Some(berth) = berth() else { return };
    let quota = |flags: &[&str]| {
        let script = "cat /sys/fs/cgroup/cpu.max 2>/dev/null ||
            echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us)";
        inside(&berth, flags, script)
    };
    assert_eq!(quota(&["--cpus", "0.5"]), "50000 100000");
    assert_eq!(
        quota(&["--cpu-quota", "20000", "--cpu-period", "40000"]),
        "20000 40000"
    );
    assert_eq!(
        limit(
            &berth,
            &["--cpuset-cpus", "0"],
            "cpuset/cpuset.cpus",
            "cpuset.cpus.effective"
        ),
        "0"
    );
    assert_eq!(inside(&berth, &["--cpuset-cpus", "0"], "nproc"), "1");
    assert_eq!(
        limit(&berth, &["--pids-limit", "50"], "pids/pids.max", "pids.max"),
        "50"
    );
    assert_eq!(
        limit(&berth, &["--pids-limit", "-1"], "pids/pids.max", "pids.max"),
        "max"
    );
    // The limit holds: the fifth process cannot be made.
    let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done 2>&1; wait";
    let ran = berth.run(["run", "--rm", "--pids-limit", "4", "busybox", "sh", "-c", forks]);
    assert!(
        format!("{}{}", ran.stdout, ran.stderr).contains("fork"),
        "{} {}",
        ran.stdout,
        ran.stderr
    );
    for (flags, names) in [
        (&["--cpus", "-1"][..], "-1"),
        (&["--cpus", "1", "--cpu-quota", "1000"], "cpu"),
        (&["--cpuset-cpus", "9999"], "9999: the host has 0"),
        (&["--cpuset-mems", "9"], "9: the host has 0"),
        (&["--cpuset-cpus", "x"], "x"),
    ] {
        let refused = berth.run(["run", "--rm"].iter().chain(flags).chain(&["busybox", "true"]));
        assert_eq!(refused.code, 125, "{flags:?}");
        assert!(refused.stderr.contains(names), "{flags:?}: {}", refused.stderr);
    }
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn ulimits_and_sysctls() {
    let Some(berth) = berth() else { return };
    assert_eq!(
        inside(
            &berth,
            &["--ulimit", "nofile=100:200", "--ulimit", "core=0"],
            "ulimit -Sn; ulimit -Hn; ulimit -c"
        ),
        "100\n200\n0"
    );
    assert_eq!(
        inside(
            &berth,
            &[
                "--sysctl",
                "net.ipv4.ip_forward=1",
                "--sysctl",
                "kernel.msgmax=4096"
            ],
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"
        ),
        "1\n4096"
    );
    for (flags, names) in [
        (&["--ulimit", "nonsense=1"][..], "nonsense"),
        (&["--ulimit", "nofile=200:100"], "nofile"),
        (&["--sysctl", "kernel.panic=1"], "kernel.panic"),
        (&["--sysctl", "net.ipv4.no_such=1"], "no_such"),
        (&["--sysctl", "novalue"], "novalue"),
    ] {
        let refused = berth.run(["run", "--rm"].iter().chain(flags).chain(&["busybox", "true"]));
        assert_eq!(refused.code, 125, "{flags:?}");
        assert!(refused.stderr.contains(names), "{flags:?}: {}", refused.stderr);
    }
    assert_eq!(berth.left(), Vec::<String>::new());
}

#[test]
fn oom_score_and_shares() {
    let Some(berth) = berth() else { return };
    assert_eq!(
        inside(
            &berth,
            &["--oom-score-adj", "500"],
            "cat /proc/self/oom_score_adj"
        ),
        "500"
    );
    let shares = limit(&berth, &["--cpu-shares", "512"], "cpu/cpu.shares", "cpu.weight");
    assert!(["512", "20", "59"].contains(&shares.as_str()), "{shares}");
}

#[test]
fn update_changes_a_running_container() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "limited", &["-m", "64m", "--pids-limit", "50"]);
    let _ = berth
        .run([
            "update",
            "-m",
            "96m",
            "--memory-swap",
            "128m",
            "--pids-limit",
            "60",
            "--cpus",
            "0.25",
            "limited",
        ])
        .ok();
    let show = |v1: &str, v2: &str| {
        let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
        berth.run(["exec", "limited", "sh", "-c", &script]).ok()
    };
    assert_eq!(
        show("memory/memory.limit_in_bytes", "memory.max"),
        (96 << 20).to_string()
    );
    assert_eq!(show("pids/pids.max", "pids.max"), "60");
    assert_eq!(field(&berth, "limited", "/HostConfig/Memory"), 96 << 20);
    assert_eq!(field(&berth, "limited", "/HostConfig/PidsLimit"), 60);
    assert_eq!(field(&berth, "limited", "/HostConfig/NanoCpus"), 250_000_000);
    let _ = berth.run(["update", "--restart", "always", "limited"]).ok();
    let _ = berth.run(["exec", "limited", "kill", "-9", "-1"]).code;
    assert_eq!(
        field(&berth, "limited", "/HostConfig/RestartPolicy/Name"),
        "always"
    );
    // What is not possible changes nothing.
    let refused = berth.run(["update", "-m", "1k", "limited"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("memory"), "{}", refused.stderr);
    assert_eq!(field(&berth, "limited", "/HostConfig/Memory"), 96 << 20);
    eventually("it runs", || berth.run(["exec", "limited", "true"]).code == 0);
}
