//! Disks of berth-vmm, driven by Debian's own virtio drivers in the test VM.

use berth_tests::{Microvms, TEST_VM, require};

#[test]
fn debians_driver_reads_writes_and_discards() {
    if !require(TEST_VM) {
        return;
    }
    let mut vms = Microvms::boot(&["virtio_mmio", "virtio_blk"], Vec::new());
    // 20 disks: more than interrupt lines, so some share one.
    let _ = vms
        .vm
        .run(
            "dd if=/dev/urandom of=/t/data bs=1M count=16 2>/dev/null; cp /t/data /t/before
             dd if=/dev/urandom of=/t/fixed bs=1M count=2 2>/dev/null
             for n in $(seq 18); do echo disk-$n | dd of=/t/disk$n bs=512 conv=sync 2>/dev/null; done",
        )
        .ok();
    let many: String = (1..=18)
        .map(|n| {
            format!(
                r#", {{"drive_id": "disk{n}", "path_on_host": "/t/disk{n}", "is_root_device": false, "is_read_only": true}}"#
            )
        })
        .collect();
    let config = format!(
        r#"{{"boot-source": {{"kernel_image_path": "/t/vmlinuz", "initrd_path": "/t/initrd", "boot_args": "console=ttyS0 panic=-1"}},
            "machine-config": {{"vcpu_count": 2, "mem_size_mib": 256}},
            "drives": [{{"drive_id": "data", "path_on_host": "/t/data", "is_root_device": false, "cache_type": "Writeback"}},
                       {{"drive_id": "fixed", "path_on_host": "/t/fixed", "is_root_device": false, "is_read_only": true}}{many}]}}"#
    );
    let typed = [
        "stty -echo; dmesg -n 1",
        "echo serials $(cat /sys/block/vda/serial) $(cat /sys/block/vdb/serial)",
        "echo read-only $(cat /sys/block/vda/ro /sys/block/vdb/ro)",
        "echo cache $(cat /sys/block/vda/queue/write_cache)",
        "echo sum-a $(md5sum </dev/vda)",
        "echo sum-b $(md5sum </dev/vdb)",
        "echo many $(for d in /sys/block/vd*; do dd if=/dev/${d##*/} bs=512 count=1 2>/dev/null | grep -a ^disk-; done)",
        "dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>/dev/null && echo written || echo refused",
        "mke2fs /dev/vda >/dev/null 2>&1; mount -t ext4 /dev/vda /mnt && dd if=/dev/urandom of=/mnt/file bs=1M count=4 2>/dev/null",
        "echo sum-file $(md5sum </mnt/file); umount /mnt; mount -t ext4 /dev/vda /mnt; echo again $(md5sum </mnt/file); umount /mnt",
        "dd if=/dev/zero of=/dev/vda bs=1M seek=14 count=1 conv=fsync 2>/dev/null; blkdiscard -o 15728640 -l 1048576 /dev/vda && echo discarded",
        "echo sum-end $(md5sum </dev/vda)",
        "poweroff -f",
    ];
    let output = vms.run(&config, &(typed.join("\\n") + "\\n"));
    let text = output.stdout;
    assert_eq!(output.code, 0, "{text}");
    let said = |word: &str| {
        let line = text.lines().map(str::trim).find(|line| line.starts_with(word));
        line.unwrap_or_else(|| panic!("no {word} in:\n{text}")).to_owned()
    };
    assert_eq!(said("serials "), "serials data fixed");
    assert_eq!(said("read-only "), "read-only 0 1");
    assert_eq!(said("cache "), "cache write back");
    let many: Vec<String> = (1..=18).map(|n| format!("disk-{n}")).collect();
    assert_eq!(said("many "), format!("many {}", many.join(" ")));
    assert!(text.contains("refused") && text.contains("discarded"), "{text}");

    let script = "echo before $(md5sum </t/before)
        echo fixed $(md5sum </t/fixed)
        echo end $(md5sum </t/data)
        echo tail $(tail -c 1048576 /t/data | tr -d '\\0' | wc -c)";
    let after = vms.vm.run(script).ok();
    let sum = |word: &str, text: &str| {
        let line = text.lines().map(str::trim).find(|line| line.starts_with(word));
        line.and_then(|line| line.split_whitespace().nth(1).map(str::to_owned))
            .unwrap_or_else(|| panic!("no {word} in:\n{text}"))
    };
    assert_eq!(sum("sum-a ", &text), sum("before ", &after));
    assert_eq!(
        sum("sum-b ", &text),
        sum("fixed ", &after),
        "the read-only disk is as it was"
    );
    assert_eq!(sum("sum-file ", &text), sum("again ", &text));
    assert_eq!(sum("sum-end ", &text), sum("end ", &after));
    assert_eq!(sum("tail ", &after), "0", "what was discarded reads as zeroes");
}
