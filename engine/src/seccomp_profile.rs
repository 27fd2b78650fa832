//! The default seccomp profile: what programs need, and of the rest what the container's capabilities make reasonable.
//!
//! Everything not listed answers EPERM (calls newer than the list: ENOSYS, see `berth_runtime::seccomp`). Of note:
//! - Sockets of AF_ALG and AF_VSOCK are refused: kernel crypto has been a source of privilege escalation, and vsock reaches the
//!   hypervisor past every network rule. 32-bit `socketcall` hides the family behind a pointer, so it is not allowed
//!   at all; libc there uses `socket` since Linux 4.3.
//! - New namespaces need CAP_SYS_ADMIN. `clone3` takes its flags by pointer, out of a filter's sight; it answers ENOSYS, which
//!   libc takes as the word to use `clone`.
//! - io_uring, userfaultfd, the kernel's keyrings (not namespaced) and kexec are absent.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// Harmless whatever the capabilities. 32-bit variants stand beside their parents.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    // files by name
    "access", "chdir", "chmod", "chown", "chown32", "creat", "faccessat", "faccessat2", "fchdir", "fchmodat", "fchmodat2",
    "fchownat", "file_getattr", "file_setattr", "fstatat64", "futimesat", "getcwd", "inotify_add_watch", "inotify_init",
    "inotify_init1", "inotify_rm_watch", "lchown", "lchown32", "link", "linkat", "lstat", "lstat64", "mkdir", "mkdirat",
    "mknod", "mknodat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2", "readlink", "readlinkat", "rename",
    "renameat", "renameat2", "rmdir", "stat", "stat64", "statfs", "statfs64", "statx", "symlink", "symlinkat", "truncate",
    "truncate64", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes",
    // extended attributes
    "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "getxattrat", "lgetxattr", "listxattr", "listxattrat",
    "llistxattr", "lremovexattr", "lsetxattr", "removexattr", "removexattrat", "setxattr", "setxattrat",
    // open files
    "_llseek", "cachestat", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "fadvise64", "fadvise64_64",
    "fallocate", "fanotify_mark", "fchmod", "fchown", "fchown32", "fcntl", "fcntl64", "fdatasync", "flock", "fstat", "fstat64",
    "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "getdents", "getdents64", "ioctl", "lseek", "pipe", "pipe2",
    "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readv", "sendfile", "sendfile64",
    "splice", "sync", "sync_file_range", "sync_file_range2", "arm_sync_file_range", "syncfs", "tee", "vmsplice", "write",
    "writev", "memfd_create", "memfd_secret",
    // waiting
    "_newselect", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select",
    "signalfd", "signalfd4", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64",
    // asynchronous I/O of the old kind
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
    "ioprio_get", "ioprio_set",
    // memory
    "brk", "madvise", "map_shadow_stack", "membarrier", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect",
    "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
    "process_mrelease", "remap_file_pages",
    // threads and locks
    "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list",
    "get_thread_area", "gettid", "rseq", "set_robust_list", "set_thread_area", "set_tid_address", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr",
    // processes
    "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "getcpu", "getpgid", "getpgrp", "getpid",
    "getppid", "getpriority", "getrlimit", "getrusage", "getsid", "modify_ldt", "pidfd_open", "pidfd_send_signal", "prctl",
    "prlimit64", "process_vm_readv", "process_vm_writev", "ptrace", "sched_get_priority_max", "sched_get_priority_min",
    "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler",
    "sched_yield", "seccomp", "setpgid", "setpriority", "setrlimit", "setsid", "sysinfo", "times", "ugetrlimit", "uname", "vfork",
    "wait4", "waitid", "waitpid",
    // signals
    "kill", "pause", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack", "signal", "sigaction",
    "sigpending", "sigprocmask", "sigreturn", "sigsuspend", "tgkill", "tkill",
    // time
    "adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
    "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep", "setitimer",
    "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64",
    // users and groups
    "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getresgid", "getresgid32",
    "getresuid", "getresuid32", "getuid", "getuid32", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32",
    "setgroups", "setgroups32", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid",
    "setreuid32", "setuid", "setuid32",
    // sockets, but for making them
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom", "recvmmsg",
    "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socketpair",
    // System V and POSIX IPC
    "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
    // random numbers
    "getrandom",
];

/// What a capability makes reasonable, since without it the kernel refuses anyway or the container was meant to.
#[rustfmt::skip]
const WITH_CAPABILITY: &[(Capability, &[&str])] = &[
    (Capability::Bpf, &["bpf"]),
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (Capability::Perfmon, &["perf_event_open"]),
    (Capability::SysAdmin, &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "listmount", "lookup_dcookie", "mount",
        "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "perf_event_open", "quotactl", "quotactl_fd",
        "setdomainname", "sethostname", "setns", "statmount", "syslog", "umount", "umount2", "unshare",
    ]),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["delete_module", "finit_module", "init_module"]),
    (Capability::SysNice, &["get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"]),
    (Capability::SysPacct, &["acct"]),
    (Capability::SysPtrace, &["kcmp", "pidfd_getfd", "process_madvise"]),
    (Capability::SysRawio, &["ioperm", "iopl"]),
    (Capability::SysTime, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::Syslog, &["syslog"]),
];

/// All `CLONE_NEW*` that fit in clone's flags: mount, cgroup, UTS, IPC, user, PID and network namespace. The time namespace's bit
/// is part of clone's exit signal and reachable by clone3 and unshare alone.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// The last address family of linux/socket.h (AF_MCTP).
const AF_LAST: u64 = 45;

/// Linux, the 32-bit personality, old uname, both, and the query.
const PERSONALITIES: &[u64] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The profile for a container whose bounding set is `caps`.
pub fn default_profile(caps: &[Capability]) -> LinuxSeccomp {
    let has = |wanted: Capability| caps.contains(&wanted);
    let mut calls = vec![allow(ALWAYS, &[])];
    for (capability, names) in WITH_CAPABILITY {
        if has(*capability) {
            calls.push(allow(names, &[]));
        }
    }
    calls.extend(PERSONALITIES.iter().map(|p| {
        allow(
            &["personality"],
            &[compare(LinuxSeccompOperator::ScmpCmpEq, *p, None)],
        )
    }));
    // Families are listed up to the last: the kernel looks at 32 bits of the argument, a filter at 64, so "not equal" could
    // be had with a bit above.
    calls.push(allow(
        &["socket"],
        &[compare(LinuxSeccompOperator::ScmpCmpLt, AF_ALG, None)],
    ));
    calls.extend(
        (AF_ALG..=AF_LAST)
            .filter(|family| ![AF_ALG, AF_VSOCK].contains(family))
            .map(|f| allow(&["socket"], &[compare(LinuxSeccompOperator::ScmpCmpEq, f, None)])),
    );
    if !has(Capability::SysAdmin) {
        let none = compare(LinuxSeccompOperator::ScmpCmpMaskedEq, NEW_NAMESPACES, Some(0));
        calls.push(allow(&["clone"], &[none]));
        calls.push(answer(
            &["clone3"],
            LinuxSeccompAction::ScmpActErrno,
            Some(ENOSYS),
            &[],
        ));
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures())
        .syscalls(calls)
        .build()
        .expect("every field without a default is set")
}

/// The machine's architecture and those whose programs it runs, too.
fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchNative]
    }
}

fn allow(names: &[&str], args: &[LinuxSeccompArg]) -> LinuxSyscall {
    answer(names, LinuxSeccompAction::ScmpActAllow, None, args)
}

fn answer(
    names: &[&str],
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: &[LinuxSeccompArg],
) -> LinuxSyscall {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut call = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        call = call.errno_ret(errno);
    }
    if !args.is_empty() {
        call = call.args(args.to_vec());
    }
    call.build().expect("every field without a default is set")
}

/// A comparison of the first argument.
fn compare(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let mut arg = LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(value)
        .op(op);
    if let Some(two) = value_two {
        arg = arg.value_two(two);
    }
    arg.build().expect("every field without a default is set")
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code)] // calls made raw: the kernel's answer to each is the subject

    use berth_runtime::seccomp::Filter;

    use super::*;

    /// Runs `body` on a thread under the profile.
    fn confined<T: Send>(caps: &[Capability], body: impl FnOnce() -> T + Send) -> T {
        let filter = Filter::compile(&default_profile(caps), None).expect("compile");
        let run = || {
            rustix::thread::set_no_new_privs(true).expect("no_new_privs");
            filter.load().expect("load");
            body()
        };
        std::thread::scope(|scope| scope.spawn(run).join().expect("thread"))
    }

    fn errno(number: libc::c_long, args: [u64; 3]) -> i32 {
        // SAFETY: numbers and null pointers only, for which the kernel has an error.
        let rc = unsafe { libc::syscall(number, args[0], args[1], args[2]) };
        if rc < 0 {
            std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
        } else {
            0
        }
    }

    #[test]
    fn kernel_crypto_and_vsock_are_closed_by_any_number() {
        confined(&[], || {
            let stream = u64::from(libc::SOCK_STREAM.cast_unsigned());
            for family in [
                AF_ALG,
                AF_VSOCK,
                AF_ALG | 1 << 32,
                AF_VSOCK | 1 << 32,
                1 << 32,
                46,
            ] {
                assert_eq!(
                    errno(libc::SYS_socket, [family, stream, 0]),
                    libc::EPERM,
                    "{family:#x}"
                );
            }
            for family in [libc::AF_UNIX, libc::AF_INET] {
                assert_eq!(
                    errno(libc::SYS_socket, [u64::from(family.cast_unsigned()), stream, 0]),
                    0
                );
            }
        });
        let all = default_profile(&[]);
        let names = all.syscalls().iter().flatten().flat_map(|c| c.names());
        assert!(!names.into_iter().any(|n| n == "socketcall"));
    }

    #[test]
    fn namespaces_need_sys_admin() {
        let unshare = u64::from(libc::CLONE_NEWUTS.cast_unsigned());
        confined(&[], || {
            assert_eq!(errno(libc::SYS_unshare, [unshare, 0, 0]), libc::EPERM);
            assert_eq!(errno(libc::SYS_clone, [unshare, 0, 0]), libc::EPERM);
            assert_eq!(errno(libc::SYS_clone3, [0, 0, 0]), libc::ENOSYS);
            std::thread::spawn(|| ())
                .join()
                .expect("libc falls back to clone");
        });
        confined(&[Capability::SysAdmin], || {
            assert_eq!(
                errno(libc::SYS_clone3, [0, 0, 0]),
                libc::EINVAL,
                "reaches the kernel"
            );
            assert_eq!(
                errno(libc::SYS_mount, [0, 0, 0]),
                libc::EFAULT,
                "reaches the kernel"
            );
        });
    }

    #[test]
    fn what_only_hosts_need_is_closed() {
        confined(&[], || {
            for call in [
                libc::SYS_mount,
                libc::SYS_bpf,
                libc::SYS_perf_event_open,
                libc::SYS_io_uring_setup,
                libc::SYS_userfaultfd,
                libc::SYS_keyctl,
                libc::SYS_add_key,
                libc::SYS_kexec_load,
                libc::SYS_open_by_handle_at,
                libc::SYS_chroot,
                libc::SYS_setns,
                libc::SYS_pivot_root,
                libc::SYS_syslog,
            ] {
                assert_eq!(errno(call, [0; 3]), libc::EPERM, "call {call}");
            }
            assert_eq!(
                errno(libc::SYS_personality, [0x4_0000, 0, 0]),
                libc::EPERM,
                "ADDR_NO_RANDOMIZE"
            );
            assert_eq!(errno(libc::SYS_personality, [0xffff_ffff, 0, 0]), 0, "the query");
            assert_eq!(errno(2000, [0; 3]), libc::ENOSYS, "newer than the profile");
        });
        let chroot = confined(&[Capability::SysChroot], || errno(libc::SYS_chroot, [0; 3]));
        assert_eq!(chroot, libc::EFAULT, "reaches the kernel");
    }

    #[test]
    fn every_capability_at_once_compiles() {
        let all: Vec<Capability> = WITH_CAPABILITY.iter().map(|(c, _)| *c).collect();
        let syslog = confined(&all, || errno(libc::SYS_syslog, [99, 0, 0]));
        assert_eq!(syslog, libc::EINVAL, "reaches the kernel");
    }

    #[test]
    fn programs_run_under_it() {
        let status = confined(&[], || {
            std::process::Command::new("/bin/sh")
                .args(["-c", "ls / | wc -l >/dev/null"])
                .status()
        });
        assert!(status.expect("spawn").success());
    }
}
