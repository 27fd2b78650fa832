//! Writing what [`super::cache`] reads: the half that only a program with a compiler needs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use berth_sys::seccomp::Instruction;

use super::bytes::INSTRUCTION_BYTES;
use super::cache::{FORMAT, checksum, file_name};

/// What the file of a program holds.
pub(super) fn contents(key: &str, compiler: &str, program: &[Instruction]) -> Vec<u8> {
    let content = [compiler.as_bytes(), b"\n", &encode(program)].concat();
    [FORMAT, &checksum(key, &content), &content].concat()
}

/// Keeps the program for the next start. Failure is no error: the filter is loaded either way.
pub(super) fn write(dir: &Path, key: &str, contents: &[u8]) {
    let _ = try_write(dir, key, contents);
}

fn try_write(dir: &Path, key: &str, contents: &[u8]) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    // Two that compile the same profile at once each have a file; either rename is right. No fsync: a torn file fails its
    // checksum, and the directory does not outlive the boot.
    let temporary = dir.join(format!(".{key}.{}", std::process::id()));
    let result = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_CLOEXEC)
        .open(&temporary)
        .and_then(|mut file| file.write_all(contents))
        .and_then(|()| std::fs::rename(&temporary, dir.join(file_name(key))));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// The inverse of [`super::bytes::decode`].
pub(super) fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * INSTRUCTION_BYTES);
    for i in program {
        bytes.extend(i.code.to_ne_bytes());
        bytes.extend([i.jt, i.jf]);
        bytes.extend(i.k.to_ne_bytes());
    }
    bytes
}
