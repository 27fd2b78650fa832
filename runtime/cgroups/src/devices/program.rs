//! Device rules as a BPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! The kernel calls it with `struct bpf_cgroup_dev_ctx { access_type, major, minor }`, access in the upper half of the
//! first word and kind in the lower. Rules are tried from last to first; r3 holds the accesses not yet decided:
//!
//! ```text
//! for each rule, last first:  skip unless kind, major and minor match
//!     deny:   return 0 if it names an access still undecided
//!     allow:  drop its accesses; return 1 if none is left
//! return 0
//! ```

pub use berth_sys::bpf::Insn;

use super::rule::{Access, Rule};

// linux/bpf_common.h and linux/bpf.h: class, width, source, operation.
const LDX_MEM_W: u8 = 0x61;
const ALU32_AND_K: u8 = 0x54;
const ALU32_RSH_K: u8 = 0x74;
const ALU64_MOV_K: u8 = 0xb7;
const ALU32_MOV_X: u8 = 0xbc;
const JMP32_JNE_K: u8 = 0x56;
const JMP32_JSET_K: u8 = 0x46;
const JA: u8 = 0x05;
const EXIT: u8 = 0x95;

const RETURN: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program for `rules`.
pub fn generate(rules: &[Rule]) -> Vec<Insn> {
    let mut program = vec![
        insn(LDX_MEM_W, KIND, CONTEXT, 0, 0),
        insn(ALU32_MOV_X, ACCESS, KIND, 0, 0),
        insn(ALU32_AND_K, KIND, 0, 0, 0xffff),
        insn(ALU32_RSH_K, ACCESS, 0, 0, 16),
        insn(LDX_MEM_W, MAJOR, CONTEXT, 4, 0),
        insn(LDX_MEM_W, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
        // Nothing before a rule about everything is ever reached, and the verifier rejects dead code.
        if rule.is_everything() {
            return program;
        }
    }
    program.extend(verdict(false));
    program
}

/// One rule. Its jumps lead to the instruction after it.
fn block(rule: &Rule) -> Vec<Insn> {
    let matches = [
        rule.nodes.kind.map(|kind| (KIND, kind as u32)),
        rule.nodes.major.map(|major| (MAJOR, major)),
        rule.nodes.minor.map(|minor| (MINOR, minor)),
    ];
    let decision = match (rule.allow, rule.access == Access::ALL) {
        (allow, true) => verdict(allow).to_vec(),
        (true, false) => {
            let mut decision = vec![
                insn(
                    ALU32_AND_K,
                    ACCESS,
                    0,
                    0,
                    i32::from(!rule.access.0 & Access::ALL.0),
                ),
                insn(JMP32_JNE_K, ACCESS, 0, 2, 0),
            ];
            decision.extend(verdict(true));
            decision
        }
        (false, false) => {
            let mut decision = vec![
                insn(JMP32_JSET_K, ACCESS, 0, 1, i32::from(rule.access.0)),
                insn(JA, 0, 0, 2, 0),
            ];
            decision.extend(verdict(false));
            decision
        }
    };
    let conditions = matches.iter().flatten().count();
    let length = conditions + decision.len();
    let mut block = Vec::with_capacity(length);
    for (register, value) in matches.into_iter().flatten() {
        // At most 3 conditions and 4 instructions to jump over.
        let to_end = i16::try_from(length - block.len() - 1).unwrap_or(i16::MAX);
        block.push(insn(JMP32_JNE_K, register, 0, to_end, value.cast_signed()));
    }
    block.extend(decision);
    block
}

fn verdict(allow: bool) -> [Insn; 2] {
    [
        insn(ALU64_MOV_K, RETURN, 0, 0, i32::from(allow)),
        insn(EXIT, 0, 0, 0, 0),
    ]
}

fn insn(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Insn {
    Insn {
        code,
        registers: source << 4 | destination,
        offset,
        immediate,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{Kind, reference, strategy};
    use super::*;
    use proptest::prelude::*;

    /// Runs the subset of BPF that `generate` emits, after Documentation/bpf/standardization/instruction-set.rst.
    fn run(program: &[Insn], kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        let context = [u32::from(access.0) << 16 | kind as u32, major, minor];
        let mut registers = [0u32; 6];
        let mut at = 0usize;
        loop {
            let Insn {
                code,
                registers: pair,
                offset,
                immediate,
            } = program[at];
            let destination = usize::from(pair & 15);
            let source = usize::from(pair >> 4);
            let skip = usize::try_from(offset).unwrap();
            let value = immediate.cast_unsigned();
            at += 1;
            match code {
                LDX_MEM_W => registers[destination] = context[skip / 4],
                ALU32_MOV_X => registers[destination] = registers[source],
                ALU64_MOV_K => registers[destination] = value,
                ALU32_AND_K => registers[destination] &= value,
                ALU32_RSH_K => registers[destination] >>= value,
                JMP32_JNE_K if registers[destination] != value => at += skip,
                JMP32_JSET_K if registers[destination] & value != 0 => at += skip,
                JMP32_JNE_K | JMP32_JSET_K => {}
                JA => at += skip,
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_do(rules in strategy::rules()) {
            let program = generate(&rules);
            for (kind, major, minor, access) in strategy::questions() {
                prop_assert_eq!(
                    run(&program, kind, major, minor, access),
                    reference(&rules, kind, major, minor, access),
                    "{:?} {}:{} {:?}", kind, major, minor, access
                );
            }
        }
    }
}
