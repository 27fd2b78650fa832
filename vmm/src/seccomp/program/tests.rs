//! Programs answer as seccompiler's of the same tables do.

use std::collections::BTreeMap;

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::*;
use crate::seccomp::filters::{EVENT_LOOP, JAILED_LOOP, PROCESSOR, SHARE};

const TABLES: [&[&[Allowed]]; 4] = [PROCESSOR, EVENT_LOOP, JAILED_LOOP, SHARE];

/// What seccompiler makes of the tables: one rule for each way in which conditions can hold.
fn reference(tables: &[&[Allowed]]) -> BpfProgram {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for Allowed(number, conditions) in tables.iter().copied().flatten() {
        let mut ways = vec![Vec::new()];
        for condition in *conditions {
            let tests = match *condition {
                Condition::OneOf(argument, values) => values
                    .iter()
                    .map(|value| test(argument, SeccompCmpOp::Eq, *value))
                    .collect(),
                Condition::Bits {
                    argument,
                    mask,
                    value,
                } => vec![test(argument, SeccompCmpOp::MaskedEq(mask.into()), value)],
                Condition::ThisProcess(argument) => {
                    vec![test(argument, SeccompCmpOp::Eq, std::process::id())]
                }
            };
            ways = ways
                .iter()
                .flat_map(|way| {
                    tests
                        .iter()
                        .map(|test| [&way[..], std::slice::from_ref(test)].concat())
                })
                .collect();
        }
        let rules = rules.entry(*number).or_default();
        let conditional = ways.into_iter().filter(|way| !way.is_empty());
        rules.extend(conditional.map(|way| SeccompRule::new(way).unwrap()));
    }
    let (otherwise, allowed) = (SeccompAction::Trap, SeccompAction::Allow);
    SeccompFilter::new(rules, otherwise, allowed, TargetArch::x86_64)
        .unwrap()
        .try_into()
        .unwrap()
}

fn test(argument: u8, operator: SeccompCmpOp, value: u32) -> SeccompCondition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into()).unwrap()
}

/// What a program answers, as the kernel runs it.
fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [number, arch, 0, 0].map(u32::to_le_bytes).concat();
    data.extend(arguments.map(u64::to_le_bytes).concat());
    let (mut at, mut loaded) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => {
                let from = usize::try_from(k).unwrap();
                loaded = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x54 => loaded &= k,
            0x05 => at += usize::try_from(k).unwrap(),
            0x15 => at += jump(loaded == k),
            0x35 => at += jump(loaded >= k),
            0x06 => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

/// Numbers that a condition is about, and their neighbours.
fn interesting(tables: &[&[Allowed]]) -> Vec<u64> {
    let conditions = tables.iter().copied().flatten().flat_map(|allowed| allowed.1);
    let of = |condition: &Condition| match *condition {
        Condition::OneOf(_, values) => values.to_vec(),
        Condition::Bits { mask, value, .. } => vec![mask, value, !mask, value | !mask, value | mask],
        Condition::ThisProcess(_) => vec![std::process::id()],
    };
    let mut all: Vec<u64> = vec![0, u64::MAX];
    for value in conditions.flat_map(of) {
        let value = u64::from(value);
        all.extend([value, value ^ 1, value + 1, value | 1 << 31, value | 1 << 40]);
    }
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn programs_answer_as_seccompilers_do() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for tables in TABLES {
        let (program, reference) = (compile(tables), reference(tables));
        let interesting = interesting(tables);
        let mut any = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            interesting[usize::try_from(random % interesting.len() as u64).unwrap()]
        };
        let same = |arch, number, arguments| {
            let answers = [&program, &reference].map(|program| run(program, arch, number, arguments));
            assert_eq!(answers[0], answers[1], "{arch:#x} {number} {arguments:x?}");
            answers[0]
        };
        let conditional = |number| {
            let entry = |allowed: &&Allowed| allowed.0 == i64::from(number) && !allowed.1.is_empty();
            tables.iter().copied().flatten().any(|allowed| entry(&allowed))
        };
        let mut allowed = 0;
        for number in (0..600).chain([0x4000_0001, u32::MAX]) {
            assert_eq!(same(0x4000_0003, number, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
            for argument in 0..6 {
                for value in &interesting {
                    let mut arguments = [0; 6];
                    arguments[argument] = *value;
                    allowed += u32::from(same(X86_64, number, arguments) == libc::SECCOMP_RET_ALLOW);
                }
            }
            for _ in 0..if conditional(number) { 20_000 } else { 10 } {
                same(X86_64, number, [any(), any(), any(), any(), any(), any()]);
            }
        }
        assert!(allowed > 100, "{allowed}");
    }
}

#[test]
fn programs_are_short_and_so_is_the_way_to_an_answer() {
    for tables in TABLES {
        let program = compile(tables);
        assert!((10..300).contains(&program.len()), "{}", program.len());
        assert!(program.len() < reference(tables).len());
    }
}
