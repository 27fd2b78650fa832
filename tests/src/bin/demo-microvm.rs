//! The part of `make demo` with two kernels: one image as a container and as a microVM, on this host where its KVM runs stock
//! kernels, else in the test VM. Prints what a person would type and see; fails when both report the same boot.

#![allow(clippy::print_stdout)] // what it prints is what it is for

use std::process::{Command, ExitCode};

use berth_tests::{
    BerthVm, berth::busybox_archive, binary, host_runs_stock_kernels, stock_kernel, stock_modules_tree,
};

/// Says what kernel a process is on: its release, the number of this boot, and what it was started with.
const WHICH: &str = "busybox sh -c 'uname -sr; cat /proc/sys/kernel/random/boot_id /proc/cmdline'";

fn main() -> ExitCode {
    let same = if host_runs_stock_kernels() {
        println!("on this host:");
        on_host(&mut show)
    } else {
        println!("this host's KVM runs no stock kernel, so in the test VM (QEMU, emulated):");
        let mut host = BerthVm::boot();
        host.add_kernel();
        same_boot(&mut |command| host.run(command).ok())
    };
    if same {
        eprintln!("demo-microvm: both ran on the same kernel");
        return ExitCode::FAILURE;
    }
    println!("two boots, two kernels");
    ExitCode::SUCCESS
}

/// Imports the image and registers Debian's kernel first. `BERTH_ROOT` and `BERTH_STATE` say where.
fn on_host(run: &mut dyn FnMut(&str) -> String) -> bool {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let archive = busybox_archive(scratch.path());
    let (kernel, modules) = (stock_kernel(), stock_modules_tree());
    let _ = run(&format!("berth import {} busybox", archive.display()));
    let _ = run(&format!(
        "berth kernel add stock --kernel {} --modules {}",
        kernel.display(),
        modules.display()
    ));
    let _ = run("berth kernel default stock");
    same_boot(run)
}

fn same_boot(run: &mut dyn FnMut(&str) -> String) -> bool {
    let boots = ["container", "vm"].map(|isolation| {
        let command = format!("berth run --rm --isolation {isolation} {WHICH}");
        println!("\x1b[1m$ {command}\x1b[0m");
        let said = run(&command);
        println!("{said}");
        said.lines().nth(1).map(str::to_owned)
    });
    boots[0] == boots[1]
}

/// Runs a command of berth's on this host; what it printed.
///
/// # Panics
///
/// When it fails: the demo is over then.
fn show(command: &str) -> String {
    let berth = binary("berth");
    let command = command.replacen("berth", &berth.display().to_string(), 1);
    let output = Command::new("sh")
        .args(["-c", &command])
        .output()
        .expect("run sh");
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    assert!(
        output.status.success(),
        "{command}: {text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
