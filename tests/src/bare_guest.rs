//! Guests of a few instructions, which any KVM runs: one that boots no Linux, too.

/// An ELF file that is loaded to 1 MiB and begins there with `code`, in 64-bit mode.
#[must_use]
pub fn bare_guest(code: &[u8]) -> Vec<u8> {
    let at: u64 = 0x10_0000;
    let head = 64 + 56;
    let length = code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for field in [at, 64, 0] {
        file.extend(field.to_le_bytes());
    }
    // No flags; sizes of head and program header, of which there is one; no sections.
    file.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0");
    // PT_LOAD, readable and executable: offset, addresses, lengths, alignment.
    file.extend(b"\x01\0\0\0\x05\0\0\0");
    for field in [head, at, at, length, length, 0x1000] {
        file.extend(field.to_le_bytes());
    }
    file.extend(code);
    file
}
