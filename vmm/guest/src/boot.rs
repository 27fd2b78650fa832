//! From the kernel's `execve("/init")` to a guest that can listen.
//!
//! ```text
//! /proc ─► sealed (executes itself once more) ─► modules ─► a root that pivot_root(2) accepts ─► /proc /sys /dev /run, cgroups
//! ```

use std::path::Path;

use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, move_mount};
use rustix::process::{Resource, Rlimit};

use crate::error::{At, Result};
use crate::modules;

/// What the kernel grants PID 1 (4096) is less than servers expect to be able to ask for.
const OPEN_FILES_MAX: u64 = 512 << 10;

const PLAIN: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NODEV);

/// Makes `/proc` there, for the guard that has to look at `/proc/self/exe` before anything else happens.
///
/// # Errors
///
/// It cannot be mounted.
pub fn proc_first() -> Result<()> {
    if Path::new("/proc/self").exists() {
        return Ok(());
    }
    make("/proc")?;
    mount("proc", "/proc", PLAIN, "")
}

/// Everything else, by the sealed program.
///
/// # Errors
///
/// The step that failed; the guest is of no use then.
pub fn system() -> Result<()> {
    modules::load(Path::new("/modules"));
    own_root()?;
    mount("proc", "/proc", PLAIN, "")?;
    mount("sysfs", "/sys", PLAIN, "")?;
    mount(
        "devtmpfs",
        "/dev",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "mode=755",
    )?;
    mount("cgroup2", "/sys/fs/cgroup", PLAIN, "")?;
    mount(
        "tmpfs",
        "/run",
        MountFlags::NOSUID | MountFlags::NODEV,
        "mode=755",
    )?;
    let open_files = Rlimit {
        current: Some(1024),
        maximum: Some(OPEN_FILES_MAX),
    };
    rustix::process::setrlimit(Resource::Nofile, open_files).at("raise", "the limit of open files")?;
    // Ctrl-Alt-Del, which a monitor may send to end the guest in order, becomes SIGINT to us instead of a reset.
    rustix::system::reboot(rustix::system::RebootCommand::CadOff).at("take over", "Ctrl-Alt-Del")
}

/// The initial root has no parent mount, and pivot_root(2), which containers need, refuses to leave such a one. A
/// read-only clone of it on top of itself has, and costs no copy.
fn own_root() -> Result<()> {
    for directory in ["/proc", "/sys", "/dev", "/run"] {
        make(directory)?;
    }
    let root = berth_sys::reexec::clone_read_only(Path::new("/")).at("clone", "the initial root")?;
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at("mount", "the root")?;
    rustix::process::fchdir(&root)
        .and_then(|()| rustix::process::chroot("."))
        .at("enter", "the root")
}

fn mount(kind: &str, target: &str, flags: MountFlags, data: &str) -> Result<()> {
    let data = std::ffi::CString::new(data).at("mount", target)?;
    rustix::mount::mount(kind, target, kind, flags, data.as_c_str()).at("mount", target)
}

fn make(directory: &str) -> Result<()> {
    match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e).at("create", directory),
    }
}
