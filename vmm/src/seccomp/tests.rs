//! Children of the test's process, each confined as a thread of the monitor, that try something.

use std::ffi::c_long;
use std::os::fd::AsRawFd;

use super::*;

type Of = fn(Seccomp) -> Filter;
const LOOP: Of = |seccomp| seccomp.filters(false).event_loop;
const JAILED: Of = |seccomp| seccomp.filters(true).event_loop;
const SHARE: Of = Seccomp::share;
const PROCESSOR: Of = |seccomp| seccomp.filters(false).processor;

/// What a child ends with that could make its call, whatever came of it.
const MADE: c_int = 7;

/// Makes a system call as such a thread: what ends the process that does, and what it says.
fn attempt(of: Of, number: c_long, arguments: [c_long; 4]) -> (c_int, String) {
    let filter = of(Seccomp::On);
    let (reader, writer) = io::pipe().unwrap();
    // SAFETY: the child makes system calls alone, and ends without returning.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: numbers and descriptors; whatever the call does, it does it to this child. The arguments are no pointers
        // to anything of ours.
        unsafe {
            libc::dup2(writer.as_raw_fd(), libc::STDERR_FILENO);
            if Seccomp::On.prepare().is_err() || filter.install().is_err() {
                libc::_exit(1);
            }
            let [one, two, three, four] = arguments;
            libc::syscall(number, one, two, three, four, -1, 0);
            libc::_exit(MADE);
        }
    }
    drop(writer);
    let said = io::read_to_string(reader).unwrap();
    let mut status = 0;
    // SAFETY: the status is written to a place that outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "status {status:#x}: {said}");
    (libc::WEXITSTATUS(status), said)
}

fn forbidden(of: Of, number: c_long, arguments: [c_long; 4]) {
    let said = format!("berth-vmm: a thread made system call {number}, which its seccomp filter forbids\n");
    assert_eq!(attempt(of, number, arguments), (148, said), "{arguments:?}");
}

fn allowed(of: Of, number: c_long, arguments: [c_long; 4]) {
    let end = attempt(of, number, arguments);
    assert_eq!(end, (MADE, String::new()), "{number} {arguments:?}");
}

#[test]
fn no_thread_executes_looks_into_others_or_becomes_more() {
    for of in [LOOP, JAILED, PROCESSOR, SHARE] {
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_kill,
            libc::SYS_setuid,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_seccomp,
            libc::SYS_bind,
            // The same numbers for programs with pointers of 32 bits.
            libc::SYS_write | 0x4000_0000,
        ] {
            forbidden(of, number, [-1, 0, 0, 0]);
        }
        let signal = libc::SIGKILL.into();
        forbidden(of, libc::SYS_tgkill, [std::process::id().into(), 0, signal, 0]);
        forbidden(of, libc::SYS_rt_sigaction, [libc::SIGSYS.into(), 0, 0, 8]);
        forbidden(of, libc::SYS_ioctl, [-1, 0x5412 /* TIOCSTI */, 0, 0]);
    }
}

#[test]
fn memory_is_for_data() {
    let (write, execute) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_EXEC,
    );
    let plain = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    for of in [LOOP, PROCESSOR, SHARE] {
        allowed(of, libc::SYS_mmap, [0, 4096, write.into(), plain.into()]);
        forbidden(of, libc::SYS_mmap, [0, 4096, execute.into(), plain.into()]);
        forbidden(
            of,
            libc::SYS_mmap,
            [0, 4096, write.into(), libc::MAP_PRIVATE.into()],
        );
        forbidden(of, libc::SYS_mprotect, [0, 4096, execute.into(), 0]);
        allowed(of, libc::SYS_madvise, [0, 0, libc::MADV_DONTNEED.into(), 0]);
        forbidden(of, libc::SYS_madvise, [0, 0, libc::MADV_HWPOISON.into(), 0]);
    }
}

#[test]
fn the_event_loop_opens_files_and_makes_new_ones_alone() {
    let at = libc::AT_FDCWD.into();
    allowed(
        LOOP,
        libc::SYS_openat,
        [at, 0, (libc::O_RDWR | libc::O_CLOEXEC).into(), 0],
    );
    for flag in [libc::O_CREAT, libc::O_TRUNC, libc::O_TMPFILE] {
        forbidden(
            LOOP,
            libc::SYS_openat,
            [at, 0, (libc::O_RDWR | flag).into(), 0o600],
        );
    }
    let new = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
    allowed(LOOP, libc::SYS_openat, [at, 0, new.into(), 0o600]);
    forbidden(PROCESSOR, libc::SYS_openat, [at, 0, new.into(), 0o600]);
    allowed(LOOP, libc::SYS_open, [0, libc::O_RDONLY.into(), 0, 0]);
    forbidden(
        LOOP,
        libc::SYS_open,
        [0, (libc::O_WRONLY | libc::O_CREAT).into(), 0o600, 0],
    );
    allowed(LOOP, libc::SYS_fallocate, [-1, 3, 0, 0]);
    forbidden(LOOP, libc::SYS_fallocate, [-1, 0, 0, 0]);
}

#[test]
fn in_a_jail_the_event_loop_gets_files_and_sockets_and_names_none() {
    allowed(JAILED, libc::SYS_recvmsg, [-1, 0, 0, 0]);
    allowed(JAILED, libc::SYS_pwrite64, [-1, 0, 0, 0]);
    for number in [
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_unlink,
        libc::SYS_rename,
        libc::SYS_sendmsg,
        libc::SYS_socket,
        libc::SYS_connect,
    ] {
        forbidden(JAILED, number, [-1, 0, 0, 0]);
    }
}

#[test]
fn the_event_loop_speaks_to_this_host_alone() {
    let stream = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    allowed(
        LOOP,
        libc::SYS_socket,
        [libc::AF_UNIX.into(), stream.into(), 0, 0],
    );
    for family in [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_PACKET,
        libc::AF_ALG,
        libc::AF_VSOCK,
    ] {
        forbidden(LOOP, libc::SYS_socket, [family.into(), stream.into(), 0, 0]);
    }
    forbidden(
        LOOP,
        libc::SYS_socket,
        [libc::AF_UNIX.into(), libc::SOCK_DGRAM.into(), 0, 0],
    );
}

#[test]
fn a_shared_directory_s_thread_makes_files_and_reaches_nobody() {
    let at = libc::AT_FDCWD.into();
    allowed(SHARE, libc::SYS_openat, [-1, 0, libc::O_TRUNC.into(), 0]);
    for flag in [libc::O_CREAT, libc::O_TMPFILE] {
        forbidden(SHARE, libc::SYS_openat, [at, 0, flag.into(), 0o600]);
    }
    for (kind, is_allowed) in [
        (libc::S_IFREG, true),
        (libc::S_IFIFO, true),
        (libc::S_IFSOCK, true),
        (libc::S_IFCHR, false),
        (libc::S_IFBLK, false),
    ] {
        let check = if is_allowed { allowed } else { forbidden };
        check(SHARE, libc::SYS_mknodat, [-1, 0, (kind | 0o600).into(), 0]);
    }
    for number in [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_accept4,
        libc::SYS_sendto,
        libc::SYS_open_by_handle_at,
        libc::SYS_move_mount,
    ] {
        forbidden(SHARE, number, [-1, 0, 0, 0]);
    }
    forbidden(SHARE, libc::SYS_ioctl, [-1, 0xae80 /* KVM_RUN */, 0, 0]);
}

#[test]
fn a_processor_runs_and_does_little_else() {
    allowed(PROCESSOR, libc::SYS_ioctl, [-1, 0xae80 /* KVM_RUN */, 0, 0]);
    forbidden(LOOP, libc::SYS_ioctl, [-1, 0xae80, 0, 0]);
    // KVM_GET_REGS and KVM_SET_REGS: what a snapshot holds is read by its own thread, and set by none.
    allowed(PROCESSOR, libc::SYS_ioctl, [-1, 0x8090_ae81, 0, 0]);
    forbidden(LOOP, libc::SYS_ioctl, [-1, 0x8090_ae81, 0, 0]);
    for of in [LOOP, PROCESSOR] {
        forbidden(of, libc::SYS_ioctl, [-1, 0x4090_ae82, 0, 0]);
    }
    // KVM_GET_CLOCK.
    allowed(LOOP, libc::SYS_ioctl, [-1, 0x8030_ae7c, 0, 0]);
    // KVM_IRQ_LINE: the power button.
    allowed(LOOP, libc::SYS_ioctl, [-1, 0x4008_ae61, 0, 0]);
    forbidden(PROCESSOR, libc::SYS_ioctl, [-1, 0x4008_ae61, 0, 0]);
    // KVM_SET_USER_MEMORY_REGION: what the guest's memory is.
    forbidden(PROCESSOR, libc::SYS_ioctl, [-1, 0x4020_ae46, 0, 0]);
    allowed(LOOP, libc::SYS_ioctl, [-1, 0x4020_ae46, 0, 0]);
    forbidden(SHARE, libc::SYS_ioctl, [-1, 0x4020_ae46, 0, 0]);
    // KVM_CREATE_PIT2 and KVM_SET_PIT2.
    for number in [0x4040_ae77, 0x4070_aea0] {
        allowed(PROCESSOR, libc::SYS_ioctl, [-1, number, 0, 0]);
        forbidden(LOOP, libc::SYS_ioctl, [-1, number, 0, 0]);
    }
    for number in [
        libc::SYS_read,
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_unlink,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_sendto,
        libc::SYS_preadv,
        libc::SYS_pwritev,
    ] {
        forbidden(PROCESSOR, number, [-1, 0, 0, 0]);
    }
}

#[test]
fn without_filters_nothing_is_forbidden() {
    fn off(_: Seccomp) -> Filter {
        Seccomp::Off.filters(false).processor
    }
    allowed(off, libc::SYS_read, [-1, 0, 0, 0]);
}
