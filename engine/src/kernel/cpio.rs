//! An initial file system as the kernel unpacks it: a cpio archive of the form
//! `Documentation/driver-api/early-userspace/buffer-format.rst` calls "newc". Everything belongs to root and to 1970.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive being written. Parents come before what is in them.
pub(super) struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// A file with the permission bits `mode`.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | mode, content)
    }

    /// Ends the archive and gives back what it was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
        self.inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        write!(self.out, "070701")?;
        // Inode, mode, uid, gid, links, time, size, device, device of a node, size of the name, no checksum.
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(6 + 8 * fields.len() + path.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// Names and contents end at multiples of four bytes.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_what_is_written() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("lib").unwrap();
        for len in 0..9 {
            let name = format!("lib/{}", "n".repeat(len + 1));
            archive.file(&name, 0o640, &vec![b'x'; len]).unwrap();
        }
        archive.file("init", 0o755, b"a program").unwrap();
        let bytes = archive.finish().unwrap();
        let tmp = tempfile::tempdir().unwrap();
        let Ok(mut reader) = Command::new("cpio")
            .args(["-idm", "--quiet"])
            .current_dir(tmp.path())
            .stdin(Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: no cpio");
            return;
        };
        reader.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(reader.wait().unwrap().success());
        for len in 0..9 {
            let path = tmp.path().join(format!("lib/{}", "n".repeat(len + 1)));
            assert_eq!(std::fs::read(&path).unwrap().len(), len);
            assert_eq!(
                std::fs::metadata(path).unwrap().permissions().mode() & 0o7777,
                0o640
            );
        }
        assert_eq!(std::fs::read(tmp.path().join("init")).unwrap(), b"a program");
    }
}
