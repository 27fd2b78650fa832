//! Snapshots of berth-vmm with Debian's kernel, in the test VM: a shell goes on in other processes, each with a TAP and a vsock
//! path of its own. `vmm_snapshot.rs` has a smaller guest, and files that are refused.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use berth_tests::{Microvms, Need, VmmApi, eventually, program_files, require};

#[test]
fn a_shell_goes_on_in_other_processes() {
    if !require(&[
        Need::Root,
        Need::Program("qemu-system-x86_64"),
        Need::Program("busybox"),
        Need::Program("socat"),
    ]) {
        return;
    }
    let this = std::env::current_exe().expect("a running test has a path");
    let mut files = program_files("/usr/bin/socat", "/t/guest");
    files.extend(program_files("/usr/bin/socat", ""));
    files.push((this, "/t/deps/vm_vmm_snapshot".into(), 0o755));
    let modules = [
        "virtio_mmio",
        "virtio_blk",
        "virtio_net",
        "virtio_balloon",
        "vmw_vsock_virtio_transport",
    ];
    let mut vms = Microvms::boot(&modules, files);
    let inside = "cd /t && TMPDIR=/t /t/deps/vm_vmm_snapshot --ignored --nocapture --test-threads 1";
    let output = vms.vm.run_for(inside, Duration::from_secs(600)).ok();
    assert!(
        output.contains(" passed") && !output.contains("skipped"),
        "{output}"
    );
}

const BOOT: &str = r#"{"kernel_image_path": "/t/vmlinuz", "initrd_path": "/t/initrd", "boot_args": "quiet console=ttyS0 panic=-1"}"#;

/// A microVM, and how much of its console was read.
struct Machine {
    vmm: VmmApi,
    read: usize,
}

impl Machine {
    fn new() -> Machine {
        let vmm = VmmApi::start(Path::new("/t/berth-vmm"), &[]);
        Machine { vmm, read: 0 }
    }

    /// Waits until the guest says `word` at the begin of a line, and takes the rest of that line.
    fn hears(&mut self, word: &str) -> String {
        let mut found = None;
        let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the guest says it", || {
                let text = self.vmm.text("console");
                let mut at = self.read;
                for line in text[at..].split_inclusive('\n') {
                    at += line.len();
                    // The last may not be whole.
                    if let Some(rest) = line.trim().strip_prefix(word)
                        && line.ends_with('\n')
                    {
                        found = Some(rest.to_owned());
                        self.read = at;
                        break;
                    }
                }
                found.is_some()
            });
        }));
        let (console, log) = (self.vmm.text("console"), self.vmm.text("log"));
        assert!(heard.is_ok(), "no {word:?} in:\n{console}\n{log}");
        found.expect("it was found")
    }

    /// What the guest's shell answers: commands that say `word` and more.
    fn asks(&mut self, commands: &str, word: &str) -> String {
        self.vmm.type_at_console(&format!("{commands}\n"));
        self.hears(word)
    }

    fn set(&self, state: &str) {
        self.vmm
            .done("PATCH", "/vm", &format!(r#"{{"state": "{state}"}}"#));
    }

    /// The generation id, and how often the guest heard of another. Debian's kernel has no driver that looks at it.
    fn generation(&mut self) -> (String, String) {
        let id = self.asks(
            "echo id-$(dd if=/dev/mem bs=16 skip=65280 count=1 2>/dev/null | md5sum)",
            "id-",
        );
        let heard = self.asks(
            "echo heard-$(awk '/ 5-edge.*Ged/ { print $2 + $3 }' /proc/interrupts)",
            "heard-",
        );
        (id, heard)
    }
}

fn sh(script: &str) {
    let output = Command::new("sh").args(["-c", script]).output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}: {said}");
}

#[test]
#[ignore = "runs in the test VM"]
fn inside() {
    let mut first = Machine::new();
    sh("dd if=/dev/urandom of=/t/disk bs=1M count=4 2>/dev/null");
    for (path, body) in [
        ("/boot-source", BOOT),
        ("/machine-config", r#"{"vcpu_count": 2, "mem_size_mib": 192}"#),
        (
            "/drives/d",
            r#"{"drive_id": "d", "path_on_host": "/t/disk", "is_root_device": false, "cache_type": "Writeback"}"#,
        ),
        (
            "/network-interfaces/n",
            r#"{"iface_id": "n", "host_dev_name": "tapa", "guest_mac": "06:00:00:00:00:02"}"#,
        ),
        ("/vsock", r#"{"guest_cid": 3, "uds_path": "/t/a.sock"}"#),
        (
            "/balloon",
            r#"{"amount_mib": 0, "deflate_on_oom": false, "stats_polling_interval_s": 1}"#,
        ),
        ("/actions", r#"{"action_type": "InstanceStart"}"#),
    ] {
        first.vmm.done("PUT", path, body);
    }
    sh("ip link set tapa up && ip addr add 10.9.1.1/24 dev tapa");
    let mut echo = Command::new("/usr/bin/socat")
        .args(["UNIX-LISTEN:/t/a.sock_52,fork", "EXEC:cat"])
        .spawn()
        .expect("socat");
    first.hears("guest-is-up");
    std::thread::sleep(Duration::from_secs(1));
    first.asks(
        "stty -echo; dmesg -n 1; ip link set lo up; echo quiet-now",
        "quiet-",
    );
    // A connection that stays, and something to remember. The job never ends: at a child's end this busybox's shell takes its input for
    // ended, too.
    first.asks(
        "(/usr/bin/socat -u VSOCK-CONNECT:2:52 - >/dev/null 2>&1; echo vsock-ended >/ended; sleep 100000) & echo started-$!",
        "started-",
    );
    first.asks(
        "ip link set eth0 up; ip addr add 10.9.1.2/24 dev eth0; ping -c 1 -W 20 10.9.1.1 >/dev/null && echo pinged-1",
        "pinged-",
    );
    let sum = first.asks(
        "x=41; head -c 3000000 /dev/urandom >/r; echo sum-$(md5sum </r) disk-$(md5sum </dev/vda)",
        "sum-",
    );
    let generation = first.generation();
    assert_eq!(generation.1, "0");
    let refused = first.vmm.refused(
        "PUT",
        "/snapshot/create",
        r#"{"snapshot_path": "/t/state", "mem_file_path": "/t/memory"}"#,
    );
    assert!(refused.contains("paused"), "{refused}");
    first.set("Paused");
    first.vmm.done(
        "PUT",
        "/snapshot/create",
        r#"{"snapshot_path": "/t/state", "mem_file_path": "/t/memory"}"#,
    );
    sh("test $(stat -c %s /t/memory) = 201326592 && test $(du -k /t/memory | cut -f 1) -lt 150000");

    let load = |name: &str| {
        let clone = Machine::new();
        let body = format!(
            r#"{{"snapshot_path": "/t/state", "mem_backend": {{"backend_type": "File", "backend_path": "/t/memory"}}, "resume_vm": true,
                "network_overrides": [{{"iface_id": "n", "host_dev_name": "tap{name}"}}],
                "vsock_override": {{"uds_path": "/t/{name}.sock"}}}}"#
        );
        let taken = body.replace(&format!("/t/{name}.sock"), "/t/a.sock");
        let said = clone.vmm.refused("PUT", "/snapshot/load", &taken);
        assert!(said.contains("/t/a.sock"), "{said}");
        clone.vmm.done("PUT", "/snapshot/load", &body);
        clone
    };
    let mut clones = [load("b"), load("c")];
    let mut generations = vec![generation];
    for (clone, name) in clones.iter_mut().zip(["b", "c"]) {
        let tap = &clone.vmm.ask("GET", "/vm/config", "").1["network-interfaces"][0]["host_dev_name"];
        assert_eq!(*tap, format!("tap{name}"));
        assert_eq!(clone.asks("echo x-$((x+1))", "x-"), "42");
        let same = clone.asks("echo sum-$(md5sum </r) disk-$(md5sum </dev/vda)", "sum-");
        assert_eq!(same, sum, "memory and disk are as they were");
        let fresh = "dd if=/dev/vda of=/dev/null iflag=direct bs=64k 2>/dev/null; echo direct-$?";
        assert_eq!(clone.asks(fresh, "direct-"), "0", "the disk itself is there");
        generations.push(clone.generation());
        let mut own = Command::new("/usr/bin/socat")
            .args([&format!("UNIX-LISTEN:/t/{name}.sock_52,fork"), "EXEC:cat"])
            .spawn()
            .expect("socat");
        clone.asks(
            "until [ -e /ended ]; do sleep 0.1; done; echo ended-$(cat /ended)",
            "ended-vsock-ended",
        );
        let echoed = "echo echoed-$(echo hello | /usr/bin/socat -t 20 - VSOCK-CONNECT:2:52)";
        assert_eq!(clone.asks(echoed, "echoed-"), "hello");
        own.kill().and_then(|()| own.wait()).expect("it runs");
        sh(&format!(
            "ip addr del 10.9.1.1/24 dev tapa 2>/dev/null; ip link set tap{name} up && ip addr add 10.9.1.1/24 dev tap{name}"
        ));
        clone.asks(
            "until ping -c 1 -W 5 10.9.1.1 >/dev/null; do :; done; echo pinged-2",
            "pinged-",
        );
        sh(&format!("ip addr del 10.9.1.1/24 dev tap{name}"));
        clone.vmm.done("PATCH", "/balloon", r#"{"amount_mib": 32}"#);
        eventually("the balloon is as large as it should be", || {
            clone.vmm.ask("GET", "/balloon/statistics", "").1["actual_mib"] == 32
        });
        assert_eq!(
            clone.asks("echo again-$(md5sum </r)", "again-").split(' ').next(),
            sum.split(' ').next()
        );
        let late = "dmesg | grep -i -e lockup -e stall -e 'clocksource.*unstable'; echo late-$?";
        assert_eq!(clone.asks(late, "late-"), "1");
    }
    // The first stood meanwhile, and goes on with the connection it had.
    first.set("Resumed");
    assert_eq!(first.asks("echo x-$((x+1))", "x-"), "42");
    assert_eq!(first.generation(), generations[0]);
    assert_eq!(first.asks("ls /ended 2>/dev/null; echo ended-$?", "ended-"), "1");
    let [one, other] = [&generations[1], &generations[2]];
    assert!(one.0 != other.0 && one.0 != generations[0].0, "{generations:?}");
    assert_eq!(
        (&*one.1, &*other.1),
        ("1", "1"),
        "each clone hears of its id once"
    );

    // A snapshot of one that came from a snapshot.
    let [clone, _] = &mut clones;
    clone.set("Paused");
    clone.vmm.done(
        "PUT",
        "/snapshot/create",
        r#"{"snapshot_path": "/t/state2", "mem_file_path": "/t/memory2"}"#,
    );
    clone
        .vmm
        .process
        .kill()
        .and_then(|()| clone.vmm.process.wait())
        .expect("it runs");
    sh("rm -f /t/b.sock");
    let mut grandchild = Machine::new();
    grandchild.vmm.done(
        "PUT",
        "/snapshot/load",
        r#"{"snapshot_path": "/t/state2", "mem_file_path": "/t/memory2"}"#,
    );
    grandchild.set("Resumed");
    assert_eq!(grandchild.asks("echo x-$((x+2))", "x-"), "43");
    assert_eq!(grandchild.generation().1, "2");
    grandchild.vmm.type_at_console("poweroff -f\n");
    assert_eq!(grandchild.vmm.wait(), 0, "{}", grandchild.vmm.text("console"));
    echo.kill().and_then(|()| echo.wait()).expect("it runs");
}
