//! A few instructions before libseccomp's, for calls newer than it.
//!
//! A profile that answers EPERM to what it does not list breaks programs on a newer kernel: libc tries `fchmodat2`, and falls
//! back only on ENOSYS. So calls with a number above every one that the profile speaks of answer ENOSYS, unless the
//! default lets them through; and listed calls that libseccomp cannot name get their action here.
//!
//! From 424 on, calls have the same number on every architecture below; x32's numbers carry a bit that keeps it out.

use berth_sys::seccomp::Instruction;
use libseccomp::ScmpAction;
use oci_spec::runtime::{Arch, LinuxSeccomp};

/// The first number common to all architectures is one more.
const LAST_DIFFERING: u32 = 423;
/// `__X32_SYSCALL_BIT`; -1, which a tracer sets to skip a call, has it too.
const X32_BIT: u32 = 0x4000_0000;

/// Calls after `set_mempolicy_home_node` (450), the last that libseccomp 2.5.4 knows.
const NEWER: &[(&str, u32)] = &[
    ("memfd_secret", 447),
    ("process_mrelease", 448),
    ("futex_waitv", 449),
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

/// The number of a call that libseccomp does not know.
pub(super) fn newer_number(name: &str) -> Option<u32> {
    NEWER.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
}

/// What the prologue will say.
pub(super) struct Prologue {
    /// `AUDIT_ARCH_*` whose numbers above [`LAST_DIFFERING`] are the common ones.
    archs: Vec<u32>,
    answers: Vec<(u32, u32)>,
    last: u32,
    /// The default lets unknown calls through, or already says ENOSYS.
    open: bool,
}

impl Prologue {
    pub(super) fn new(seccomp: &LinuxSeccomp, default: ScmpAction) -> Prologue {
        let mut archs: Vec<u32> = seccomp
            .architectures()
            .iter()
            .flatten()
            .filter_map(|a| audit_arch(*a))
            .collect();
        // libseccomp always includes the native one.
        archs.extend(audit_arch(Arch::ScmpArchNative));
        archs.sort_unstable();
        archs.dedup();
        let open = match default {
            ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_) | ScmpAction::Notify => true,
            ScmpAction::Errno(e) => e == libc::ENOSYS,
            _ => false,
        };
        Prologue {
            archs,
            answers: Vec::new(),
            last: LAST_DIFFERING,
            open,
        }
    }

    /// The profile speaks of this native number.
    pub(super) fn known(&mut self, number: i32) {
        // Negative ones are libseccomp's for calls of other architectures.
        self.last = self.last.max(u32::try_from(number).unwrap_or(0));
    }

    /// The profile answers this newer call so. The first answer stands.
    pub(super) fn answer(&mut self, number: u32, action: ScmpAction) {
        self.last = self.last.max(number);
        if !self.answers.iter().any(|(n, _)| *n == number) {
            self.answers.push((number, raw(action)));
        }
    }

    pub(super) fn instructions(&self) -> Vec<Instruction> {
        if self.archs.is_empty() || (self.open && self.answers.is_empty()) {
            return Vec::new();
        }
        let mut judge = vec![load(OFFSET_NR), jump(JSET, X32_BIT, 0, 1), skip(0)];
        let leave = judge.len() - 1;
        for (number, answer) in &self.answers {
            judge.extend([jump(JEQ, *number, 0, 1), ret(*answer)]);
        }
        if !self.open {
            judge.extend([
                jump(JGT, self.last, 0, 1),
                ret(raw(ScmpAction::Errno(libc::ENOSYS))),
            ]);
        }
        judge[leave] = skip(judge.len() - leave - 1);

        let mut all = vec![load(OFFSET_ARCH)];
        for (i, arch) in self.archs.iter().enumerate() {
            // To after the remaining comparisons and the skip.
            let ahead = u8::try_from(self.archs.len() - i).unwrap_or(u8::MAX);
            all.push(jump(JEQ, *arch, ahead, 0));
        }
        // Other architectures are libseccomp's to refuse.
        all.push(skip(judge.len()));
        all.extend(judge);
        all
    }
}

/// Offsets in `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
/// `BPF_JMP | BPF_K` with the comparison, linux/bpf_common.h.
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JSET: u16 = 0x45;

fn load(offset: u32) -> Instruction {
    Instruction {
        code: 0x20,
        jt: 0,
        jf: 0,
        k: offset,
    } // BPF_LD | BPF_W | BPF_ABS
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn skip(instructions: usize) -> Instruction {
    Instruction {
        code: 0x05,
        jt: 0,
        jf: 0,
        k: u32::try_from(instructions).unwrap_or(u32::MAX),
    } // BPF_JMP | BPF_JA
}

fn ret(k: u32) -> Instruction {
    Instruction {
        code: 0x06,
        jt: 0,
        jf: 0,
        k,
    } // BPF_RET | BPF_K
}

/// `SECCOMP_RET_*` of linux/seccomp.h.
fn raw(action: ScmpAction) -> u32 {
    match action {
        ScmpAction::KillProcess => 0x8000_0000,
        ScmpAction::Trap => 0x0003_0000,
        ScmpAction::Errno(e) => 0x0005_0000 | (e.cast_unsigned() & 0xffff),
        ScmpAction::Notify => 0x7fc0_0000,
        ScmpAction::Trace(n) => 0x7ff0_0000 | u32::from(n),
        ScmpAction::Log => 0x7ffc_0000,
        ScmpAction::Allow => 0x7fff_0000,
        // KillThread, and the strictest for what a later libseccomp may add.
        _ => 0,
    }
}

/// The kernel's number of an architecture with the common call numbers. x32 is x86-64 to the kernel; MIPS has offsets of its
/// own and is left to libseccomp.
fn audit_arch(arch: Arch) -> Option<u32> {
    match arch {
        Arch::ScmpArchNative | Arch::ScmpArchX86_64 => Some(0xc000_003e),
        Arch::ScmpArchX86
        | Arch::ScmpArchArm
        | Arch::ScmpArchAarch64
        | Arch::ScmpArchPpc
        | Arch::ScmpArchPpc64
        | Arch::ScmpArchPpc64le
        | Arch::ScmpArchS390
        | Arch::ScmpArchS390x
        | Arch::ScmpArchRiscv64
        | Arch::ScmpArchLoongarch64 => Some(arch as u32),
        _ => None,
    }
}
