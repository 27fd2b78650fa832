//! `berth` on a stock kernel with cgroup v2 and every controller, in the test VM: a container on the bridge through its life.

use std::time::Duration;

use berth_tests::vm::CONTAINER_MODULES;
use berth_tests::{Need, Vm, VmConfig, berth::busybox_archive, binary, require};

/// Asks the web server at this address for its page.
fn fetch(vm: &mut Vm, address: &str) -> String {
    let (ip, port) = address.split_once(':').expect("an address with a port");
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {ip} {port} | tail -n 1");
    vm.run(&ask).stdout.trim_end().to_owned()
}

/// What of containers can be seen on the host.
fn traces(vm: &mut Vm) -> String {
    let look = "ls /sys/class/net; grep -c . /proc/self/mountinfo; find /sys/fs/cgroup -type d | sort
        find /run/berth -name '[0-9a-f]*' -path '*containers/*' 2>/dev/null; ps -o comm | grep -E 'berth|httpd' | grep -v grep; true";
    vm.run(look).ok()
}

#[test]
fn a_container_on_the_bridge_with_cgroup_v2() {
    let needs = [
        Need::Root,
        Need::Program("qemu-system-x86_64"),
        Need::Program("busybox"),
    ];
    if !require(&needs) {
        return;
    }
    let scratch = tempfile::tempdir().expect("make a directory");
    let file = |name: &str| (binary(name), format!("/bin/{name}"), 0o755);
    let mut vm = Vm::boot(&VmConfig {
        // Binaries with debug information, in the archive and again in the root that is made of it.
        memory_mib: 2048,
        files: vec![
            file("berth"),
            file("berth-shim"),
            (busybox_archive(scratch.path()), "/busybox.tar".into(), 0o644),
        ],
        modules: CONTAINER_MODULES.to_vec(),
        ..VmConfig::default()
    });
    let _ = vm
        .run_for("berth import /busybox.tar busybox", Duration::from_secs(300))
        .ok();
    let before = traces(&mut vm);
    let serve = "berth run -d --name web -p 127.0.0.1:0:80 -m 64m --cpus 0.5 --pids-limit 50 busybox \
        sh -c 'mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www'";
    let _ = vm.run(serve).ok();
    let address = vm.run("berth port web 80/tcp").ok();
    let mut page = String::new();
    for _ in 0..100 {
        page = fetch(&mut vm, &address);
        if page == "served" {
            break;
        }
        let _ = vm.run("sleep 0.1");
    }
    assert_eq!(page, "served", "{}", vm.run("berth logs web; berth ps -a").stdout);
    assert_eq!(
        vm.run(
            "berth exec web sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max; cat /proc/self/cgroup'"
        )
        .ok(),
        "67108864\n50\n50000 100000\n0::/"
    );
    let stats = vm
        .run("berth stats --no-stream --format '{{.PIDs}} {{.MemUsage}} {{.NetIO}}' web")
        .ok();
    assert!(
        stats.starts_with("1 ") && stats.contains(" / 64MiB ") && !stats.ends_with("0B / 0B"),
        "{stats}"
    );
    assert!(vm.run("berth top web").ok().contains("httpd"));
    let _ = vm.run("berth update --pids-limit 60 web").ok();
    assert_eq!(vm.run("berth exec web cat /sys/fs/cgroup/pids.max").ok(), "60");
    let _ = vm.run("berth pause web").ok();
    assert_eq!(vm.run("berth inspect -f '{{.State.Status}}' web").ok(), "paused");
    let _ = vm.run("berth unpause web").ok();
    assert_eq!(vm.run("berth exec web nonesuch").code, 127);
    // Killed for memory, and so it says.
    let greedy = vm.run("berth run --name greedy -m 16m busybox dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert_eq!(greedy.code, 137, "{}", greedy.stdout);
    assert_eq!(
        vm.run("berth inspect -f '{{.State.OOMKilled}}' greedy").ok(),
        "true"
    );
    // A neighbour finds it by name.
    let neighbour = "berth network create front && berth run -d --name two --network front busybox sleep 600 && \
        berth run --rm --network front busybox sh -c 'nslookup two 127.0.0.11 | grep -c Name'";
    let found = vm.run(neighbour);
    assert_eq!(found.code, 0, "{}", found.stdout);
    let _ = vm
        .run("berth stop -t 1 web two && berth rm web two greedy && berth network rm front")
        .ok();
    // Bridge and tables go a moment after the last container.
    let mut after = String::new();
    for _ in 0..100 {
        after = traces(&mut vm);
        if after == before {
            break;
        }
        let _ = vm.run("sleep 0.1");
    }
    assert_eq!(after, before);
    assert!(
        fetch(&mut vm, &address).contains("refused"),
        "the port is given back"
    );
}
