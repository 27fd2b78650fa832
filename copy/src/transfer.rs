//! `berth cp`: docker's rules for what SRC and DST mean, over the tree walk and the archive.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat};
use rustix::io::Errno;

use super::rooted::{Rootfs, open_error, resolve_in_root, split};
use super::tree::{Owner, Walk, reopen};
use super::{Error, archive};

/// How to copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Keep owners (`-a`); otherwise what goes in belongs to root and what comes out to the caller.
    pub archive: bool,
    /// Follow a symlink that SRC itself is (`-L`).
    pub follow: bool,
}

/// Copies `source` in the container to `target` on this host.
pub fn from_container(rootfs: &Rootfs, source: &Path, target: &Path, options: Options) -> Result<(), Error> {
    let pinned = pin(rootfs, source, options.follow)?;
    let owner = if options.archive {
        Owner::Kept
    } else {
        Owner::Set(
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    };
    let open = |path: &Path| {
        rustix::fs::openat(
            CWD,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    place(pinned, source, target, owner, open)
}

/// Copies `source` on this host to `target` in the container.
pub fn into_container(rootfs: &Rootfs, source: &Path, target: &Path, options: Options) -> Result<(), Error> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if !options.follow && !names_contents(source) {
        flags |= OFlags::NOFOLLOW;
    }
    let pinned = rustix::fs::open(source, flags, Mode::empty()).map_err(|e| open_error(source, e))?;
    let owner = if options.archive {
        Owner::Kept
    } else {
        Owner::Set(0, 0)
    };
    let open = |path: &Path| resolve_in_root(rootfs.as_dir(), path, OFlags::PATH | OFlags::DIRECTORY);
    place(pinned, source, target, owner, open)
}

/// Writes `source` of the container to `out` as a tar, under its last name.
pub fn write_archive(rootfs: &Rootfs, source: &Path, out: impl Write, options: Options) -> Result<(), Error> {
    let pinned = pin(rootfs, source, options.follow)?;
    let name = if names_contents(source) {
        Path::new(".")
    } else {
        Path::new(source.file_name().unwrap_or(OsStr::new(".")))
    };
    archive::write(pinned, name, out)
}

/// Unpacks the tar `input` into the directory `target` of the container.
pub fn read_archive(rootfs: &Rootfs, target: &Path, input: impl Read, options: Options) -> Result<(), Error> {
    let dir = resolve_in_root(rootfs.as_dir(), target, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|e| open_error(target, e))?;
    archive::read(dir.as_fd(), input, options.archive)
}

fn pin(rootfs: &Rootfs, source: &Path, follow: bool) -> Result<OwnedFd, Error> {
    rootfs
        .resolve(source, follow || names_contents(source))
        .map_err(|e| open_error(source, e))
}

/// `dir/.` asks for the content of `dir`, and so does `/`, which has no name.
#[must_use]
pub fn names_contents(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes == b"." || bytes.ends_with(b"/.") || path.file_name().is_none()
}

/// What is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// A directory.
    Directory,
    /// Anything else.
    Other,
    /// Nothing.
    Nothing,
}

/// Where a copy goes on the target's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing<'a> {
    /// What the source directory holds goes into this one.
    Contents(&'a Path),
    /// The source goes into this directory, under this name.
    As(&'a Path, &'a OsStr),
}

/// docker's table of source kind against what is at the target.
///
/// # Errors
///
/// [`Error::Shape`] for what does not fit.
pub fn landing<'a>(
    source: &'a Path,
    is_dir: bool,
    target: &'a Path,
    there: There,
) -> Result<Landing<'a>, Error> {
    let shape = |reason| {
        Err(Error::Shape {
            path: target.to_owned(),
            reason,
        })
    };
    let wants_dir = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    match there {
        There::Directory if is_dir && names_contents(source) => Ok(Landing::Contents(target)),
        There::Directory => match source.file_name() {
            Some(name) => Ok(Landing::As(target, name)),
            None => shape("the source has no name to copy it under"),
        },
        There::Other if is_dir => shape("cannot copy a directory to a file"),
        There::Nothing if wants_dir && !is_dir => shape("destination directory does not exist"),
        There::Nothing | There::Other => match split(target) {
            Some((parent, name)) => Ok(Landing::As(parent, name)),
            None => shape("destination has no name"),
        },
    }
}

fn place(
    pinned: OwnedFd,
    source: &Path,
    target: &Path,
    owner: Owner,
    open: impl Fn(&Path) -> rustix::io::Result<OwnedFd>,
) -> Result<(), Error> {
    let stat = fstat(&pinned).map_err(|e| open_error(source, e))?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let (there, found) = match open(target) {
        Ok(dir) => (There::Directory, Some(dir)),
        Err(Errno::NOTDIR) => (There::Other, None),
        Err(Errno::NOENT) => (There::Nothing, None),
        Err(e) => return Err(open_error(target, e)),
    };
    let opened = |dir: &Path| match found {
        Some(found) => Ok(found),
        None => open(dir).map_err(|e| open_error(dir, e)),
    };
    let mut walk = Walk::new(owner);
    match landing(source, is_dir, target, there)? {
        Landing::Contents(dir) => {
            let from =
                reopen(&pinned, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| open_error(source, e))?;
            walk.contents(from.as_fd(), opened(dir)?.as_fd(), target, 0)
        }
        Landing::As(dir, name) => walk.pinned(pinned, opened(dir)?.as_fd(), name, &dir.join(name), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn world() -> (tempfile::TempDir, Rootfs) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("rootfs/etc")).unwrap();
        fs::create_dir_all(dir.path().join("host")).unwrap();
        let rootfs = Rootfs::of_directory(&dir.path().join("rootfs")).unwrap();
        (dir, rootfs)
    }

    #[test]
    fn files_and_directories_land_where_docker_puts_them() {
        let (dir, rootfs) = world();
        let (host, root) = (dir.path().join("host"), dir.path().join("rootfs"));
        fs::write(host.join("f"), "1").unwrap();
        fs::create_dir(host.join("d")).unwrap();
        fs::write(host.join("d/g"), "2").unwrap();
        let put = |s: &str, t: &str| into_container(&rootfs, &host.join(s), Path::new(t), Options::default());
        put("f", "/etc").unwrap();
        put("f", "/etc/new").unwrap();
        put("d", "/etc").unwrap();
        put("d", "/fresh").unwrap();
        put("d/.", "/etc").unwrap();
        for (path, content) in [
            ("etc/f", "1"),
            ("etc/new", "1"),
            ("etc/d/g", "2"),
            ("fresh/g", "2"),
            ("etc/g", "2"),
        ] {
            assert_eq!(fs::read_to_string(root.join(path)).unwrap(), content, "{path}");
        }
        assert!(matches!(put("f", "/absent/"), Err(Error::Shape { .. })));
        assert!(matches!(put("d", "/etc/f"), Err(Error::Shape { .. })));
        from_container(
            &rootfs,
            Path::new("/etc/d"),
            &host.join("out"),
            Options::default(),
        )
        .unwrap();
        assert_eq!(fs::read_to_string(host.join("out/g")).unwrap(), "2");
    }

    #[test]
    fn links_in_the_container_lead_nowhere_else() {
        let (dir, rootfs) = world();
        let (host, root) = (dir.path().join("host"), dir.path().join("rootfs"));
        fs::write(host.join("secret"), "host").unwrap();
        fs::write(host.join("f"), "new").unwrap();
        symlink(&host, root.join("abs")).unwrap();
        symlink("../../../../../../../../../../..", root.join("up")).unwrap();
        let secret = Path::new("/abs/secret");
        assert!(from_container(&rootfs, secret, &host.join("got"), Options::default()).is_err());
        assert!(into_container(&rootfs, &host.join("f"), secret, Options::default()).is_err());
        into_container(
            &rootfs,
            &host.join("f"),
            Path::new("/up/placed"),
            Options::default(),
        )
        .unwrap();
        assert_eq!(fs::read_to_string(root.join("placed")).unwrap(), "new");
        assert_eq!(fs::read_to_string(host.join("secret")).unwrap(), "host");
    }

    #[test]
    fn a_link_below_the_destination_is_replaced_not_followed() {
        let (dir, rootfs) = world();
        let (host, root) = (dir.path().join("host"), dir.path().join("rootfs"));
        fs::write(host.join("secret"), "host").unwrap();
        fs::create_dir(host.join("d")).unwrap();
        fs::write(host.join("d/x"), "new").unwrap();
        symlink(host.join("secret"), root.join("etc/x")).unwrap();
        into_container(&rootfs, &host.join("d/."), Path::new("/etc"), Options::default()).unwrap();
        assert_eq!(fs::read_to_string(host.join("secret")).unwrap(), "host");
        assert_eq!(fs::read_to_string(root.join("etc/x")).unwrap(), "new");
    }

    #[test]
    fn archives_go_both_ways() {
        let (dir, rootfs) = world();
        let root = dir.path().join("rootfs");
        fs::create_dir(root.join("etc/d")).unwrap();
        fs::write(root.join("etc/d/f"), "data").unwrap();
        fs::hard_link(root.join("etc/d/f"), root.join("etc/d/g")).unwrap();
        symlink("f", root.join("etc/d/l")).unwrap();
        let mut bytes = Vec::new();
        write_archive(&rootfs, Path::new("/etc/d"), &mut bytes, Options::default()).unwrap();
        fs::create_dir(root.join("out")).unwrap();
        read_archive(&rootfs, Path::new("/out"), bytes.as_slice(), Options::default()).unwrap();
        assert_eq!(fs::read_to_string(root.join("out/d/g")).unwrap(), "data");
        assert_eq!(fs::read_link(root.join("out/d/l")).unwrap(), Path::new("f"));
    }

    #[test]
    fn an_archive_cannot_leave_the_destination() {
        let (dir, rootfs) = world();
        let root = dir.path().join("rootfs");
        fs::create_dir(root.join("out")).unwrap();
        let evil = |name: &str, link: Option<&str>| {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_mode(0o644);
            header.set_size(0);
            if let Some(link) = link {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name_literal(link).unwrap();
            }
            header.set_cksum();
            header
        };
        for headers in [
            vec![evil("../escaped", None)],
            vec![evil("/tmp/../../escaped", None)],
            vec![evil("link", Some("/")), evil("link/escaped", None)],
            vec![evil("link", Some("..")), evil("link/escaped", None)],
        ] {
            let mut builder = tar::Builder::new(Vec::new());
            for header in &headers {
                builder.append(header, std::io::empty()).unwrap();
            }
            let bytes = builder.into_inner().unwrap();
            let result = read_archive(&rootfs, Path::new("/out"), bytes.as_slice(), Options::default());
            assert!(result.is_err(), "{headers:?}");
            assert!(!dir.path().join("escaped").exists() && !root.join("escaped").exists());
            fs::remove_file(root.join("out/link")).ok();
        }
    }
}
