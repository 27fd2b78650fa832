//! microVMs inside the test VM: `berth-vmm` with Debian's kernel, and a shell on the serial console to type at.
//!
//! In the test VM: `/t/berth-vmm`, `/t/vmlinuz`, and `/t/initrd`, whose `/init` loads modules and becomes a shell.

use std::path::PathBuf;
use std::time::Duration;

use crate::vm::{MICROVM_MODULES, Output, Vm, VmConfig, stock_kernel, stock_modules};

/// Reads commands from the console, as a person at a serial line would type them.
const INIT: &str = "#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*; do [ -e $module ] && insmod $module; done
echo guest-is-up
PS1= exec /bin/sh
";

/// The monitor's status for that (docs/vmm.md).
const LOST_PROCESSOR: i32 = 4;

/// A test VM that can run microVMs.
pub struct Microvms {
    /// Where they run.
    pub vm: Vm,
}

impl Microvms {
    /// Boots the test VM. Guests load `modules` and those they need, in this order; `files` are put into the test VM.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn boot(modules: &[&str], files: Vec<(PathBuf, String, u32)>) -> Microvms {
        let mut all = vec![
            (crate::binary("berth-vmm"), "/t/berth-vmm".into(), 0o755),
            (stock_kernel(), "/t/vmlinuz".into(), 0o644),
        ];
        all.extend(files);
        for (number, file) in stock_modules(modules).into_iter().enumerate() {
            let name = file.file_name().expect("a file has a name").to_string_lossy();
            let path = format!("/t/guest/modules/{number:02}-{name}");
            all.push((file, path, 0o644));
        }
        let mut vm = Vm::boot(&VmConfig {
            memory_mib: 2048,
            files: all,
            modules: MICROVM_MODULES.to_vec(),
            ..VmConfig::default()
        });
        let setup = format!(
            "mkdir -p /t/guest/bin /t/guest/proc /t/guest/sys /t/guest/dev /t/guest/modules /t/guest/mnt
             cd /t/guest && cp /bin/busybox bin && chroot . /bin/busybox --install -s /bin
             echo '{INIT}' >init && chmod 755 init && find . | cpio -o -H newc >/t/initrd"
        );
        let _ = vm.run(&setup).ok();
        Microvms { vm }
    }

    /// Runs a microVM with a configuration file, types `typed` (as `printf` reads it) once its shell is there, and waits for
    /// its end. What a person types before that is the serial driver's to lose, what is typed to a monitor that has ended
    /// goes nowhere. The output is the console's and the monitor's, the status the monitor's.
    pub fn run(&mut self, config: &str, typed: &str) -> Output {
        let output = self.vm.run_for(
            &format!(
                "echo '{config}' >/t/vm.json; rm -f /t/in; mkfifo /t/in
                 timeout 170 /t/berth-vmm --no-api --config-file /t/vm.json </t/in >/t/out 2>&1 & pid=$!
                 exec 3>/t/in
                 while kill -0 $pid 2>/dev/null && ! grep -q guest-is-up /t/out; do sleep 0.1; done
                 trap '' PIPE; sleep 1; printf '{typed}' >&3
                 wait $pid; code=$?; exec 3>&-; cat /t/out; exit $code"
            ),
            Duration::from_secs(300),
        );
        if output.code == LOST_PROCESSOR {
            // `scripts/test` looks for these words.
            eprintln!("test VM: a guest lost its processor");
        }
        output
    }
}

/// A dynamically linked program of this host's with its libraries, as files of a directory in the test VM that becomes
/// somebody's root.
///
/// # Panics
///
/// When there is no such program.
#[must_use]
pub fn program_files(path: &str, root: &str) -> Vec<(PathBuf, String, u32)> {
    let output = std::process::Command::new("ldd").arg(path).output().expect("ldd");
    let output = String::from_utf8(output.stdout).expect("ldd speaks UTF-8");
    let libraries = output
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| word.trim_end_matches(':').to_owned());
    std::iter::once(path.to_owned())
        .chain(libraries)
        .map(|file| {
            let from = PathBuf::from(&file).canonicalize().expect("a library is there");
            (from, format!("{root}{file}"), 0o755)
        })
        .collect()
}
