//! Where a program starts that seals itself ([`crate::reexec`]): before its C library does.
//!
//! A static program of glibc begins with some twenty `cpuid` instructions, each of which leaves the virtual machine the host may
//! be, and touches about seventy pages before `main`. [`crate::reexec::seal`] pays that twice, for it executes the program
//! again. `berth_sealed_start`, the entry point of a binary linked with `-e berth_sealed_start`, makes the same three system calls
//! first and has nothing to begin with:
//!
//! ```text
//! statfs /proc/self/exe ─ read-only ──────────────────────────────────────────► _start ► main ► seal: is_sealed
//!                       └ otherwise open_tree, mount_setattr, execveat itself ─ refused ┘
//! ```
//!
//! It decides nothing about safety: `main` calls [`crate::reexec::seal`] all the same, which asks the kernel and has the other
//! way to seal where this one is refused.

#![allow(unsafe_code)] // no language has a stack, registers or a C library yet where this runs

// SAFETY: at the entry point `rsp` points at argc, argv and envp as the System V ABI (x86-64 supplement, 3.4.1) has them, and no
// other register but `rdx` means anything. Both are given to `_start` as they came. The code uses no relocated address and
// nothing of the C library, writes below the stack pointer it was given alone, and passes the kernel sizes and offsets of
// `struct statfs` and `struct mount_attr` as the x86-64 kernel ABI fixes them.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text.berth_sealed_start, \"ax\", @progbits",
    ".globl berth_sealed_start",
    ".hidden berth_sealed_start",
    ".type berth_sealed_start, @function",
    "berth_sealed_start:",
    "mov rbx, rdx",
    "mov rbp, rsp",
    "sub rsp, 128",
    // struct statfs has 120 bytes, f_flags at 80.
    "mov eax, {statfs}",
    "lea rdi, [rip + 4f]",
    "mov rsi, rsp",
    "syscall",
    "test eax, eax",
    "jnz 3f",
    "test byte ptr [rsp + 80], {st_rdonly}",
    "jnz 3f",
    "mov eax, {open_tree}",
    "mov edi, {at_fdcwd}",
    "lea rsi, [rip + 4f]",
    "mov edx, {clone_cloexec}",
    "syscall",
    "test eax, eax",
    "js 3f",
    "mov r12d, eax",
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    "xor eax, eax",
    "mov qword ptr [rsp], {mount_attr_rdonly}",
    "mov [rsp + 8], rax",
    "mov [rsp + 16], rax",
    "mov [rsp + 24], rax",
    "mov eax, {mount_setattr}",
    "mov edi, r12d",
    "lea rsi, [rip + 5f]",
    "mov edx, {at_empty_path}",
    "mov r10, rsp",
    "mov r8d, 32",
    "syscall",
    "test eax, eax",
    "jnz 2f",
    "mov eax, {execveat}",
    "mov edi, r12d",
    "lea rsi, [rip + 5f]",
    "mov rcx, [rbp]",
    "lea rdx, [rbp + 8]",
    "lea r10, [rbp + rcx * 8 + 16]",
    "mov r8d, {at_empty_path}",
    "syscall",
    "2:",
    "mov eax, {close}",
    "mov edi, r12d",
    "syscall",
    "3:",
    "mov rsp, rbp",
    "mov rdx, rbx",
    "jmp _start",
    "4:",
    ".asciz \"/proc/self/exe\"",
    "5:",
    ".byte 0",
    ".size berth_sealed_start, . - berth_sealed_start",
    ".popsection",
    statfs = const libc::SYS_statfs,
    st_rdonly = const libc::ST_RDONLY,
    open_tree = const libc::SYS_open_tree,
    at_fdcwd = const libc::AT_FDCWD,
    clone_cloexec = const libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC,
    mount_attr_rdonly = const libc::MOUNT_ATTR_RDONLY,
    mount_setattr = const libc::SYS_mount_setattr,
    at_empty_path = const libc::AT_EMPTY_PATH,
    execveat = const libc::SYS_execveat,
    close = const libc::SYS_close,
);
