//! Compiled filters on disk, one file per profile: `<sha256 of the profile>.bpf`.
//!
//! ```text
//! "berth seccomp 2\n"   sha256 of the name and all that follows   "libseccomp 2.5.4\n"   the program
//! ```
//!
//! The directory is root's alone, and yet what is read back is proved whole: a torn or foreign file would be a container
//! without its filter.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use berth_sys::seccomp::{INSTRUCTIONS_MAX, Instruction};
use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest, Sha256};

use super::bytes::{INSTRUCTION_BYTES, decode};
use super::{Error, Result};

/// Changes with the form of the file and with what of a profile decides the program.
pub(super) const FORMAT: &[u8] = b"berth seccomp 2\n";
const SUM_BYTES: usize = 32;
/// Longest line that names the compiler.
const COMPILER_MAX: usize = 64;
const FILE_MAX: usize = FORMAT.len() + SUM_BYTES + COMPILER_MAX + INSTRUCTIONS_MAX * INSTRUCTION_BYTES;

/// The name for a profile: of what decides the program.
pub(super) fn key(seccomp: &LinuxSeccomp) -> Result<String> {
    let decides = (
        seccomp.default_action(),
        seccomp.default_errno_ret(),
        seccomp.architectures(),
        seccomp.syscalls(),
    );
    let text = serde_json::to_vec(&decides).map_err(|e| Error::invalid("syscalls", e.to_string()))?;
    let mut hash = Sha256::new();
    hash.update(FORMAT);
    hash.update(text);
    Ok(hex(&hash.finalize()))
}

/// The name of a profile's file.
pub(super) fn file_name(key: &str) -> String {
    format!("{key}.bpf")
}

/// The program, if the file is root's own, unchanged and whole, and made by `compiler`; by any, if none is given.
pub(super) fn read(dir: &Path, key: &str, compiler: Option<&str>) -> Option<Vec<Instruction>> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(dir.join(file_name(key)))
        .ok()?;
    let meta = file.metadata().ok()?;
    let size = usize::try_from(meta.len()).ok()?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw();
    if !meta.is_file() || !ours || meta.mode() & 0o077 != 0 || size > FILE_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(size);
    file.take(FILE_MAX as u64).read_to_end(&mut bytes).ok()?;
    let rest = bytes.strip_prefix(FORMAT)?;
    let (sum, content) = rest.split_at_checked(SUM_BYTES)?;
    if checksum(key, content) != sum {
        return None;
    }
    let end = content.iter().position(|b| *b == b'\n')?;
    let (made_by, program) = content.split_at(end);
    if compiler.is_some_and(|c| c.as_bytes() != made_by) {
        return None;
    }
    decode(&program[1..])
}

/// Over the key, too: the program of one profile under the name of another does not verify.
pub(super) fn checksum(key: &str, content: &[u8]) -> [u8; SUM_BYTES] {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update(content);
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
