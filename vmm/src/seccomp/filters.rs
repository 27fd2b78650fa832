//! What each kind of thread may ask of the kernel once the guest runs: tables. `program.rs` makes filters of them.
//!
//! Arguments are looked at where a call does more than a thread needs. The kernel takes 32 bits of each of those named here, so
//! that no more are compared.

use libc::{c_int, c_long};
use vmm_sys_util::ioctl::{_IOC_NONE, _IOC_READ, _IOC_WRITE, ioctl_expr};

/// A system call that is allowed when all of its conditions hold. Several entries of one call are alternatives.
pub(super) struct Allowed(pub(super) c_long, pub(super) &'static [Condition]);

/// What an argument, counted from 0, must be.
pub(super) enum Condition {
    /// One of these.
    OneOf(u8, &'static [u32]),
    /// These bits, of those in the mask.
    Bits { argument: u8, mask: u32, value: u32 },
    /// The number of this process.
    ThisProcess(u8),
}

use Condition::{Bits, OneOf, ThisProcess};

/// Of a constant that is a number of the kernel's interface: a pattern of 32 bits.
const fn bits(number: c_int) -> u32 {
    number.cast_unsigned()
}

/// Of an ioctl's number: 32 bits, too.
#[allow(clippy::cast_possible_truncation)] // no ioctl has more
const fn request(number: libc::c_ulong) -> u32 {
    number as u32
}

const KVM_RUN: u32 = request(ioctl_expr(_IOC_NONE, kvm_bindings::KVMIO, 0x80, 0));
/// Tells a guest that it stood.
const KVM_KVMCLOCK_CTRL: u32 = request(ioctl_expr(_IOC_NONE, kvm_bindings::KVMIO, 0xad, 0));
const fn kvm(direction: u32, number: u32, size: usize) -> u32 {
    #[allow(clippy::cast_possible_truncation)] // 14 bits hold the size of what an ioctl takes
    request(ioctl_expr(direction, kvm_bindings::KVMIO, number, size as u32))
}

/// What is read of a processor for a snapshot (Documentation/virt/kvm/api.rst).
const KVM_READS_PROCESSOR: &[u32] = &[
    kvm(_IOC_READ, 0x81, size_of::<kvm_bindings::kvm_regs>()),
    kvm(_IOC_READ, 0x83, size_of::<kvm_bindings::kvm_sregs>()),
    kvm(_IOC_READ | _IOC_WRITE, 0x88, size_of::<kvm_bindings::kvm_msrs>()),
    kvm(_IOC_READ, 0x8e, size_of::<kvm_bindings::kvm_lapic_state>()),
    kvm(
        _IOC_READ | _IOC_WRITE,
        0x91,
        size_of::<kvm_bindings::kvm_cpuid2>(),
    ),
    kvm(_IOC_READ, 0x98, size_of::<kvm_bindings::kvm_mp_state>()),
    kvm(_IOC_READ, 0x9f, size_of::<kvm_bindings::kvm_vcpu_events>()),
    kvm(_IOC_READ, 0xa1, size_of::<kvm_bindings::kvm_debugregs>()),
    kvm(_IOC_NONE, 0xa3, 0), // the pace of its time stamps
    kvm(_IOC_READ, 0xa4, size_of::<kvm_bindings::kvm_xsave>()),
    kvm(_IOC_READ, 0xa6, size_of::<kvm_bindings::kvm_xcrs>()),
];
/// What is read of the rest of the machine: which machine registers there are, controllers, timer, clock.
const KVM_READS_MACHINE: &[u32] = &[
    kvm(
        _IOC_READ | _IOC_WRITE,
        0x02,
        size_of::<kvm_bindings::kvm_msr_list>(),
    ),
    kvm(
        _IOC_READ | _IOC_WRITE,
        0x62,
        size_of::<kvm_bindings::kvm_irqchip>(),
    ),
    kvm(_IOC_READ, 0x7c, size_of::<kvm_bindings::kvm_clock_data>()),
    KVM_GET_PIT2,
];
/// What makes the timer that a guest asks for.
const KVM_MAKES_PIT: &[u32] = &[
    kvm(_IOC_WRITE, 0x77, size_of::<kvm_bindings::kvm_pit_config>()),
    KVM_GET_PIT2,
    kvm(_IOC_WRITE, 0xa0, size_of::<kvm_bindings::kvm_pit_state2>()),
];
const KVM_GET_PIT2: u32 = kvm(_IOC_READ, 0x9f, size_of::<kvm_bindings::kvm_pit_state2>());
const KVM_SET_USER_MEMORY_REGION: u32 = kvm(
    _IOC_WRITE,
    0x46,
    size_of::<kvm_bindings::kvm_userspace_memory_region>(),
);
const KVM_IRQ_LINE: u32 = kvm(_IOC_WRITE, 0x61, size_of::<kvm_bindings::kvm_irq_level>());
const TUNSETOFFLOAD: u32 = request(libc::TUNSETOFFLOAD);

/// The signal that makes a processor stand: the C library's first of those that are free to use.
pub(super) const KICK: u32 = 34;

/// Memory for data alone. Nothing becomes executable, and no file is mapped.
const PLAIN_MAP: &[Condition] = &[
    NOT_EXECUTABLE,
    Bits {
        argument: 3,
        mask: bits(libc::MAP_TYPE | libc::MAP_ANONYMOUS),
        value: bits(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
    },
];
const NOT_EXECUTABLE: Condition = Bits {
    argument: 2,
    mask: bits(libc::PROT_EXEC),
    value: 0,
};

/// No lock that inherits priorities, and nothing moved between queues but by the C library's condition variables.
const LOCKS: Condition = Bits {
    argument: 1,
    mask: !bits(libc::FUTEX_PRIVATE_FLAG),
    value: bits(libc::FUTEX_WAIT),
};
const WAKES: Condition = Bits {
    argument: 1,
    mask: !bits(libc::FUTEX_PRIVATE_FLAG),
    value: bits(libc::FUTEX_WAKE),
};
const TIMED_LOCKS: Condition = Bits {
    argument: 1,
    mask: !bits(libc::FUTEX_PRIVATE_FLAG),
    value: bits(libc::FUTEX_WAIT_BITSET),
};

const fn makes_no_file(flags: u8) -> Condition {
    Bits {
        argument: flags,
        mask: bits(libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY),
        value: 0,
    }
}

/// What mknod(2) makes.
const fn of_kind(kind: u32) -> Condition {
    Bits {
        argument: 2,
        mask: libc::S_IFMT,
        value: kind,
    }
}

/// A file that was not there.
const NEW_FILE: Condition = Bits {
    argument: 2,
    mask: bits(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY),
    value: bits(libc::O_CREAT | libc::O_EXCL),
};

/// Every thread: memory, locks, the clock, what it says, its signals and its end.
const ALL: &[Allowed] = &[
    Allowed(libc::SYS_brk, &[]),
    Allowed(libc::SYS_mmap, PLAIN_MAP),
    Allowed(libc::SYS_mprotect, &[NOT_EXECUTABLE]),
    Allowed(libc::SYS_mremap, &[]),
    Allowed(libc::SYS_munmap, &[]),
    // The stack of a thread that ends, and the guest's memory that a balloon takes.
    Allowed(libc::SYS_madvise, &[OneOf(2, &[bits(libc::MADV_DONTNEED)])]),
    Allowed(libc::SYS_futex, &[LOCKS]),
    Allowed(libc::SYS_futex, &[WAKES]),
    Allowed(libc::SYS_futex, &[TIMED_LOCKS]),
    Allowed(libc::SYS_sched_yield, &[]),
    // Without a system call where the host's clock allows it.
    Allowed(libc::SYS_clock_gettime, &[]),
    // The console's output, the log, events.
    Allowed(libc::SYS_write, &[]),
    Allowed(libc::SYS_writev, &[]),
    Allowed(libc::SYS_close, &[]),
    // The standard library's look, in a build for debugging, at what it closes.
    Allowed(libc::SYS_fcntl, &[OneOf(1, &[bits(libc::F_GETFD)])]),
    // A driver that starts or resets its network card.
    Allowed(libc::SYS_ioctl, &[OneOf(1, &[TUNSETOFFLOAD])]),
    Allowed(libc::SYS_rt_sigreturn, &[]),
    Allowed(libc::SYS_rt_sigprocmask, &[]),
    // After SIGSTOP and SIGCONT.
    Allowed(libc::SYS_restart_syscall, &[]),
    // What the standard library's handler of stack overflows does with a fault that is none, and the C library with an abort that
    // the first process of a namespace does not hear: let it end the process.
    Allowed(
        libc::SYS_rt_sigaction,
        &[OneOf(
            0,
            &[bits(libc::SIGSEGV), bits(libc::SIGBUS), bits(libc::SIGABRT)],
        )],
    ),
    Allowed(libc::SYS_sigaltstack, &[]),
    // A panic's end.
    Allowed(libc::SYS_getpid, &[]),
    Allowed(libc::SYS_gettid, &[]),
    Allowed(
        libc::SYS_tgkill,
        &[ThisProcess(0), OneOf(2, &[bits(libc::SIGABRT)])],
    ),
    Allowed(libc::SYS_exit, &[]),
    Allowed(libc::SYS_exit_group, &[]),
];

/// A virtual processor's thread. It opens nothing, reads nothing but its processor and the timer, and reaches nobody.
pub(super) const PROCESSOR: &[&[Allowed]] = &[
    ALL,
    &[
        Allowed(libc::SYS_ioctl, &[OneOf(1, &[KVM_RUN, KVM_KVMCLOCK_CTRL])]),
        Allowed(libc::SYS_ioctl, &[OneOf(1, KVM_READS_PROCESSOR)]),
        Allowed(libc::SYS_ioctl, &[OneOf(1, KVM_MAKES_PIT)]),
    ],
];

/// The thread of the event loop, with the devices.
const LOOP: &[Allowed] = &[
    // The loop is made after a machine that a configuration file describes.
    Allowed(libc::SYS_epoll_create1, &[]),
    Allowed(libc::SYS_timerfd_create, &[]),
    Allowed(libc::SYS_epoll_ctl, &[]),
    Allowed(libc::SYS_epoll_wait, &[]),
    Allowed(libc::SYS_epoll_pwait, &[]),
    Allowed(libc::SYS_ppoll, &[]),
    Allowed(libc::SYS_timerfd_settime, &[]),
    Allowed(libc::SYS_read, &[]),
    // The console's input is kept.
    Allowed(libc::SYS_fcntl, &[OneOf(1, &[bits(libc::F_DUPFD_CLOEXEC)])]),
    Allowed(
        libc::SYS_ioctl,
        &[OneOf(
            1,
            &[
                // A terminal that passes every key on.
                request(libc::TCGETS),
                request(libc::TCSETS),
                request(libc::TCGETS2),
                request(libc::TCSETS2),
                // A client that is not waited for.
                request(libc::FIONBIO),
            ],
        )],
    ),
    // Processors that are to stand.
    Allowed(libc::SYS_tgkill, &[ThisProcess(0), OneOf(2, &[KICK])]),
    // Frames, sectors, random numbers.
    Allowed(libc::SYS_readv, &[]),
    Allowed(libc::SYS_preadv, &[]),
    Allowed(libc::SYS_pwritev, &[]),
    Allowed(libc::SYS_fdatasync, &[]),
    Allowed(
        libc::SYS_fallocate,
        &[OneOf(
            1,
            &[
                bits(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
                bits(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE),
            ],
        )],
    ),
    Allowed(libc::SYS_getrandom, &[]),
    // Another file for a disk: what it is.
    Allowed(libc::SYS_lseek, &[]),
    Allowed(libc::SYS_statx, &[]),
    // The power button.
    Allowed(libc::SYS_ioctl, &[OneOf(1, &[KVM_IRQ_LINE])]),
    // A snapshot's files.
    Allowed(libc::SYS_ioctl, &[OneOf(1, KVM_READS_MACHINE)]),
    Allowed(libc::SYS_ftruncate, &[]),
    Allowed(libc::SYS_pwrite64, &[]),
    Allowed(libc::SYS_fsync, &[]),
    // The guest's memory, at the end. What could be made the guest's is this process's own.
    Allowed(libc::SYS_ioctl, &[OneOf(1, &[KVM_SET_USER_MEMORY_REGION])]),
    // Clients of vsock, and of the API when it is served here. What this process listens on it does already.
    Allowed(libc::SYS_accept4, &[]),
    Allowed(libc::SYS_recvfrom, &[]),
    Allowed(libc::SYS_sendto, &[]),
    Allowed(libc::SYS_shutdown, &[]),
];

/// The event loop of a jail. Who is outside hands it files.
pub(super) const JAILED_LOOP: &[&[Allowed]] = &[ALL, LOOP, &[Allowed(libc::SYS_recvmsg, &[])]];

/// The event loop of a process that also serves the API.
pub(super) const EVENT_LOOP: &[&[Allowed]] = &[
    ALL,
    LOOP,
    &[
        // Another file for a disk, /dev/null. The first is what old C libraries and rustix still use.
        Allowed(libc::SYS_open, &[makes_no_file(1)]),
        Allowed(libc::SYS_openat, &[makes_no_file(2)]),
        // Who listens for the guest.
        Allowed(
            libc::SYS_socket,
            &[
                OneOf(0, &[bits(libc::AF_UNIX)]),
                Bits {
                    argument: 1,
                    mask: !bits(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK),
                    value: bits(libc::SOCK_STREAM),
                },
            ],
        ),
        Allowed(libc::SYS_connect, &[]),
        // The names of our sockets, at the end.
        Allowed(libc::SYS_unlink, &[]),
        // A snapshot: new files, which take the names of old ones.
        Allowed(libc::SYS_openat, &[NEW_FILE]),
        Allowed(libc::SYS_rename, &[]),
    ],
];

/// The thread of a shared directory: files, in any way that works beneath a descriptor. It connects to nobody.
pub(super) const SHARE: &[&[Allowed]] = &[
    ALL,
    &[
        Allowed(libc::SYS_epoll_wait, &[]),
        Allowed(libc::SYS_epoll_pwait, &[]),
        Allowed(libc::SYS_openat2, &[]),
        // A link of `/proc/self/fd`, by the directory's descriptor.
        Allowed(
            libc::SYS_openat,
            &[Bits {
                argument: 2,
                mask: bits(libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY),
                value: 0,
            }],
        ),
        Allowed(libc::SYS_newfstatat, &[]),
        Allowed(libc::SYS_fstatfs, &[]),
        Allowed(libc::SYS_statx, &[]),
        Allowed(libc::SYS_readlinkat, &[]),
        Allowed(libc::SYS_getdents64, &[]),
        Allowed(libc::SYS_lseek, &[]),
        Allowed(libc::SYS_preadv, &[]),
        Allowed(libc::SYS_pwritev, &[]),
        Allowed(libc::SYS_mkdirat, &[]),
        // Files, pipes and sockets: no device.
        Allowed(libc::SYS_mknodat, &[of_kind(libc::S_IFREG)]),
        Allowed(libc::SYS_mknodat, &[of_kind(libc::S_IFIFO)]),
        Allowed(libc::SYS_mknodat, &[of_kind(libc::S_IFSOCK)]),
        Allowed(libc::SYS_symlinkat, &[]),
        Allowed(libc::SYS_linkat, &[]),
        Allowed(libc::SYS_unlinkat, &[]),
        Allowed(libc::SYS_renameat2, &[]),
        Allowed(libc::SYS_fchownat, &[]),
        Allowed(libc::SYS_fchmodat, &[]),
        Allowed(libc::SYS_utimensat, &[]),
        Allowed(libc::SYS_ftruncate, &[]),
        Allowed(libc::SYS_fallocate, &[]),
        Allowed(libc::SYS_fsync, &[]),
        Allowed(libc::SYS_fdatasync, &[]),
        Allowed(libc::SYS_fgetxattr, &[]),
        Allowed(libc::SYS_fsetxattr, &[]),
        Allowed(libc::SYS_flistxattr, &[]),
        Allowed(libc::SYS_fremovexattr, &[]),
        Allowed(libc::SYS_fcntl, &[OneOf(1, &[bits(libc::F_DUPFD_CLOEXEC)])]),
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry without conditions makes the conditions of another of the same call pointless, whatever the order.
    #[test]
    fn no_entry_undoes_another() {
        for tables in [PROCESSOR, EVENT_LOOP, JAILED_LOOP, SHARE] {
            let entries: Vec<&Allowed> = tables.iter().copied().flatten().collect();
            for Allowed(number, conditions) in &entries {
                let same = entries.iter().filter(|other| other.0 == *number).count();
                assert!(same == 1 || !conditions.is_empty(), "system call {number}");
            }
        }
    }

    #[test]
    fn processors_are_made_to_stand_by_the_signal_in_the_table() {
        assert_eq!(u32::try_from(vmm_sys_util::signal::SIGRTMIN()), Ok(KICK));
    }
}
