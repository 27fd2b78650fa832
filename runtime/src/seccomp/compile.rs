//! Rules to BPF by libseccomp.

use std::io::{Read, Seek};

use berth_sys::seccomp::{INSTRUCTIONS_MAX, Instruction};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use rustix::fs::{MemfdFlags, memfd_create};

use super::bytes::decode;
use super::prologue::{self, Prologue};
use super::{Error, Result};

/// `MAX_ERRNO` of the kernel; a larger value would not be an error to the caller.
const ERRNO_MAX: u32 = 4095;

/// What compiles here: an equal profile may compile differently with another.
pub(super) fn compiler() -> Result<String> {
    let library = libseccomp::ScmpVersion::current().map_err(|source| Error::Compile {
        step: "find its version".into(),
        source,
    })?;
    Ok(format!(
        "libseccomp {}.{}.{}",
        library.major, library.minor, library.micro
    ))
}

/// Compiles the whole profile.
pub(super) fn program(seccomp: &LinuxSeccomp) -> Result<Vec<Instruction>> {
    let fail = |step: &str| {
        let step = step.to_owned();
        move |source| Error::Compile { step, source }
    };
    let default = action(seccomp.default_action(), seccomp.default_errno_ret(), || {
        "defaultErrnoRet".to_owned()
    })?;
    let mut context = ScmpFilterContext::new(default).map_err(fail("start"))?;
    // A binary tree over call numbers: each call is judged in some ten comparisons rather than hundreds.
    context
        .set_ctl_optimize(2)
        .map_err(fail("choose the tree form"))?;
    for arch in seccomp.architectures().iter().flatten() {
        context
            .add_arch(scmp_arch(*arch))
            .map_err(fail("add an architecture"))?;
    }
    let mut prologue = Prologue::new(seccomp, default);
    for (index, entry) in seccomp.syscalls().iter().flatten().enumerate() {
        rule(&mut context, &mut prologue, default, entry, index)?;
    }
    let mut program = prologue.instructions();
    program.extend(export(&context)?);
    if program.len() > INSTRUCTIONS_MAX {
        let reason = format!(
            "compile to {} instructions, the kernel takes {INSTRUCTIONS_MAX}",
            program.len()
        );
        return Err(Error::invalid("syscalls", reason));
    }
    Ok(program)
}

fn rule(
    context: &mut ScmpFilterContext,
    prologue: &mut Prologue,
    default: ScmpAction,
    entry: &LinuxSyscall,
    index: usize,
) -> Result<()> {
    let field = |name: &str| format!("syscalls[{index}].{name}");
    if entry.names().is_empty() {
        return Err(Error::invalid(field("names"), "is empty"));
    }
    let action = action(entry.action(), entry.errno_ret(), || field("errnoRet"))?;
    let args = entry.args().as_deref().unwrap_or_default();
    let compares = args
        .iter()
        .map(|a| compare(a, &field))
        .collect::<Result<Vec<_>>>()?;
    let repeats = args
        .iter()
        .enumerate()
        .any(|(i, a)| args[..i].iter().any(|b| b.index() == a.index()));
    for name in entry.names() {
        let Ok(call) = ScmpSyscall::from_name(name) else {
            match prologue::newer_number(name) {
                Some(_) if !args.is_empty() => {
                    let reason = format!("not supported: {name} is newer than the linked libseccomp");
                    return Err(Error::invalid(field("args"), reason));
                }
                Some(number) => prologue.answer(number, action),
                // Profiles name calls of every architecture and kernel; one that nobody knows cannot be made.
                None => {}
            }
            continue;
        };
        prologue.known(call.as_raw_syscall());
        if action == default {
            // libseccomp refuses a rule that changes nothing.
            continue;
        }
        let fail = |source| Error::Compile {
            step: format!("add the rule for {name}"),
            source,
        };
        if compares.is_empty() {
            context.add_rule(action, call).map_err(fail)?;
        } else if repeats {
            // libseccomp takes an argument once per rule. Engines that name one twice mean either, and other runtimes
            // do the same.
            for compare in &compares {
                context
                    .add_rule_conditional(action, call, &[*compare])
                    .map_err(fail)?;
            }
        } else {
            context
                .add_rule_conditional(action, call, &compares)
                .map_err(fail)?;
        }
    }
    Ok(())
}

/// The action with its number, which only two kinds have (config-linux.md#seccomp: an error for any other).
fn action(action: LinuxSeccompAction, errno: Option<u32>, field: impl Fn() -> String) -> Result<ScmpAction> {
    let number = |max: u32| match errno {
        None => Ok(1),
        Some(e) if e <= max => Ok(e),
        Some(e) => Err(Error::invalid(field(), format!("{e} is more than {max}"))),
    };
    Ok(match action {
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(number(ERRNO_MAX)?.cast_signed()),
        LinuxSeccompAction::ScmpActTrace => {
            ScmpAction::Trace(u16::try_from(number(u16::MAX.into())?).unwrap_or(u16::MAX))
        }
        // Engines write 0 or EPERM beside any action; only a number that would matter is a mistake.
        other if errno.is_some_and(|e| e > 1) => {
            return Err(Error::invalid(field(), format!("{other} has no number")));
        }
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    })
}

fn compare(arg: &LinuxSeccompArg, field: &dyn Fn(&str) -> String) -> Result<ScmpArgCompare> {
    // seccomp_data has six arguments.
    let index = u32::try_from(arg.index())
        .ok()
        .filter(|i| *i < 6)
        .ok_or_else(|| Error::invalid(field("args"), format!("index {} is more than 5", arg.index())))?;
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // config-linux.md#seccomp: `value` is the mask, `valueTwo` what must remain.
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            ScmpCompareOp::MaskedEqual(arg.value()),
            arg.value_two().unwrap_or(0),
        ),
    };
    Ok(ScmpArgCompare::new(index, operator, value))
}

fn scmp_arch(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

/// libseccomp before 2.6 exports to a descriptor only.
fn export(context: &ScmpFilterContext) -> Result<Vec<Instruction>> {
    let fail = |source| Error::Export { source };
    let fd = memfd_create("seccomp", MemfdFlags::CLOEXEC).map_err(|e| fail(e.into()))?;
    context.export_bpf(&fd).map_err(|source| Error::Compile {
        step: "write the program".into(),
        source,
    })?;
    let mut file = std::fs::File::from(fd);
    file.rewind().map_err(fail)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(fail)?;
    decode(&bytes).ok_or_else(|| fail(std::io::ErrorKind::InvalidData.into()))
}
