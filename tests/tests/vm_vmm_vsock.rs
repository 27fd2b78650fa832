//! vsock of berth-vmm with Debian's own driver, and Debian's socat on both sides.

use berth_tests::{Microvms, Need, program_files, require};

#[test]
fn programs_on_both_sides_reach_each_other() {
    if !require(&[
        Need::Root,
        Need::Program("qemu-system-x86_64"),
        Need::Program("busybox"),
        Need::Program("socat"),
    ]) {
        return;
    }
    let socat = "/usr/bin/socat";
    let mut files = program_files(socat, "/t/guest");
    files.extend(program_files(socat, ""));
    let modules = ["virtio_mmio", "vmw_vsock_virtio_transport"];
    let mut vms = Microvms::boot(&modules, files);
    // A program that echoes for port 52; one that asks the guest on port 1024 until somebody listens there; and one on a port nobody
    // listens on.
    let _ = vms
        .vm
        .run(
            r#"dd if=/dev/urandom of=/t/data bs=1M count=2 2>/dev/null
            /usr/bin/socat UNIX-LISTEN:/t/v.sock_52,fork EXEC:cat 2>/t/echo.err &
            cat >/t/ask.sh <<'END'
exec 2>/t/ask.err
until grep -q listening /t/out; do sleep 0.2; done
until grep -q ^OK /t/asked; do
    sleep 1; { echo "CONNECT 1024"; cat /t/data; } | /usr/bin/socat -t 60 - UNIX-CONNECT:/t/v.sock >/t/asked
done
(echo "CONNECT 77"; sleep 2) | /usr/bin/socat -t 5 - UNIX-CONNECT:/t/v.sock >/t/refused
touch /t/asked.done
END
            sh /t/ask.sh >/dev/null </dev/null &"#,
        )
        .ok();
    let config = r#"{"boot-source": {"kernel_image_path": "/t/vmlinuz", "initrd_path": "/t/initrd", "boot_args": "console=ttyS0 panic=-1"},
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 256},
        "vsock": {"guest_cid": 3, "uds_path": "/t/v.sock"}}"#;
    let typed = [
        "stty -echo; dmesg -n 1",
        "/usr/bin/socat VSOCK-LISTEN:1024 EXEC:md5sum & echo listening",
        "dd if=/dev/urandom of=/data bs=1M count=2 2>/dev/null",
        "echo sent $(md5sum </data); echo echoed $(/usr/bin/socat -t 60 - VSOCK-CONNECT:2:52 </data | md5sum)",
        "/usr/bin/socat -u VSOCK-CONNECT:2:53 - 2>&1 | grep -o reset",
        "for n in $(seq 40); do echo $n | /usr/bin/socat -t 60 - VSOCK-CONNECT:2:52; done | wc -l",
        "wait; echo all-done; sleep 4; poweroff -f",
    ];
    let output = vms.run(config, &(typed.join("\\n") + "\\n"));
    let text = output.stdout;
    let beside = vms.vm.run("cat /t/ask.err /t/echo.err").stdout;
    assert_eq!(output.code, 0, "{text}\n{beside}");
    let said = |word: &str| {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter_map(|line| line.strip_prefix(word));
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no {word} in:\n{text}\n{beside}"));
        line.split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!(said("sent "), said("echoed "), "what the guest sent comes back");
    assert!(text.lines().any(|line| line.trim() == "reset"), "{text}");
    assert!(text.lines().any(|line| line.trim() == "40"), "{text}");

    let asked = vms
        .vm
        .run("md5sum </t/data; cat /t/asked; echo; cat /t/refused | wc -c; ls /t/v.sock 2>&1")
        .stdout;
    let mut lines = asked.lines();
    let sum = lines.next().expect("a sum");
    assert_eq!(lines.next(), Some("OK 1073741824"), "{asked}\n{text}\n{beside}");
    assert_eq!(lines.next(), Some(sum), "the guest's answer");
    assert!(asked.contains("\n0\n"), "a port nobody listens on: {asked}");
    assert!(
        asked.contains("No such file"),
        "the socket goes with the microVM: {asked}"
    );
}
