//! The disks of microVMs on the kernel that guests run: Debian's own, in the test VM.

use std::time::Duration;

use berth_tests::{TEST_VM, Vm, VmConfig, require};

#[test]
fn debians_kernel_reads_what_is_written() {
    if !require(TEST_VM) {
        return;
    }
    let mut vm = Vm::boot(&VmConfig {
        memory_mib: 2048,
        files: vec![
            (berth_tests::test_binary("erofs"), "/t/deps/erofs".into(), 0o755),
            (
                berth_tests::test_binary("scratch"),
                "/t/deps/scratch".into(),
                0o755,
            ),
        ],
        modules: vec!["loop", "overlay", "erofs"],
        ..VmConfig::default()
    });
    // The root is a tmpfs, which has no `user.` xattrs before Linux 6.6.
    let setup = "truncate -s 4G /disk && mke2fs -q -F -I 256 /disk 4194304 && mkdir /work && mount -t ext4 -o loop /disk /work";
    let _ = vm.run(setup).ok();
    let output = vm
        .run_for(
            "TMPDIR=/work PROPTEST_CASES=6 /t/deps/erofs --test-threads 2 2>&1",
            Duration::from_secs(600),
        )
        .ok();
    assert!(!output.contains("skipped: needs"), "{output}");
    let _ = vm
        .run_for(
            "umount /work; rm /disk; mkdir -p /tmp; /t/deps/scratch --test-threads 1 2>&1",
            Duration::from_secs(600),
        )
        .ok();
}
