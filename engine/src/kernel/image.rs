//! A kernel file: whether it is one, and its release, which is what `uname -r` says and the name of its modules directory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::error::{At, Error};

/// Bytes of a file looked at together.
const WINDOW: usize = 1 << 20;
/// `init/version.c`: what every kernel has in it.
const BANNER: &[u8] = b"Linux version ";
/// Longest release with the banner before it.
const BANNER_MAX: usize = 512;

/// The release of the kernel in `file`, which is called `path`: a bzImage's header or a vmlinux's banner tells.
pub(super) fn release(file: &File, path: &Path) -> Result<String, Error> {
    let mut head = vec![0; 64 << 10];
    let len = read(file, &mut head, 0).at("read", path)?;
    head.truncate(len);
    let no = |why| Error::NotKernel {
        path: path.to_owned(),
        why,
    };
    if head.get(0x202..0x206) == Some(b"HdrS") {
        return bzimage(&head).ok_or_else(|| no("its header tells no version"));
    }
    // 64-bit, little-endian, x86-64.
    if head.get(..6) != Some(b"\x7fELF\x02\x01") || head.get(0x12..0x14) != Some(&[62, 0]) {
        return Err(no("neither a bzImage nor an ELF file for x86-64"));
    }
    vmlinux(file)
        .at("read", path)?
        .ok_or_else(|| no("an ELF file, but not of Linux"))
}

/// `kernel_version` of the real-mode header (Documentation/arch/x86/boot.rst): where a text stands, less 0x200.
fn bzimage(head: &[u8]) -> Option<String> {
    let pointer = u16::from_le_bytes(head.get(0x20e..0x210)?.try_into().ok()?);
    if pointer == 0 {
        return None;
    }
    first_word(head.get(usize::from(pointer) + 0x200..)?)
}

fn vmlinux(file: &File) -> io::Result<Option<String>> {
    let mut window = vec![0; WINDOW];
    let mut offset = 0;
    loop {
        let len = read(file, &mut window, offset)?;
        let found = window[..len]
            .windows(BANNER.len())
            .enumerate()
            .filter(|(_, bytes)| *bytes == BANNER)
            .find_map(|(at, _)| first_word(&window[at + BANNER.len()..len]));
        if found.is_some() || len < WINDOW {
            return Ok(found);
        }
        // The banner may lie across the end.
        offset += (WINDOW - BANNER_MAX) as u64;
    }
}

/// What stands before the first blank, if that is a release: no more than its characters, and a number first.
fn first_word(text: &[u8]) -> Option<String> {
    let end = text
        .iter()
        .take(BANNER_MAX - BANNER.len())
        .position(|&b| b == b' ')?;
    let word = std::str::from_utf8(&text[..end]).ok()?;
    let is_release = word.starts_with(|c: char| c.is_ascii_digit())
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.+~-".contains(&b));
    is_release.then(|| word.to_owned())
}

/// Reads until `buffer` is full or the file ends.
fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(got) => len += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<String, String> {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("kernel");
        std::fs::write(&path, bytes).unwrap();
        release(&File::open(&path).unwrap(), &path).map_err(|e| e.to_string())
    }

    fn elf(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[0x12] = 62;
        bytes
    }

    #[test]
    fn a_bzimage_tells_its_release_in_the_header() {
        let mut image = vec![0; 0x4000];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x3000u16.to_le_bytes());
        image[0x3200..0x3210].copy_from_slice(b"6.1.0-9-amd64 (m");
        assert_eq!(of(&image).unwrap(), "6.1.0-9-amd64");
        for pointer in [0, 0xffffu16] {
            image[0x20e..0x210].copy_from_slice(&pointer.to_le_bytes());
            assert!(of(&image).unwrap_err().ends_with("its header tells no version"));
        }
    }

    #[test]
    fn a_vmlinux_tells_it_in_its_banner_wherever_that_is() {
        for at in [4096, WINDOW - 5, WINDOW - BANNER_MAX, 2 * WINDOW + 77] {
            let mut image = elf(3 * WINDOW);
            // A format string comes first in real kernels.
            image[100..116].copy_from_slice(b"Linux version %s");
            image[at..at + 26].copy_from_slice(b"Linux version 6.12.1+deb (");
            assert_eq!(of(&image).unwrap(), "6.12.1+deb", "at {at}");
        }
    }

    #[test]
    fn what_is_no_kernel_is_told_so() {
        for bytes in [&b""[..], b"#!/bin/sh\n", &[0; 5000]] {
            assert!(of(bytes).unwrap_err().contains("neither a bzImage"));
        }
        assert!(of(&elf(5000)).unwrap_err().ends_with("not of Linux"));
    }
}
