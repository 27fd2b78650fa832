//! Files of a container in a guest: a process of the guest's PID 1 reads or writes a tar, and paths are resolved there.
//!
//! What comes from a guest is unpacked into a directory of its own first, as any archive of a stranger's; from there the rules of
//! `cp` are those of any other copy.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use berth_copy::{Landing, Options, Rootfs, There, landing, names_contents};
use berth_guest::protocol::{self, Found, ProcessId, Reply, Request, Stream, Way};

use super::{exec, failed, guest, out_of_turn};
use crate::error::{At, Error, Result};
use crate::id::ContainerId;
use crate::paths::Paths;

/// The most that a guest's words about a failure are read.
const WORDS_MAX: u64 = 4096;
const BUFFER: usize = 64 << 10;

/// A running container's files.
pub(crate) struct Guest {
    run_dir: PathBuf,
    /// Where what comes is unpacked first: it may be large.
    place: PathBuf,
}

impl Guest {
    pub(crate) fn of(paths: &Paths, id: &ContainerId) -> Guest {
        Guest {
            run_dir: paths.run_dir(id),
            place: paths.container(id).join(format!("copy-{}", std::process::id())),
        }
    }

    pub(crate) fn copy_from(&self, source: &Path, target: &Path, options: Options) -> Result<()> {
        let staging = Staging::new(&self.place)?;
        let process = self.start(source, out(options))?;
        process.read(|archive| {
            let root = Rootfs::of_directory(&staging.0)?;
            berth_copy::read_archive(&root, Path::new("/"), archive, kept())
        })?;
        let root = Rootfs::of_directory(&staging.0)?;
        let name = match source.file_name() {
            Some(name) if !names_contents(source) => Path::new("/").join(name),
            _ => PathBuf::from("/."),
        };
        Ok(berth_copy::from_container(&root, &name, target, options)?)
    }

    pub(crate) fn copy_into(&self, source: &Path, target: &Path, options: Options) -> Result<()> {
        let follow = options.follow || names_contents(source);
        let kind = if follow {
            std::fs::metadata(source)
        } else {
            std::fs::symlink_metadata(source)
        };
        let is_dir = kind.at("open", source)?.is_dir();
        let there = self.look(target)?;
        let (directory, name) = match landing(source, is_dir, target, there)? {
            Landing::Contents(directory) => (directory, Path::new(".")),
            Landing::As(directory, name) => (directory, Path::new(name)),
        };
        let process = self.start(directory, into(options))?;
        process.write(|archive| berth_copy::write_as(source, follow, name, archive))
    }

    pub(crate) fn write_archive(&self, source: &Path, out_to: impl Write, options: Options) -> Result<()> {
        self.pass(self.start(source, out(options))?, out_to)
    }

    pub(crate) fn export(&self, out_to: impl Write) -> Result<()> {
        self.pass(self.start(Path::new("/"), Way::OutOfRoot)?, out_to)
    }

    fn pass(&self, process: Copying, mut out: impl Write) -> Result<()> {
        process.read(|archive| {
            io::copy(archive, &mut out)
                .and_then(|_| out.flush())
                .map_err(|source| berth_copy::Error::Archive {
                    operation: "write",
                    source,
                })
        })
    }

    pub(crate) fn read_archive(&self, target: &Path, mut input: impl Read, options: Options) -> Result<()> {
        let process = self.start(target, into(options))?;
        process.write(|archive| {
            io::copy(&mut input, archive)
                .map(drop)
                .map_err(|source| berth_copy::Error::Archive {
                    operation: "read",
                    source,
                })
        })
    }

    fn look(&self, path: &Path) -> Result<There> {
        let path = text(path)?;
        let mut client = guest::client(&self.run_dir).map_err(failed)?;
        match client.call(&Request::Look { path }) {
            Ok(Reply::Found(Found::Directory)) => Ok(There::Directory),
            Ok(Reply::Found(Found::Other)) => Ok(There::Other),
            Ok(Reply::Found(Found::Nothing)) => Ok(There::Nothing),
            Ok(other) => Err(out_of_turn(&other)),
            Err(e) => Err(failed(e.into())),
        }
    }

    fn start(&self, path: &Path, way: Way) -> Result<Copying> {
        let path = text(path)?;
        let mut client = guest::client(&self.run_dir).map_err(failed)?;
        let id = match client.call(&Request::Copy(protocol::Copy { path, way })) {
            Ok(Reply::Execed { process, .. }) => process,
            Ok(other) => return Err(out_of_turn(&other)),
            Err(e) => return Err(failed(e.into())),
        };
        let attach = |stream| guest::attach(&self.run_dir, id, stream).map_err(failed);
        let archive = match way {
            Way::Into { .. } => Stream::Stdin,
            Way::Out { .. } | Way::OutOfRoot => Stream::Stdout,
        };
        Ok(Copying {
            run_dir: self.run_dir.clone(),
            id,
            archive: attach(archive)?,
            words: attach(Stream::Stderr)?,
        })
    }
}

fn out(options: Options) -> Way {
    Way::Out {
        follow: options.follow,
    }
}

fn into(options: Options) -> Way {
    Way::Into {
        owners: options.archive,
    }
}

/// As they were in the guest, until they are copied on.
fn kept() -> Options {
    Options {
        archive: true,
        follow: false,
    }
}

fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Unsupported {
            what: format!("path {} in a microVM", path.display()),
            why: "it is not UTF-8".into(),
        })
}

/// The guest's process, and its streams.
struct Copying {
    run_dir: PathBuf,
    id: ProcessId,
    archive: UnixStream,
    words: UnixStream,
}

impl Copying {
    /// Reads what it writes. What the guest says of a failure comes before what is wrong with half an archive.
    fn read(self, work: impl FnOnce(&mut dyn Read) -> Result<(), berth_copy::Error>) -> Result<()> {
        let mut archive = BufReader::with_capacity(BUFFER, &self.archive);
        let done = work(&mut archive);
        if done.is_ok() {
            // What follows the end of the archive is padding.
            let _ = io::copy(&mut archive.take(1 << 20), &mut io::sink());
        }
        // Otherwise it would wait to be read for ever.
        let _ = self.archive.shutdown(Shutdown::Both);
        self.end(done)
    }

    /// Writes what it reads.
    fn write(self, work: impl FnOnce(&mut dyn Write) -> Result<(), berth_copy::Error>) -> Result<()> {
        let mut archive = BufWriter::with_capacity(BUFFER, &self.archive);
        let done = work(&mut archive).and_then(|()| {
            archive.flush().map_err(|source| berth_copy::Error::Archive {
                operation: "write",
                source,
            })
        });
        drop(archive);
        // Half an archive is to be seen as one: its end is told only when it is whole.
        let end = if done.is_ok() {
            Shutdown::Write
        } else {
            Shutdown::Both
        };
        let _ = self.archive.shutdown(end);
        self.end(done)
    }

    fn end(self, done: Result<(), berth_copy::Error>) -> Result<()> {
        let mut words = Vec::new();
        let _ = (&self.words).take(WORDS_MAX).read_to_end(&mut words);
        let code = exec::wait(&self.run_dir, self.id)?;
        let words = String::from_utf8_lossy(&words).replace(|c: char| c.is_control(), "?");
        match (code, done) {
            (0, done) => Ok(done?),
            (_, Err(e)) if words.is_empty() => Err(e.into()),
            (_, _) if words.is_empty() => Err(Error::MicroVm {
                why: format!("the copy ended with {code}"),
            }),
            _ => Err(Error::InGuest { why: words }),
        }
    }
}

/// A directory that goes again.
struct Staging(PathBuf);

impl Staging {
    fn new(path: &Path) -> Result<Staging> {
        // Of a process that had our number before us and was killed.
        let _ = std::fs::remove_dir_all(path);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(path)
            .at("create", path)?;
        Ok(Staging(path.to_owned()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays goes with the container.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
