//! The guest's first files, as a cpio archive in the form `Documentation/driver-api/early-userspace/buffer-format.rst`
//! describes ("newc").

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive being written. Everything in it belongs to root.
pub struct Initramfs<W> {
    out: W,
    directories: HashSet<String>,
    inode: u32,
}

impl Initramfs<BufWriter<File>> {
    /// Starts the archive `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::new(BufWriter::with_capacity(1 << 20, File::create(path)?)))
    }
}

impl<W: Write> Initramfs<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            directories: HashSet::new(),
            inode: 1,
        }
    }

    /// Adds a directory and those above it, each once.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let part = &path[..end];
            if !part.is_empty() && self.directories.insert(part.to_owned()) {
                self.header(part, DIRECTORY | 0o755, 0)?;
            }
        }
        Ok(())
    }

    /// Adds the file `path` with the permission bits `mode`.
    pub fn bytes(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.content(path, mode, content.len() as u64, content)
    }

    /// Adds a copy of the host's file `from` as `path`.
    pub fn file(&mut self, path: &str, mode: u32, from: &Path) -> io::Result<()> {
        let file = File::open(from)?;
        let length = file.metadata()?.len();
        self.content(path, mode, length, file)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.header("TRAILER!!!", 0, 0)?;
        self.out.flush()
    }

    fn content(&mut self, path: &str, mode: u32, length: u64, from: impl Read) -> io::Result<()> {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent)?;
        }
        self.header(path, REGULAR | mode, length)?;
        let copied = io::copy(&mut from.take(length), &mut self.out)?;
        if copied != length {
            return Err(io::Error::other(format!("{path} shrank while it was copied")));
        }
        self.pad(length)
    }

    fn header(&mut self, name: &str, mode: u32, length: u64) -> io::Result<()> {
        let length = u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let name_length = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        write!(self.out, "070701")?;
        let links = 1 + u32::from(mode & DIRECTORY != 0);
        // Inode, mode, uid, gid, links, mtime, length, device, special device, length of the name, checksum (unused).
        for field in [
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            length,
            0,
            0,
            0,
            0,
            name_length,
            0,
        ] {
            write!(self.out, "{field:08x}")?;
        }
        self.inode += 1;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(110 + u64::from(name_length))
    }

    /// Headers and contents start at multiples of four.
    fn pad(&mut self, written: u64) -> io::Result<()> {
        let missing = written.wrapping_neg() & 3;
        io::copy(&mut io::repeat(0).take(missing), &mut self.out).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_what_is_written() {
        let work = tempfile::tempdir().unwrap();
        let archive = work.path().join("archive");
        let mut writer = Initramfs::create(&archive).unwrap();
        writer.directory("/a/b").unwrap();
        writer.bytes("/a/b/five", 0o640, b"12345").unwrap();
        writer.bytes("a/empty", 0o755, b"").unwrap();
        writer
            .file("/lib/copy", 0o600, &std::env::current_exe().unwrap())
            .unwrap();
        writer.finish().unwrap();
        let status = Command::new("busybox")
            .args(["cpio", "-idm", "-F"])
            .arg(&archive)
            .current_dir(work.path())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(std::fs::read(work.path().join("a/b/five")).unwrap(), b"12345");
        assert_eq!(std::fs::read(work.path().join("a/empty")).unwrap(), b"");
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(std::fs::read(work.path().join("lib/copy")).unwrap() == own);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &str| {
            std::fs::metadata(work.path().join(path))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("a/b/five") & 0o7777, 0o640);
        assert_eq!(mode("a") & 0o7777, 0o755);
    }
}
