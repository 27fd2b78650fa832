//! The floor of `berth-runtime run`: a program that makes only the system calls a container of the benchmark's bundle
//! needs (five namespaces, a cgroup per v1 controller or one on v2, the default mounts and devices, the masked paths,
//! `pivot_root`, exec) and nothing else: no configuration to parse, no state to keep, no check of any path.
//!
//! Usage: `runtime-floor ROOTFS PROGRAM [ARG…]`, as root. Exits with the program's status.
#![allow(unsafe_code)] // raw system calls are the point of this program

use std::ffi::{CStr, CString};
use std::io;

/// Where each v1 controller, or the one v2 tree, is mounted on the hosts the benchmark runs on.
const HIERARCHIES: [&CStr; 9] = [
    c"/sys/fs/cgroup/cpu",
    c"/sys/fs/cgroup/cpuacct",
    c"/sys/fs/cgroup/cpuset",
    c"/sys/fs/cgroup/memory",
    c"/sys/fs/cgroup/freezer",
    c"/sys/fs/cgroup/devices",
    c"/sys/fs/cgroup/blkio",
    c"/sys/fs/cgroup/pids",
    c"/sys/fs/cgroup/unified",
];

const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];

const MASKED_FILES: [&CStr; 4] = [
    c"proc/kcore",
    c"proc/keys",
    c"proc/timer_list",
    c"proc/latency_stats",
];
const MASKED_DIRECTORIES: [&CStr; 3] = [c"proc/acpi", c"proc/scsi", c"sys/firmware"];
const READ_ONLY: [&CStr; 4] = [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys"];

fn check(what: &str, result: impl TryInto<i64>) {
    if result.try_into().is_ok_and(|result| result < 0) {
        let error = io::Error::last_os_error();
        eprintln!("runtime-floor: {what}: {error}");
        // SAFETY: _exit has no conditions.
        unsafe { libc::_exit(125) }
    }
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong, data: &CStr) -> libc::c_int {
    // SAFETY: all pointers are NUL-terminated strings that outlive the call.
    unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    }
}

fn child(rootfs: &CStr, tasks: &[libc::c_int], arguments: &[CString]) -> ! {
    for &fd in tasks {
        // SAFETY: the buffer is one byte long and lives across the call.
        check("write tasks", unsafe { libc::write(fd, c"0".as_ptr().cast(), 1) });
    }
    check(
        "make / a slave",
        mount(c"none", c"/", c"", libc::MS_REC | libc::MS_SLAVE, c""),
    );
    check(
        "bind rootfs",
        mount(rootfs, rootfs, c"", libc::MS_BIND | libc::MS_REC, c""),
    );
    // SAFETY: the path is a NUL-terminated string.
    check("chdir", unsafe { libc::chdir(rootfs.as_ptr()) });
    let nosuid = libc::MS_NOSUID | libc::MS_NOEXEC;
    check("proc", mount(c"proc", c"proc", c"proc", 0, c""));
    check(
        "dev",
        mount(
            c"tmpfs",
            c"dev",
            c"tmpfs",
            libc::MS_NOSUID,
            c"mode=755,size=65536k",
        ),
    );
    for directory in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
        // SAFETY: the path is a NUL-terminated string.
        check("mkdir", unsafe { libc::mkdir(directory.as_ptr(), 0o755) });
    }
    check(
        "devpts",
        mount(
            c"devpts",
            c"dev/pts",
            c"devpts",
            nosuid,
            c"newinstance,ptmxmode=0666,mode=0620",
        ),
    );
    check(
        "shm",
        mount(
            c"shm",
            c"dev/shm",
            c"tmpfs",
            nosuid | libc::MS_NODEV,
            c"mode=1777,size=65536k",
        ),
    );
    check(
        "mqueue",
        mount(c"mqueue", c"dev/mqueue", c"mqueue", nosuid | libc::MS_NODEV, c""),
    );
    check(
        "sysfs",
        mount(
            c"sysfs",
            c"sys",
            c"sysfs",
            nosuid | libc::MS_NODEV | libc::MS_RDONLY,
            c"",
        ),
    );
    for (path, major, minor) in DEVICES {
        let number = libc::makedev(major, minor);
        // SAFETY: the path is a NUL-terminated string.
        check("mknod", unsafe {
            libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, number)
        });
    }
    for (target, link) in [
        (c"/proc/self/fd", c"dev/fd"),
        (c"/proc/self/fd/0", c"dev/stdin"),
        (c"/proc/self/fd/1", c"dev/stdout"),
        (c"/proc/self/fd/2", c"dev/stderr"),
        (c"pts/ptmx", c"dev/ptmx"),
    ] {
        // SAFETY: both paths are NUL-terminated strings.
        check("symlink", unsafe {
            libc::symlink(target.as_ptr(), link.as_ptr())
        });
    }
    for path in MASKED_FILES {
        mount(c"dev/null", path, c"", libc::MS_BIND, c""); // absent on some kernels: not an error
    }
    for path in MASKED_DIRECTORIES {
        mount(c"tmpfs", path, c"tmpfs", libc::MS_RDONLY, c"");
    }
    for path in READ_ONLY {
        if mount(path, path, c"", libc::MS_BIND | libc::MS_REC, c"") == 0 {
            check(
                "read-only",
                mount(
                    c"",
                    path,
                    c"",
                    libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY,
                    c"",
                ),
            );
        }
    }
    // SAFETY: the paths are NUL-terminated strings; pivot_root reads nothing else.
    check("pivot_root", unsafe {
        libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr())
    });
    // SAFETY: the path is a NUL-terminated string.
    check("umount old root", unsafe {
        libc::umount2(c".".as_ptr(), libc::MNT_DETACH)
    });
    // SAFETY: the name is five bytes long and lives across the call.
    check("sethostname", unsafe { libc::sethostname(c"floor".as_ptr(), 5) });
    // SAFETY: the path is a NUL-terminated string.
    check("chdir /", unsafe { libc::chdir(c"/".as_ptr()) });
    // SAFETY: prctl with these constants takes plain integers.
    check("no_new_privs", unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    });
    let mut argv: Vec<*const libc::c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    argv.push(std::ptr::null());
    // SAFETY: argv is a null-terminated array of NUL-terminated strings that outlive the call.
    check("exec", unsafe { libc::execv(argv[0], argv.as_ptr()) });
    std::process::exit(125)
}

fn main() {
    let mut words = std::env::args_os().skip(1).map(|word| {
        CString::new(std::os::unix::ffi::OsStringExt::into_vec(word)).expect("arguments hold no NUL byte")
    });
    let rootfs = words
        .next()
        .expect("usage: runtime-floor ROOTFS PROGRAM [ARG...]");
    let arguments: Vec<CString> = words.collect();

    let name = format!("runtime-floor-{}", std::process::id());
    let mut directories = Vec::new();
    let mut tasks = Vec::new();
    for hierarchy in HIERARCHIES {
        let hierarchy = hierarchy.to_str().expect("constants are UTF-8");
        let directory = CString::new(format!("{hierarchy}/{name}")).expect("no NUL byte");
        // SAFETY: the path is a NUL-terminated string.
        if unsafe { libc::mkdir(directory.as_ptr(), 0o755) } < 0 {
            continue; // not mounted on this host
        }
        if hierarchy.ends_with("cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = std::fs::read(format!("{hierarchy}/{file}")).unwrap_or_default();
                let _ = std::fs::write(format!("{hierarchy}/{name}/{file}"), value);
            }
        }
        let entry = if hierarchy.ends_with("unified") {
            "cgroup.procs"
        } else {
            "tasks"
        };
        let file = CString::new(format!("{hierarchy}/{name}/{entry}")).expect("no NUL byte");
        // SAFETY: the path is a NUL-terminated string.
        let fd = unsafe { libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
        if fd < 0 {
            // SAFETY: the path is a NUL-terminated string.
            check("rmdir", unsafe { libc::rmdir(directory.as_ptr()) });
            continue; // a plain directory: the hierarchy is hidden here
        }
        tasks.push(fd);
        directories.push(directory);
    }

    let flags =
        libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    let mut arguments_of_clone = [0u64; 11];
    arguments_of_clone[0] = u64::from(flags.cast_unsigned());
    arguments_of_clone[4] = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: without CLONE_VM and with a zero stack clone3 behaves as fork; the structure is 88 zeroed bytes of the
    // layout clone3(2) documents, and this process has one thread.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments_of_clone.as_ptr(),
            size_of_val(&arguments_of_clone),
        )
    };
    let pid = libc::pid_t::try_from(pid).expect("a pid fits pid_t");
    check("clone3", pid);
    if pid == 0 {
        child(&rootfs, &tasks, &arguments);
    }
    let mut status = 0;
    // SAFETY: status is a valid place for one c_int.
    check("waitpid", unsafe { libc::waitpid(pid, &raw mut status, 0) });
    for directory in directories {
        // SAFETY: the path is a NUL-terminated string.
        check("rmdir", unsafe { libc::rmdir(directory.as_ptr()) });
    }
    std::process::exit(libc::WEXITSTATUS(status))
}
