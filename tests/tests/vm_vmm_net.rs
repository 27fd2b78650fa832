//! Network cards of berth-vmm, driven by Debian's own driver in the test VM.

use berth_tests::{Microvms, TEST_VM, require};

/// The rest of the first line that begins with `word`.
fn said<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(word))
        .unwrap_or_else(|| panic!("no {word} in:\n{text}"))
}

#[test]
fn guests_talk_to_their_host() {
    if !require(TEST_VM) {
        return;
    }
    let mut vms = Microvms::boot(&["virtio_mmio", "virtio_net"], Vec::new());
    // tap0 is there before the microVM and stays; tap1 comes and goes with it.
    let prepared = vms.vm.run(
        "set -e; tunctl -t tap0; ip addr add 10.9.0.1/24 dev tap0; ip link set tap0 up
         mkdir -p /t/www && dd if=/dev/urandom of=/t/www/data bs=1M count=4 2>/dev/null
         httpd -p 10.9.0.1:80 -h /t/www
         (until wget -O /t/got http://10.9.0.2/data; do sleep 0.5; done; cp /t/pinged /t/www/done) >/dev/null 2>&1 &
         (until ping -c 1 -W 1 10.9.0.2; do sleep 0.2; done; echo pinged >/t/pinged) >/dev/null 2>&1 &
         (until [ -e /sys/class/net/tap1 ]; do sleep 0.2; done
          ip addr add 10.9.1.1/24 dev tap1; ip link set tap1 up) &
         sum=$(md5sum </t/www/data); echo sum $sum",
    );
    let sum = said(&prepared.ok(), "sum ").to_owned();
    let config = r#"{"boot-source": {"kernel_image_path": "/t/vmlinuz", "initrd_path": "/t/initrd", "boot_args": "console=ttyS0 panic=-1"},
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 256},
        "network-interfaces": [
            {"iface_id": "first", "host_dev_name": "tap0", "guest_mac": "06:00:AC:10:00:02", "mtu": 1400},
            {"iface_id": "second", "host_dev_name": "tap1", "rx_rate_limiter": {"ops": {"size": 100, "refill_time": 1000}}}]}"#;
    let counted = "/sys/class/net/eth0/statistics";
    let typed = [
        "stty -echo; dmesg -n 1",
        "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; ip addr add 10.9.1.2/24 dev eth1; ip link set eth1 up",
        "echo card $(cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu)",
        "echo other $(cat /sys/class/net/eth1/mtu)",
        "echo ping $(ping -c 5 -i 0.2 10.9.0.1 | grep received)",
        "wget -q -O /data http://10.9.0.1/data; echo down $(md5sum </data)",
        &format!("echo received $(cat {counted}/rx_packets {counted}/rx_bytes)"),
        "httpd -h /; until wget -O /dev/null http://10.9.0.1/done; do sleep 0.5; done >/dev/null 2>&1",
        &format!("echo sent $(cat {counted}/tx_packets {counted}/tx_bytes)"),
        "until ping -c 1 -W 1 10.9.1.1; do sleep 0.2; done >/dev/null; echo second-reached",
        "poweroff -f",
    ];
    let output = vms.run(config, &(typed.join("\\n") + "\\n"));
    let text = output.stdout;
    assert_eq!(output.code, 0, "{text}");
    assert_eq!(said(&text, "card "), "06:00:ac:10:00:02 1400");
    assert_eq!(said(&text, "other "), "1500");
    assert!(said(&text, "ping ").contains("5 packets received"), "{text}");
    assert_eq!(said(&text, "down "), sum);
    // More bytes than fit a wire in a frame: nobody cut them, in either direction.
    for word in ["received ", "sent "] {
        let counts: Vec<u64> = said(&text, word).split(' ').map(|n| n.parse().unwrap()).collect();
        assert!(
            counts[1] / counts[0] > 1500,
            "{word}{} bytes in {} frames",
            counts[1],
            counts[0]
        );
    }
    assert!(text.contains("second-reached"), "{text}");

    let after = vms
        .vm
        .run(
            "echo up $(md5sum </t/got); echo host $(cat /t/pinged); echo links $(ls /sys/class/net)
             sed -i s/tap1/lo/ /t/vm.json; /t/berth-vmm --no-api --config-file /t/vm.json; echo status $?",
        )
        .ok();
    assert_eq!(said(&after, "up "), sum);
    assert_eq!(said(&after, "host "), "pinged");
    assert_eq!(said(&after, "links "), "lo tap0");
    assert!(
        said(&after, "berth-vmm: ").starts_with("network interface second: TAP lo: it is no TAP"),
        "{after}"
    );
    assert_eq!(said(&after, "status "), "1");
}
