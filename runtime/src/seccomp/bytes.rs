//! A program as bytes: what libseccomp exports, and what is kept in files.

use berth_sys::seccomp::{INSTRUCTIONS_MAX, Instruction};

/// Bytes of one instruction: code, jt, jf, k.
pub(super) const INSTRUCTION_BYTES: usize = 8;

/// Instructions from their native bytes; `None` if the length is not that of a program the kernel would take.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let (chunks, rest) = bytes.as_chunks::<INSTRUCTION_BYTES>();
    if !rest.is_empty() || chunks.is_empty() || chunks.len() > INSTRUCTIONS_MAX {
        return None;
    }
    let one = |c: &[u8; INSTRUCTION_BYTES]| Instruction {
        code: u16::from_ne_bytes([c[0], c[1]]),
        jt: c[2],
        jf: c[3],
        k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
    };
    Some(chunks.iter().map(one).collect())
}
