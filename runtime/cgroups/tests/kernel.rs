//! berth-cgroups against the kernel it runs on. The same binary runs on hybrid hosts and, in the test VM, on v2.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use berth_cgroups::{Cgroup, CgroupPath, Error, Hierarchy, Layout};
use oci_spec::runtime::LinuxResources;

/// `None`, aloud, where cgroups cannot be made.
fn hierarchy() -> Option<Hierarchy> {
    let hierarchy = if rustix::process::geteuid().is_root() {
        Hierarchy::detect().ok()
    } else {
        None
    };
    if hierarchy.is_none() {
        assert!(
            std::env::var_os("BERTH_TESTS_STRICT").is_none(),
            "needs root and cgroups"
        );
        eprintln!("skipped: needs root and cgroups");
    }
    hierarchy
}

/// A cgroup of this test's own, killed and removed at the end whatever happens.
struct Own {
    hierarchy: Hierarchy,
    path: CgroupPath,
}

impl Own {
    fn new(hierarchy: Hierarchy) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = CgroupPath::parse(format!("/berth-test-{}-{count}/web", std::process::id())).unwrap();
        Self { hierarchy, path }
    }

    fn create(&self, resources: &str) -> Cgroup {
        let resources = parse(resources);
        let cgroup = Cgroup::create(&self.hierarchy, &self.path, Some(&resources)).unwrap();
        cgroup.apply(&resources).unwrap();
        cgroup
    }

    fn file(&self, v1_controller: &str, file: &str) -> String {
        let mount = match self.hierarchy.layout() {
            Layout::V2 => self.hierarchy.unified_mount().unwrap(),
            _ => self.hierarchy.mount_of(v1_controller).unwrap(),
        };
        let path: PathBuf = mount.join(self.path.relative()).join(file);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }

    fn is_v2(&self) -> bool {
        self.hierarchy.layout() == Layout::V2
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Ok(cgroup) = Cgroup::open(&self.hierarchy, &self.path) {
            let _ = cgroup.kill();
            let _ = cgroup.remove();
        }
        self.hierarchy.remove_if_empty(&self.path.parent().unwrap());
    }
}

fn parse(resources: &str) -> LinuxResources {
    serde_json::from_str(resources).unwrap()
}

/// Runs a shell inside the cgroup, entered the way the runtime does it (minus clone3).
#[allow(unsafe_code, reason = "pre_exec is the only way to run code in std's child")]
fn shell(cgroup: &Cgroup, script: &str) -> Child {
    let entry = cgroup.entry().unwrap();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: `enter` and `enter_unified` only open and write; they neither allocate nor lock.
    unsafe {
        command.pre_exec(move || {
            entry.enter()?;
            entry.enter_unified()
        })
    };
    command.spawn().unwrap()
}

fn output(mut child: Child) -> (Option<i32>, String) {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

#[test]
fn a_child_enters_every_hierarchy_and_the_cgroup_goes_again() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create("{}");
    let (code, text) = output(shell(&cgroup, "cat /proc/self/cgroup"));
    assert_eq!(code, Some(0));
    let mine = format!(":{}", own.path);
    let entered = text.lines().filter(|line| line.ends_with(&mine)).count();
    let expected = if own.is_v2() {
        1
    } else {
        own.hierarchy.v1_mounts().len()
    };
    assert_eq!(entered, expected, "{text}");

    let saved = cgroup.saved();
    let again = serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap();
    assert_eq!(saved, again);
    cgroup.remove().unwrap();
    assert!(saved.directories.values().all(|dir| !dir.exists()));
    assert!(Cgroup::open(&own.hierarchy, &own.path).is_err());
}

#[test]
fn a_cgroup_in_use_is_not_adopted() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create("{}");
    let mut child = shell(&cgroup, "exec sleep 60");
    let error = Cgroup::create(&own.hierarchy, &own.path, None).unwrap_err();
    assert!(matches!(error, Error::InUse { processes: 1, .. }), "{error}");
    assert_eq!(
        cgroup.processes(true).unwrap().len(),
        1,
        "the refusal must not disturb who is in it"
    );
    cgroup.kill().unwrap();
    child.wait().unwrap();

    let below = CgroupPath::parse(format!("{}/below", own.path)).unwrap();
    let child_cgroup = Cgroup::create(&own.hierarchy, &below, None).unwrap();
    assert!(matches!(
        Cgroup::create(&own.hierarchy, &own.path, None),
        Err(Error::InUse { children: 1, .. })
    ));
    drop(child_cgroup);
    cgroup.remove().unwrap();
}

#[test]
fn an_empty_cgroup_is_taken() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    drop(own.create("{}"));
    own.create("{}").remove().unwrap();
}

#[test]
fn limits_reach_the_kernel_and_can_be_updated_both_ways() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create(
        r#"{"memory":{"limit":67108864,"swap":134217728},"pids":{"limit":20},
            "cpu":{"shares":512,"quota":50000,"period":100000,"burst":10000,"cpus":"0","mems":"0"}}"#,
    );
    if own.is_v2() {
        assert_eq!(own.file("", "memory.max"), "67108864");
        assert_eq!(own.file("", "cpu.max"), "50000 100000");
        assert_eq!(own.file("", "cpu.max.burst"), "10000");
        assert_eq!(own.file("", "cpu.weight"), "59");
    } else {
        assert_eq!(own.file("memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!(own.file("memory", "memory.memsw.limit_in_bytes"), "134217728");
        assert_eq!(own.file("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(own.file("cpu", "cpu.cfs_burst_us"), "10000");
        assert_eq!(own.file("cpu", "cpu.shares"), "512");
    }
    assert_eq!(own.file("pids", "pids.max"), "20");
    assert_eq!(own.file("cpuset", "cpuset.cpus"), "0");

    for (limit, swap) in [(268_435_456, 300_000_000), (33_554_432, 40_000_000), (-1, -1)] {
        cgroup
            .apply(&parse(&format!(
                r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#
            )))
            .unwrap();
        assert_eq!(
            cgroup.stats().unwrap().memory.limit,
            u64::try_from(limit).ok(),
            "{limit}"
        );
    }
    // Larger burst and quota, then smaller: each needs another order of writes.
    cgroup
        .apply(&parse(r#"{"cpu":{"quota":200000,"burst":150000}}"#))
        .unwrap();
    cgroup
        .apply(&parse(r#"{"cpu":{"quota":20000,"burst":5000}}"#))
        .unwrap();
    cgroup.apply(&parse(r#"{"cpu":{"period":50000}}"#)).unwrap();
    assert_eq!(own.file("pids", "pids.max"), "20", "what is not named stays");
}

#[test]
fn the_task_limit_holds() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create(r#"{"pids":{"limit":1}}"#);
    let (_, text) = output(shell(&cgroup, "(echo forked); echo end"));
    assert!(!text.contains("forked"), "{text}");
    assert_eq!(cgroup.stats().unwrap().pids.limit, Some(1));
}

#[test]
fn a_limit_below_usage_is_told() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create(r#"{"memory":{"limit":104857600,"swap":104857600}}"#);
    // The shell itself holds the memory, and does not return it while it waits.
    let mut child = shell(
        &cgroup,
        "x=$(head -c 8000000 /dev/zero | tr '\\0' x); echo ready; read -r line < /dev/zero",
    );
    let mut ready = [0u8; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let update = r#"{"memory":{"limit":4194304,"swap":4194304,"checkBeforeUpdate":true}}"#;
    let error = cgroup.apply(&parse(update)).unwrap_err();
    assert!(
        matches!(error, Error::LimitBelowUsage { limit: 4_194_304, .. }),
        "{error}"
    );
    assert_eq!(cgroup.stats().unwrap().memory.limit, Some(104_857_600));
    cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_oom_kill_is_counted() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create(r#"{"memory":{"limit":8388608,"swap":8388608}}"#);
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    let (code, _) = output(shell(
        &cgroup,
        "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo ${#x}",
    ));
    assert_ne!(code, Some(0));
    assert!(cgroup.oom_kills().unwrap() >= 1);
    assert_eq!(
        cgroup.stats().unwrap().memory.oom_kills,
        cgroup.oom_kills().unwrap()
    );
}

const DEVICES: &str = r#"{"devices":[{"allow":false,"access":"rwm"},
    {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
    {"allow":true,"type":"c","major":1,"minor":5,"access":"r"}]}"#;

const PROBE: &str =
    "for d in null zero full; do : < /dev/$d && echo $d:r; : > /dev/$d && echo $d:w; done; true";

#[test]
fn device_rules_are_enforced_and_replaced() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create(DEVICES);
    // `sh` stops at a failed redirection of a special builtin, so each probe gets its own subshell.
    let probe = PROBE
        .replace(": <", "( : <")
        .replace(": >", "( : >")
        .replace(" && echo", " ) 2> /dev/null && echo");
    assert_eq!(output(shell(&cgroup, &probe)).1, "null:r\nnull:w\nzero:r\n");
    let update = r#"{"devices":[{"allow":false,"access":"rwm"},
        {"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
        {"allow":true,"type":"c","major":1,"minor":7,"access":"r"}]}"#;
    cgroup.apply(&parse(update)).unwrap();
    assert_eq!(output(shell(&cgroup, &probe)).1, "null:r\nnull:w\nfull:r\n");
    cgroup
        .apply(&parse(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#))
        .unwrap();
    assert_eq!(
        output(shell(&cgroup, &probe)).1,
        "null:r\nnull:w\nzero:r\nzero:w\nfull:r\nfull:w\n"
    );
}

#[test]
fn the_freezer_holds_and_kill_reaches_the_frozen() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create("{}");
    let mut child = shell(&cgroup, "sleep 60 & sleep 60 & wait");
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    cgroup.kill().unwrap();
    assert!(!cgroup.is_frozen().unwrap(), "kill leaves the cgroup thawed");
    assert!(cgroup.processes(true).unwrap().is_empty());
    child.wait().unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn kill_wins_against_forks_and_reaches_below() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create(r#"{"pids":{"limit":50}}"#);
    let mut child = shell(
        &cgroup,
        "f() { sleep 0.01 & f & sleep 0.01; }; f; while :; do sleep 0.005 & sleep 0.001; done",
    );
    std::thread::sleep(std::time::Duration::from_millis(50));
    cgroup.kill().unwrap();
    assert!(cgroup.processes(true).unwrap().is_empty());
    child.wait().unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn a_cgroup_with_processes_is_not_removed() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create("{}");
    let mut child = shell(&cgroup, "exec sleep 60");
    let error = Cgroup::open(&own.hierarchy, &own.path)
        .unwrap()
        .remove()
        .unwrap_err();
    assert!(
        matches!(&error, Error::Busy { pids, .. } if pids.len() == 1),
        "{error}"
    );
    cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create("{}");
    let mut refused = vec![
        (r#"{"blockIO":{"leafWeight":500}}"#, "blockIO.leafWeight"),
        (r#"{"memory":{"limit":100000000,"swap":50000000}}"#, "memory.swap"),
        (r#"{"cpu":{"cpus":"0;1"}}"#, "cpu.cpus"),
        (r#"{"network":{"classID":1048577}}"#, "network.classID"),
        (r#"{"unified":{"../memory.max":"1"}}"#, "unified"),
        (r#"{"unified":{"cgroup.procs":"1"}}"#, "unified"),
    ];
    if own.is_v2() {
        refused.push((r#"{"unified":{"nothing.max":"1"}}"#, "no nothing controller"));
    } else {
        refused.push((r#"{"unified":{"memory.high":"1"}}"#, "unified"));
        refused.push((r#"{"rdma":{"mlx5_0":{"hcaHandles":3}}}"#, "rdma"));
    }
    for (resources, named) in refused {
        let error = cgroup.apply(&parse(resources)).unwrap_err();
        assert!(error.to_string().contains(named), "{resources}: {error}");
    }
    // What the kernel refuses is named as it was asked for, beside the file.
    let cpu_file = if own.is_v2() {
        "cpu.max"
    } else {
        "cpu.cfs_quota_us"
    };
    for (resources, field, file) in [
        (
            r#"{"cpu":{"cpus":"4000"}}"#,
            "linux.resources.cpu.cpus",
            "cpuset.cpus",
        ),
        (r#"{"cpu":{"quota":5}}"#, "linux.resources.cpu.quota", cpu_file),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":250,"minor":9,"rate":1}]}}"#,
            "linux.resources.blockIO",
            "250:9",
        ),
    ] {
        let error = cgroup.apply(&parse(resources)).unwrap_err().to_string();
        assert!(
            error.contains(field) && error.contains(file),
            "{resources}: {error}"
        );
    }
}

#[test]
fn huge_pages_and_unified_keys() {
    let Some(hierarchy) = hierarchy() else { return };
    let Some(unified) = hierarchy.unified_mount() else {
        return;
    };
    let controllers = std::fs::read_to_string(unified.join("cgroup.controllers")).unwrap();
    if !controllers.contains("hugetlb") {
        eprintln!("skipped: no hugetlb controller in the v2 tree");
        return;
    }
    let own = Own::new(hierarchy);
    let cgroup = own.create(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#);
    let file = own
        .hierarchy
        .unified_mount()
        .unwrap()
        .join(own.path.relative())
        .join("hugetlb.2MB.max");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), "4194304");
    cgroup
        .apply(&parse(r#"{"unified":{"hugetlb.2MB.max":"2097152"}}"#))
        .unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), "2097152");
    let (_, text) = output(shell(&cgroup, "cat /proc/self/cgroup"));
    assert!(
        text.lines().any(|line| line == format!("0::{}", own.path)),
        "{text}"
    );
    cgroup.remove().unwrap();
}

#[test]
fn counters_move() {
    let Some(hierarchy) = hierarchy() else { return };
    let own = Own::new(hierarchy);
    let cgroup = own.create("{}");
    output(shell(&cgroup, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"));
    let stats = cgroup.stats().unwrap();
    assert!(stats.cpu.usage_ns > 0, "{stats:?}");
    assert_eq!(stats.pids.current, 0);
    assert!(stats.memory.working_set <= stats.memory.usage);
    assert_eq!(stats.memory.limit, None);
}
