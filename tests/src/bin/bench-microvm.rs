//! The parts of `make bench-vm` that take a kernel, in the test VM: berth-vmm beside Debian's QEMU microvm, with the same kernel, initial
//! file system, disk and TAP. Prints a table for each part.
//!
//! Usage: `bench-microvm ROUNDS [init] [disk] [network]`
//!
//! Where the test VM is emulated, so is the KVM in it: a guest's exit costs there what a thousand instructions do. Ratios of both say something,
//! figures do not.

#![allow(clippy::print_stdout)] // tables are what it is for

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use berth_tests::{Microvms, binary, program_files};

/// PID 1 of both. What it is to do is on the kernel's command line, which makes a variable of it.
const INIT: &str = "#!/bin/sh
echo init
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
if [ $part != init ]; then
    for module in /modules/*; do insmod $module; done
    ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
fi
case $part in
    disk) guest-io disk /dev/vda;;
    network) guest-io network 10.9.0.1:7000;;
esac
reboot -f
";
/// QEMU's root in the test VM, as it is no static program. Its guests restart by a triple fault, as its manual wants of a microvm's.
const ROOT: &str = "/qemu";
const FIRMWARE: [&str; 4] = ["bios-microvm.bin", "linuxboot_dma.bin", "pvh.bin", "kvmvapic.bin"];
const DISK_MIB: u32 = 64;
/// For one guest; most need a tenth.
const GUEST_MAX: Duration = Duration::from_secs(150);

fn main() -> Result<(), String> {
    let usage = || "usage: bench-microvm ROUNDS [init] [disk] [network]".to_owned();
    let mut words = std::env::args().skip(1);
    let rounds: usize = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(usage)?;
    let parts: Vec<String> = words.collect();
    if parts
        .iter()
        .any(|part| !["init", "disk", "network"].contains(&part.as_str()))
    {
        return Err(usage());
    }
    let mut host = prepare();
    for part in parts {
        if part == "init" {
            init(&mut host, rounds);
        } else {
            io(&mut host, &part, rounds)?;
        }
    }
    Ok(())
}

/// A test VM with both monitors and all they take.
fn prepare() -> Microvms {
    let mut files = program_files("/usr/bin/qemu-system-x86_64", ROOT);
    files.extend(FIRMWARE.map(|name| {
        let path = format!("/usr/share/qemu/{name}");
        (PathBuf::from(&path), format!("{ROOT}{path}"), 0o644)
    }));
    files.push((binary("side-by-side"), "/t/side-by-side".into(), 0o755));
    files.push((binary("guest-io"), "/t/guest/bin/guest-io".into(), 0o755));
    let mut host = Microvms::boot(&["virtio_mmio", "virtio_blk", "virtio_net"], files);
    let setup = format!(
        "set -e; cd /t/guest; echo '{INIT}' >init; find . | cpio -o -H newc >/t/initrd
         mkdir -p {ROOT}/dev {ROOT}/t {ROOT}/tmp; mount --bind /dev {ROOT}/dev; mount --bind /t {ROOT}/t
         truncate -s {DISK_MIB}M /t/disk
         tunctl -t tap0; ip addr add 10.9.0.1/24 dev tap0; ip link set tap0 up
         /t/guest/bin/guest-io serve 10.9.0.1:7000 >/t/served 2>&1 &"
    );
    let _ = host.vm.run(&setup).ok();
    for part in ["init", "disk", "network"] {
        let arguments = format!("console=ttyS0 quiet loglevel=0 panic=-1 part={part}");
        let config = format!(
            r#"{{"boot-source": {{"kernel_image_path": "/t/vmlinuz", "initrd_path": "/t/initrd", "boot_args": "{arguments}"}},
            "machine-config": {{"vcpu_count": 1, "mem_size_mib": 256}},
            "drives": [{{"drive_id": "d", "path_on_host": "/t/disk", "is_root_device": false, "cache_type": "Writeback"}}],
            "network-interfaces": [{{"iface_id": "n", "host_dev_name": "tap0"}}]}}"#
        );
        let script = format!(
            "cat >/t/{part}.json <<'END'\n{config}\nEND
cat >/t/berth-vmm-{part} <<'END'\n#!/bin/sh\nexec /t/berth-vmm --no-api --config-file /t/{part}.json\nEND
cat >/t/qemu-{part} <<'END'
#!/bin/sh
exec chroot {ROOT} /usr/bin/qemu-system-x86_64 -M microvm -accel kvm -cpu host -smp 1 -m 256 -no-user-config -nodefaults -display none \\
    -serial stdio -no-reboot -kernel /t/vmlinuz -initrd /t/initrd -append '{arguments} reboot=t' \\
    -drive id=d,file=/t/disk,format=raw,if=none -device virtio-blk-device,drive=d \\
    -netdev tap,id=n,ifname=tap0,script=no,downscript=no -device virtio-net-device,netdev=n
END
chmod 755 /t/*-{part}"
        );
        let _ = host.vm.run(&script).ok();
    }
    host
}

fn init(host: &mut Microvms, rounds: usize) {
    println!(
        "\n### process start to PID 1's first word, and to its end; the same kernel, 1 vCPU, 256 MiB, a disk, a NIC\n"
    );
    let command = format!(
        "/t/side-by-side --first-output {rounds} 'QEMU microvm=/t/qemu-init' 'berth-vmm=/t/berth-vmm-init' 'status:berth-vmm=3'"
    );
    let runs = u32::try_from(2 * (rounds + 1)).unwrap_or(u32::MAX);
    println!(
        "{}",
        host.vm.run_for(&command, GUEST_MAX.saturating_mul(runs)).ok()
    );
}

/// The figures of one kind: QEMU's and berth-vmm's.
#[derive(Default)]
struct Figures {
    what: String,
    unit: String,
    of: [Vec<f64>; 2],
}

fn io(host: &mut Microvms, part: &str, rounds: usize) -> Result<(), String> {
    let mut all: Vec<Figures> = Vec::new();
    for round in 0..rounds {
        // In turns, and another first each time.
        for turn in 0..2 {
            let who = (round + turn) % 2;
            let monitor = ["qemu", "berth-vmm"][who];
            let said = host
                .vm
                .run_for(&format!("/t/{monitor}-{part} </dev/null"), GUEST_MAX);
            let figures: Vec<_> = said.stdout.lines().filter_map(figure).collect();
            let status = [0, 3][who];
            if said.code != status || figures.is_empty() {
                return Err(format!("{monitor} ends with {}: {}", said.code, said.stdout));
            }
            for (what, number, unit) in figures {
                let index = all.iter().position(|one| one.what == what).unwrap_or_else(|| {
                    let (what, unit) = (what.to_owned(), unit.to_owned());
                    all.push(Figures {
                        what,
                        unit,
                        ..Figures::default()
                    });
                    all.len() - 1
                });
                all[index].of[who].push(number);
            }
        }
    }
    println!(
        "\n### {part}, as its guest sees it; the same kernel, 1 vCPU, {rounds} rounds\n\n{}",
        table(&mut all)
    );
    Ok(())
}

/// What `guest-io` prints: what, number, unit.
fn figure(line: &str) -> Option<(&str, f64, &str)> {
    let (what, figure) = line.trim().split_once('\t')?;
    let (number, unit) = figure.split_once(' ')?;
    Some((what, number.parse().ok()?, unit))
}

fn table(all: &mut [Figures]) -> String {
    let mut text =
        "| what | QEMU microvm | berth-vmm | ratio | of the rounds |\n|---|---|---|---|---|\n".to_owned();
    for figures in all {
        let [qemu, berth] = &mut figures.of;
        let ratios: Vec<f64> = berth
            .iter()
            .zip(&*qemu)
            .map(|(berth, qemu)| berth / qemu)
            .collect();
        let (low, high) = ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), next| {
            (low.min(*next), high.max(*next))
        });
        let (qemu, berth) = (median(qemu), median(berth));
        let Figures { what, unit, .. } = figures;
        let _ = writeln!(
            text,
            "| {what} | {qemu:.1} {unit} | {berth:.1} {unit} | {:.2} | {low:.2} to {high:.2} |",
            berth / qemu
        );
    }
    text
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
