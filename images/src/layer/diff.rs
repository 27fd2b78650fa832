//! A directory becomes a tar stream: always the same bytes for the same tree.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::{Error, Result, shown};
use super::listing::{self, by_fd, join, tree_error};
use super::tar::{Kind, NewEntry, Time, Writer, Xattr};

/// What the tree is, hence how its overlayfs marks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// An overlayfs upper directory: device 0:0 becomes `.wh.NAME`, an opaque directory holds `.wh..wh..opq`.
    #[default]
    Layer,
    /// A whole root filesystem, such as a mounted container (`export`): no whiteouts.
    Rootfs,
}

/// Options of [`diff`].
#[derive(Debug, Clone, Default)]
pub struct DiffOptions {
    /// What the tree is.
    pub form: Form,
    /// Whether the root itself is listed, as `./`. Without it the layer says nothing about the owner and mode of `/`.
    pub list_root: bool,
    /// Paths relative to the root, without a leading slash, that are left out with all below them: mount points made
    /// for a container. Exact match.
    pub exclude: Vec<Vec<u8>>,
}

/// Writes the tree at `root` as an OCI layer tar: parents first, names of a directory sorted, times in nanoseconds, hard
/// links, xattrs, PAX records only where ustar does not reach. Mounts inside are crossed; sockets are left out. A file that shrinks
/// meanwhile is filled up with zeros. Returns the number of bytes written. `out` gets large writes.
///
/// # Errors
/// [`Error::Tree`] when the tree cannot be read, [`Error::Entry`] for a name that layers reserve, [`Error::Output`] when `out`
/// fails.
pub fn diff(root: BorrowedFd<'_>, out: impl Write, options: &DiffOptions) -> Result<u64> {
    let mut differ = Differ {
        root,
        options,
        writer: Writer::new(out),
        links: HashMap::new(),
        buffer: vec![0; 256 << 10],
    };
    if options.list_root {
        let dir = listing::open(root, b"")?;
        let stat = fs::fstat(&dir).map_err(|e| tree_error("look at", b"", e))?;
        let xattrs = differ.xattrs(&format!("/proc/self/fd/{}", dir.as_raw_fd()), b"")?;
        differ.header(b".", b"", Kind::Directory, &stat, 0, &xattrs.kept)?;
    }
    // Depth first: other readers set a directory's time when the first entry outside it comes.
    let mut open = vec![differ.directory(Vec::new())?];
    while let Some(mut current) = open.pop() {
        let Some(name) = current.names.next() else {
            continue;
        };
        let dir = match current.dir.take() {
            Some(dir) => dir,
            None => listing::open(root, &current.path)?,
        };
        let child = join(&current.path, name.to_bytes());
        let descend = differ.child(dir.as_fd(), &name, &child)?;
        // A deep tree must not use up the descriptors.
        current.dir = (open.len() < OPEN_MAX).then_some(dir);
        open.push(current);
        if descend {
            open.push(differ.directory(child)?);
        }
    }
    differ.writer.finish().map_err(Error::Output)
}

/// Directories kept open on the way down.
const OPEN_MAX: usize = 64;

/// A directory and the names in it still to be written.
struct Listing {
    path: Vec<u8>,
    names: std::vec::IntoIter<CString>,
    dir: Option<OwnedFd>,
}

struct Differ<'a, W> {
    root: BorrowedFd<'a>,
    options: &'a DiffOptions,
    writer: Writer<W>,
    /// First name of each inode with several.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

pub(crate) struct Xattrs {
    pub(crate) kept: Vec<Xattr>,
    pub(crate) opaque: bool,
}

impl<W: Write> Differ<'_, W> {
    /// Opens a directory and lists it; writes its opaque mark.
    fn directory(&mut self, path: Vec<u8>) -> Result<Listing> {
        let dir = listing::open(self.root, &path)?;
        if self.options.form == Form::Layer
            && self
                .xattrs(&format!("/proc/self/fd/{}", dir.as_raw_fd()), &path)?
                .opaque
        {
            self.mark(&join(&path, b".wh..wh..opq"))?;
        }
        let names = listing::names(&dir, &path)?;
        Ok(Listing {
            path,
            names: names.into_iter(),
            dir: Some(dir),
        })
    }

    /// Writes one entry unless it is excluded; whether to go into it.
    fn child(&mut self, dir: BorrowedFd<'_>, name: &CString, path: &[u8]) -> Result<bool> {
        if self.options.exclude.iter().any(|excluded| excluded == path) {
            return Ok(false);
        }
        if self.options.form == Form::Layer && name.to_bytes().starts_with(b".wh.") {
            let problem = "layers reserve names that begin with .wh.".to_owned();
            return Err(Error::Entry {
                entry: shown(path),
                problem,
            });
        }
        self.entry(dir, name, path)
    }

    /// Writes one entry; whether it is a directory.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CString, path: &[u8]) -> Result<bool> {
        let stat = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Removed meanwhile by the container.
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(tree_error("look at", path, e)),
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if self.options.form == Form::Layer && file_type == FileType::CharacterDevice && stat.st_rdev == 0 {
            let cut = path.len() - name.as_bytes().len();
            self.mark(&[&path[..cut], b".wh.", name.as_bytes()].concat())?;
            return Ok(false);
        }
        if file_type != FileType::Directory && file_type != FileType::Socket && stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id).cloned() {
                self.header(path, &first, Kind::HardLink, &stat, 0, &[])?;
                return Ok(false);
            }
            self.links.insert(id, path.to_vec());
        }
        let device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        let kind = match file_type {
            FileType::RegularFile => return self.file(dir, name, path).map(|()| false),
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice {
                major: device.0,
                minor: device.1,
            },
            FileType::BlockDevice => Kind::BlockDevice {
                major: device.0,
                minor: device.1,
            },
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(false),
        };
        let target = if kind == Kind::Symlink {
            fs::readlinkat(dir, name, Vec::new())
                .map_err(|e| tree_error("read symlink", path, e))?
                .into_bytes()
        } else {
            Vec::new()
        };
        let xattrs = self.xattrs_of(&by_fd(dir, name.as_bytes()), path)?;
        self.header(path, &target, kind.clone(), &stat, 0, &xattrs.kept)?;
        Ok(kind == Kind::Directory)
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &CString, path: &[u8]) -> Result<()> {
        // A container may put a FIFO in its place meanwhile: do not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match fs::openat(dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(tree_error("open file", path, e)),
        };
        let stat = fs::fstat(&file).map_err(|e| tree_error("look at", path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let xattrs = self.xattrs(&format!("/proc/self/fd/{}", file.as_raw_fd()), path)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.header(path, b"", Kind::File, &stat, size, &xattrs.kept)?;
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let got = match rustix::io::read(&file, &mut self.buffer[..want]) {
                Err(Errno::INTR) => continue,
                // The size is written already, so what the file lost meanwhile is given as zeros.
                Ok(0) => {
                    self.buffer[..want].fill(0);
                    want
                }
                other => other.map_err(|e| tree_error("read file", path, e))?,
            };
            self.writer.data(&self.buffer[..got]).map_err(Error::Output)?;
            left -= got as u64;
        }
        self.writer.pad().map_err(Error::Output)
    }

    fn mark(&mut self, path: &[u8]) -> Result<()> {
        let entry = NewEntry {
            path,
            link: b"",
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            xattrs: &[],
        };
        self.writer.header(&entry).map_err(Error::Output)
    }

    fn header(
        &mut self,
        path: &[u8],
        link: &[u8],
        kind: Kind,
        stat: &Stat,
        size: u64,
        xattrs: &[Xattr],
    ) -> Result<()> {
        let entry = NewEntry {
            path,
            link,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time {
                secs: stat.st_mtime,
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            size,
            xattrs,
        };
        self.writer.header(&entry).map_err(Error::Output)
    }

    /// Of an open file, named through its magic link.
    fn xattrs(&self, fd_path: &str, path: &[u8]) -> Result<Xattrs> {
        read_xattrs(fd_path.as_bytes(), true).map_err(|e| tree_error("read xattrs of", path, e))
    }

    fn xattrs_of(&self, by_fd: &[u8], path: &[u8]) -> Result<Xattrs> {
        read_xattrs(by_fd, false).map_err(|e| tree_error("read xattrs of", path, e))
    }
}

/// The xattrs that belong in an image, and whether overlayfs' opaque mark is set.
pub(crate) fn read_xattrs(path: &[u8], follow: bool) -> std::result::Result<Xattrs, Errno> {
    let mut xattrs = Xattrs {
        kept: Vec::new(),
        opaque: false,
    };
    // XATTR_LIST_MAX and XATTR_SIZE_MAX of linux/limits.h; most files have none, so ask with a small buffer first.
    let mut list = vec![0u8; 256];
    let size = loop {
        let got = if follow {
            fs::listxattr(path, &mut list[..])
        } else {
            fs::llistxattr(path, &mut list[..])
        };
        match got {
            Err(Errno::RANGE) if list.len() < 64 << 10 => list.resize(64 << 10, 0),
            Err(Errno::OPNOTSUPP | Errno::NOENT) => return Ok(xattrs),
            other => break other?,
        }
    };
    for name in list[..size].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        if name == b"trusted.overlay.opaque" {
            xattrs.opaque = true;
        }
        // The host's labels and overlayfs' bookkeeping mean nothing elsewhere.
        let foreign = [
            &b"trusted.overlay."[..],
            b"user.overlay.",
            b"security.selinux",
            b"security.ima",
            b"security.evm",
        ];
        if foreign.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let got = if follow {
            fs::getxattr(path, name, &mut value[..])
        } else {
            fs::lgetxattr(path, name, &mut value[..])
        };
        match got {
            Ok(size) => value.truncate(size),
            Err(Errno::NODATA) => continue,
            Err(e) => return Err(e),
        }
        xattrs.kept.push(Xattr {
            name: name.to_vec(),
            value,
        });
    }
    Ok(xattrs)
}
