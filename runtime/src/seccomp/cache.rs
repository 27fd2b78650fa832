//! Compiled filters on disk, one file per profile: `<sha256 of the profile>.bpf`.
//!
//! The directory is root's alone, and yet what is read back is proved whole: a torn or foreign file would be a container
//! without its filter.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use berth_sys::seccomp::{INSTRUCTIONS_MAX, Instruction};
use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest, Sha256};

use super::compile::{INSTRUCTION_BYTES, decode, encode};
use super::{Error, Result};

/// Changes whenever an equal profile would compile differently.
const FORMAT: &[u8] = b"berth seccomp 1\n";
const SUM_BYTES: usize = 32;
const FILE_MAX: usize = FORMAT.len() + SUM_BYTES + INSTRUCTIONS_MAX * INSTRUCTION_BYTES;

/// The name for a profile: of what decides the program, and of the libseccomp that makes it.
pub(super) fn key(seccomp: &LinuxSeccomp) -> Result<String> {
    let decides = (
        seccomp.default_action(),
        seccomp.default_errno_ret(),
        seccomp.architectures(),
        seccomp.syscalls(),
    );
    let text = serde_json::to_vec(&decides).map_err(|e| Error::invalid("syscalls", e.to_string()))?;
    let library = libseccomp::ScmpVersion::current().map_err(|source| Error::Compile {
        step: "find its version".into(),
        source,
    })?;
    let mut hash = Sha256::new();
    hash.update(FORMAT);
    hash.update(format!("{}.{}.{}\n", library.major, library.minor, library.micro));
    hash.update(text);
    Ok(hex(&hash.finalize()))
}

/// The program, if the file is root's own, unchanged and whole.
pub(super) fn read(dir: &Path, key: &str) -> Option<Vec<Instruction>> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(dir.join(format!("{key}.bpf")))
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
    let (sum, program) = rest.split_at_checked(SUM_BYTES)?;
    if checksum(key, program) != sum {
        return None;
    }
    decode(program)
}

/// Keeps the program for the next start. Failure is no error: the filter is loaded either way.
pub(super) fn write(dir: &Path, key: &str, program: &[Instruction]) {
    let _ = try_write(dir, key, program);
}

fn try_write(dir: &Path, key: &str, program: &[Instruction]) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let program = encode(program);
    // Two that compile the same profile at once each have a file; either rename is right. No fsync: a torn file fails its
    // checksum, and the directory does not outlive the boot.
    let temporary = dir.join(format!(".{key}.{}", std::process::id()));
    let result = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_CLOEXEC)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&[FORMAT, &checksum(key, &program), &program].concat()))
        .and_then(|()| std::fs::rename(&temporary, dir.join(format!("{key}.bpf"))));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// Over the key, too: the program of one profile under the name of another does not verify.
fn checksum(key: &str, program: &[u8]) -> [u8; SUM_BYTES] {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update(program);
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
