//! A running VM, and the commands run in it.

use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::initramfs::Initramfs;
use super::kernel::Kernel;
use super::{VmConfig, modules};

/// From QEMU's start to the guest's "ready". Emulation on a busy host is slow; an idle one needs about four seconds.
const BOOT_MAX: Duration = Duration::from_secs(180);
/// How long a command may take unless [`Vm::run_for`] says otherwise.
const COMMAND_MAX: Duration = Duration::from_secs(120);
/// Beyond a command's own limit, which the guest enforces: for its output to arrive.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// A CPU model QEMU can emulate that has SVM, so that KVM can be nested.
const EMULATED_CPU: &str = "EPYC-v3,+svm";

/// With a timer that ticks by itself. QEMU's emulation of SVM may forget that an interrupt is pending when one comes while a
/// nested guest exits (seen with its monitor: a CPU that sleeps, with bits set in its APIC's IRR), and remembers at the next
/// one: of a timer that is set anew by the interrupt it has sent, there is none.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 panic=-1 quiet nohz=off highres=off";

/// What a command in the VM wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code of the shell: 128+n when a signal ended it, so 137 also when it ran out of time.
    pub code: i32,
    /// Standard output and standard error together, lossily decoded.
    pub stdout: String,
}

impl Output {
    /// The trimmed output of a command that must have worked.
    ///
    /// # Panics
    /// When it did not end with 0; the message holds everything it printed.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stdout);
        self.stdout.trim_end().to_owned()
    }
}

/// A booted VM. Dropping it kills it.
#[derive(Debug)]
pub struct Vm {
    qemu: Child,
    commands: ChildStdin,
    answers: ChildStdout,
    work: tempfile::TempDir,
}

impl Vm {
    /// Boots a VM and waits until it takes commands. The first on a host fetches the kernel.
    ///
    /// # Panics
    /// When the kernel, busybox, QEMU or a file is missing, or the guest does not come up; the message then holds the end
    /// of its console.
    #[must_use]
    pub fn boot(config: &VmConfig) -> Self {
        let kernel = Kernel::fetch();
        let work = tempfile::Builder::new()
            .prefix("berth-vm-")
            .tempdir()
            .expect("a temporary directory");
        write_initramfs(&work.path().join("initramfs"), &kernel, config)
            .unwrap_or_else(|error| panic!("cannot make the initramfs: {error}"));
        let mut command = qemu(&kernel, config, work.path());
        let log = std::fs::File::create(work.path().join("qemu")).expect("make QEMU's log");
        let mut qemu = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("qemu-system-x86_64: {error}"));
        let mut vm = Self {
            commands: qemu.stdin.take().expect("stdin is a pipe"),
            answers: qemu.stdout.take().expect("stdout is a pipe"),
            qemu,
            work,
        };
        let greeting = vm.line(Instant::now() + BOOT_MAX);
        assert_eq!(greeting, "ready", "{}", vm.report("an unexpected greeting"));
        vm
    }

    /// Runs a shell command (busybox's shell, root, `/`), for at most two minutes.
    ///
    /// # Panics
    /// When the VM dies or does not answer; the message holds the end of its console.
    #[must_use]
    pub fn run(&mut self, command: &str) -> Output {
        self.run_for(command, COMMAND_MAX)
    }

    /// As [`Vm::run`], with another limit. When it is over the shell is killed: code 137, and what it wrote so far.
    ///
    /// # Panics
    /// As [`Vm::run`].
    #[must_use]
    pub fn run_for(&mut self, command: &str, limit: Duration) -> Output {
        let mut request = format!("{} {}\n", limit.as_secs().max(1), command.len()).into_bytes();
        request.extend_from_slice(command.as_bytes());
        if let Err(error) = self.commands.write_all(&request) {
            panic!("{}", self.report(&format!("cannot send a command: {error}")));
        }
        let deadline = Instant::now() + limit + ANSWER_MAX;
        let line = self.line(deadline);
        let parsed = line
            .split_once(' ')
            .and_then(|(code, length)| Some((code.parse().ok()?, length.parse().ok()?)));
        let Some((code, length)) = parsed else {
            panic!("{}", self.report(&format!("unexpected answer {line:?}")));
        };
        let output = self.bytes(length, deadline);
        Output {
            code,
            stdout: String::from_utf8_lossy(&output).into_owned(),
        }
    }

    /// The next line of the answer, without its end.
    fn line(&mut self, deadline: Instant) -> String {
        let mut line = Vec::new();
        loop {
            match self.bytes(1, deadline)[0] {
                b'\n' => return String::from_utf8_lossy(&line).into_owned(),
                byte => line.push(byte),
            }
        }
    }

    fn bytes(&mut self, length: usize, deadline: Instant) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).expect("a short time");
            let mut ready = [PollFd::new(&self.answers, PollFlags::IN)];
            let read = match poll(&mut ready, Some(&timeout)) {
                Ok(0) => panic!("{}", self.report("no answer in time")),
                Ok(_) => rustix::io::read(&self.answers, &mut bytes[filled..]),
                Err(error) => Err(error),
            };
            match read {
                Ok(0) => panic!("{}", self.report("the VM is gone")),
                Ok(read) => filled += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("{}", self.report(&format!("cannot read its answer: {error}"))),
            }
        }
        bytes
    }

    /// What went wrong, what QEMU said, and the end of the console.
    fn report(&self, what: &str) -> String {
        let said = std::fs::read_to_string(self.work.path().join("qemu")).unwrap_or_default();
        // QEMU says so for each feature of the CPU model it cannot emulate; none is needed.
        let said: Vec<_> = said
            .lines()
            .filter(|line| !line.contains("TCG doesn't support requested feature: CPUID"))
            .collect();
        let console = tail(&self.work.path().join("console")).unwrap_or_else(|error| error.to_string());
        format!(
            "test VM: {what}\n--- QEMU\n{}\n--- end of its console\n{console}",
            said.join("\n")
        )
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // An error means it has ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn tail(path: &Path) -> io::Result<String> {
    const LENGTH: u16 = 4096;
    let file = std::fs::File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LENGTH.into());
    let mut bytes = vec![0; LENGTH.into()];
    let read = file.read_at(&mut bytes, start)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

fn write_initramfs(path: &Path, kernel: &Kernel, config: &VmConfig) -> io::Result<()> {
    let mut archive = Initramfs::create(path)?;
    for directory in ["dev", "proc", "sys", "run", "tmp", "root", "etc"] {
        archive.directory(directory)?;
    }
    archive.bytes("init", 0o755, include_bytes!("init.sh"))?;
    archive.bytes("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.bytes("etc/group", 0o644, b"root:x:0:\n")?;
    archive.file("bin/busybox", 0o755, Path::new("/bin/busybox"))?;
    let mut order = String::new();
    for file in modules::load_order(&kernel.modules, &config.modules) {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or(io::ErrorKind::InvalidData)?;
        archive.file(&format!("modules/{name}"), 0o600, &file)?;
        order.push_str(name);
        order.push('\n');
    }
    archive.bytes("modules/order", 0o600, order.as_bytes())?;
    let holder = (crate::binary("hold-kvm"), "hold-kvm".to_owned(), 0o755);
    let holder = config.modules.contains(&"kvm").then_some(&holder);
    for (from, to, mode) in config.files.iter().chain(holder) {
        archive
            .file(to, *mode, from)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", from.display())))?;
    }
    archive.finish()
}

fn qemu(kernel: &Kernel, config: &VmConfig, work: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(machine(&kernel.image));
    command
        .args(["-display", "none", "-nodefaults", "-no-reboot"])
        .args([
            "-m",
            &config.memory_mib.to_string(),
            "-smp",
            &config.cpus.to_string(),
        ])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(work.join("initramfs"))
        .args(["-append", KERNEL_ARGUMENTS])
        .arg("-serial")
        .arg(format!("file:{}", work.join("console").display()))
        .args([
            "-chardev",
            "stdio,id=commands,signal=off",
            "-serial",
            "chardev:commands",
        ]);
    command
}

/// Whether this host's KVM gets a stock kernel as far as its root file system; else test VMs are emulated. Found out once.
///
/// # Panics
///
/// When the kernel cannot be fetched.
#[must_use]
pub fn host_runs_stock_kernels() -> bool {
    kvm_works(&Kernel::fetch().image)
}

fn kvm_works(image: &Path) -> bool {
    static KVM_WORKS: OnceLock<bool> = OnceLock::new();
    *KVM_WORKS.get_or_init(|| kvm_boots(image))
}

/// The accelerator: the host's KVM where it can run a stock kernel, emulation elsewhere.
fn machine(image: &Path) -> [&'static str; 6] {
    if kvm_works(image) {
        ["-accel", "kvm", "-cpu", "host", "-M", "q35"]
    } else {
        ["-accel", "tcg", "-cpu", EMULATED_CPU, "-M", "q35"]
    }
}

/// Whether the kernel gets far enough under the host's KVM to say something: some hosts offer a /dev/kvm that cannot run
/// one. With no root to mount it says that and, told so, ends the VM.
fn kvm_boots(image: &Path) -> bool {
    if !crate::Need::Kvm.is_met() {
        return false;
    }
    let probe = Command::new("timeout")
        .args(["-k", "1", "10", "qemu-system-x86_64"])
        .args(["-accel", "kvm", "-cpu", "host", "-M", "q35", "-m", "256"])
        .args([
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(image)
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    probe.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("Unable to mount root fs"))
}
