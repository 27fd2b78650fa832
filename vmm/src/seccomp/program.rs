//! The way of the tables into BPF.
//!
//! The kernel compiles a filter to machine code when a thread takes it, and tries it with every system call there is, to know those it
//! always allows (`seccomp_cache_prepare`). That is part of every start, and costs what the filter's length and the way to an answer cost. So a
//! call is found by halves, where seccompiler's programs compare with one number after the other: a third of the time. seccompiler's is
//! what tests compare with.
//!
//! ```text
//! processor's mode? ─► number ≥ half? ─► number ≥ half? ─► … ─► one of a few numbers? ─► allowed, or its conditions? ─► allowed
//! ```

use std::mem::offset_of;

use libc::seccomp_data;
use seccompiler::{BpfProgram, sock_filter};

use super::filters::{Allowed, Condition};

/// `AUDIT_ARCH_X86_64`: 64 bits, little-endian, `EM_X86_64`.
const X86_64: u32 = 0xc000_003e;
/// Numbers that are compared one after the other: fewer jumps than to halve further.
const FEW: usize = 4;
/// How far a comparison jumps.
const JUMP_MAX: usize = u8::MAX as usize;

/// A call, and the alternatives it is allowed in; one without conditions is always.
type Call<'a> = (u32, Vec<&'a [Condition]>);

/// The program for a thread that may do what is in these tables. Anything else raises `SIGSYS`; another processor mode's
/// system calls kill the process.
pub(super) fn compile(tables: &[&[Allowed]]) -> BpfProgram {
    let mut entries: Vec<&Allowed> = tables.iter().copied().flatten().collect();
    // Stable: alternatives are tried in the order of the tables.
    entries.sort_by_key(|entry| entry.0);
    let mut calls: Vec<Call> = Vec::with_capacity(entries.len());
    for Allowed(number, conditions) in entries {
        let number = u32::try_from(*number).expect("numbers of system calls are small");
        match calls.last_mut() {
            Some((last, alternatives)) if *last == number => alternatives.push(conditions),
            _ => calls.push((number, vec![conditions])),
        }
    }
    let mut program = vec![
        load(offset_of!(seccomp_data, arch)),
        jump(libc::BPF_JEQ, X86_64, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(offset_of!(seccomp_data, nr)),
    ];
    program.extend(find(&calls));
    program
}

/// Answers for the number that is loaded, of any call.
fn find(calls: &[Call]) -> BpfProgram {
    if calls.len() <= FEW {
        let mut program: BpfProgram = calls.iter().flat_map(decide).collect();
        program.push(answer(libc::SECCOMP_RET_TRAP));
        return program;
    }
    let (below, rest) = calls.split_at(calls.len() / 2);
    let (half, below, rest) = (rest[0].0, find(below), find(rest));
    let mut program = Vec::with_capacity(2 + below.len() + rest.len());
    match u8::try_from(below.len()) {
        Ok(length) => program.push(jump(libc::BPF_JGE, half, length, 0)),
        Err(_) => program.extend([jump(libc::BPF_JGE, half, 0, 1), jump_over(below.len())]),
    }
    program.extend(below);
    program.extend(rest);
    program
}

/// Answers for this call; goes on behind itself, with the number still loaded, for others.
fn decide((number, alternatives): &Call) -> BpfProgram {
    let mut answers: BpfProgram = Vec::new();
    for conditions in alternatives {
        answers.extend(allow_if(conditions));
    }
    if alternatives.iter().all(|conditions| !conditions.is_empty()) {
        answers.push(answer(libc::SECCOMP_RET_TRAP));
    }
    let mut program = match u8::try_from(answers.len()) {
        Ok(length) => vec![jump(libc::BPF_JEQ, *number, 0, length)],
        Err(_) => vec![jump(libc::BPF_JEQ, *number, 1, 0), jump_over(answers.len())],
    };
    program.extend(answers);
    program
}

/// Allows when all hold; goes on behind itself otherwise.
fn allow_if(conditions: &[Condition]) -> BpfProgram {
    let mut program = Vec::new();
    // Comparisons after which the answer is no.
    let mut last = Vec::new();
    for condition in conditions {
        match *condition {
            Condition::OneOf(argument, values) => {
                program.push(load_argument(argument));
                let mut left = values.len();
                for value in values {
                    left -= 1;
                    let over = u8::try_from(left).expect("lists are short");
                    program.push(jump(libc::BPF_JEQ, *value, over, 0));
                }
            }
            Condition::Bits {
                argument,
                mask,
                value,
            } => {
                let and = instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0);
                program.extend([load_argument(argument), and, jump(libc::BPF_JEQ, value, 0, 0)]);
            }
            Condition::ThisProcess(argument) => {
                let process = std::process::id();
                program.extend([load_argument(argument), jump(libc::BPF_JEQ, process, 0, 0)]);
            }
        }
        last.push(program.len() - 1);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    for at in last {
        let over = program.len() - at - 1;
        assert!(over <= JUMP_MAX, "conditions are few");
        program[at].jf = u8::try_from(over).expect("it was just compared");
    }
    program
}

/// The lower half of an argument, counted from 0.
fn load_argument(argument: u8) -> sock_filter {
    load(offset_of!(seccomp_data, args) + usize::from(argument) * size_of::<u64>())
}

fn load(offset: usize) -> sock_filter {
    let offset = u32::try_from(offset).expect("it is a small structure");
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Compares what is loaded, and goes over so many instructions if it is so, or if not.
fn jump(how: u32, with: u32, if_so: u8, if_not: u8) -> sock_filter {
    instruction(libc::BPF_JMP | how | libc::BPF_K, with, if_so, if_not)
}

fn jump_over(length: usize) -> sock_filter {
    let length = u32::try_from(length).expect("programs are short");
    instruction(libc::BPF_JMP | libc::BPF_JA, length, 0, 0)
}

fn answer(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = u16::try_from(code).expect("codes are of a byte");
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests;
