//! Device nodes and links of `/dev` (runtime-spec config-linux.md#default-devices, runtime-linux.md#dev-symbolic-links).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDeviceType};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, makedev, mknodat, openat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::mounts::attach_fd;
use super::plan::invalid;
use super::resolve::{Place, open_or_create, open_parent, place};
use super::{Error, Plan, Result};

/// A node to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    path: PathBuf,
    kind: FileType,
    /// Major and minor as `makedev` joins them; 0 for a fifo.
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Every container has these, all of major 1 but the last.
const DEFAULT: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Checks the spec's devices and puts the default ones before them; one of the same path replaces a default.
pub(super) fn check(linux: Option<&Linux>, own_dev: bool) -> Result<Vec<Device>> {
    let mut devices: Vec<Device> = Vec::with_capacity(DEFAULT.len());
    if own_dev {
        devices.extend(DEFAULT.iter().map(|&(path, major, minor)| Device {
            path: path.into(),
            kind: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
        }));
    }
    for (index, device) in linux
        .and_then(|l| l.devices().as_ref())
        .into_iter()
        .flatten()
        .enumerate()
    {
        let field = |name: &str| format!("linux.devices[{index}].{name}");
        let path = device.path().clone();
        if !path.is_absolute() || path.file_name().is_none() {
            return Err(invalid(
                field("path"),
                format!("{} is no absolute path of a file", path.display()),
            ));
        }
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => return Err(invalid(field("type"), "\"a\" is no kind of node")),
        };
        // The kernel's dev_t has 12 bits of major and 20 of minor; more would wrap to another device.
        let part = |value: i64, bits: u32, name: &str| {
            u32::try_from(value)
                .ok()
                .filter(|v| *v < 1 << bits)
                .ok_or_else(|| invalid(field(name), format!("{value} is out of range")))
        };
        let number = if kind == FileType::Fifo {
            0
        } else {
            makedev(
                part(device.major(), 12, "major")?,
                part(device.minor(), 20, "minor")?,
            )
        };
        let device = Device {
            kind,
            number,
            // Some engines copy st_mode whole, type bits and all.
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            path,
        };
        match devices.iter_mut().find(|d| d.path == device.path) {
            Some(known) => *known = device,
            None => devices.push(device),
        }
    }
    Ok(devices)
}

/// Makes nodes and links. A `/dev` bound from elsewhere gets only what the spec lists, for the rest is not ours.
pub(super) fn create(root: BorrowedFd<'_>, plan: &Plan) -> Result<()> {
    let mut dev: Option<OwnedFd> = None;
    for device in &plan.devices {
        let in_dev = device.path.parent() == Some(Path::new("/dev"));
        if in_dev {
            if dev.is_none() {
                dev = Some(open_or_create(root, Path::new("/dev"), Place::Dir)?);
            }
            if let (Some(dev), Some(name)) = (&dev, device.path.file_name()) {
                node(root, dev.as_fd(), Path::new(name), device)?;
            }
        } else {
            let (parent, name) = open_parent(root, &device.path)?;
            node(root, parent.as_fd(), Path::new(&name), device)?;
        }
    }
    if plan.own_dev {
        let dev = match dev {
            Some(dev) => dev,
            None => open_or_create(root, Path::new("/dev"), Place::Dir)?,
        };
        links(dev.as_fd())?;
    }
    Ok(())
}

fn node(root: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &Path, device: &Device) -> Result<()> {
    let fail = |e: Errno| place("create device", &device.path, e);
    match mknodat(
        parent,
        name,
        device.kind,
        Mode::from_raw_mode(device.mode),
        device.number,
    ) {
        Ok(()) if device.uid == 0 && device.gid == 0 => Ok(()),
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(fail)
        }
        Err(Errno::EXIST) => verify(parent, name, device),
        // A user namespace makes no nodes; a file system of one opens none. The host's is mounted instead.
        Err(Errno::PERM) if device.kind != FileType::Fifo => bind_from_host(root, parent, name, device),
        Err(e) => Err(fail(e)),
    }
}

/// What the image has under the name of a device must be that device (CVE-2025-31133): masking relies on `/dev/null`.
fn verify(parent: BorrowedFd<'_>, name: &Path, device: &Device) -> Result<()> {
    let stat =
        statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| place("look at", &device.path, e))?;
    if is_device(&stat, device.kind, device.number) {
        return Ok(());
    }
    Err(Error::Untrusted {
        path: device.path.clone(),
        reason: "it exists and is not that device".into(),
    })
}

fn bind_from_host(root: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &Path, device: &Device) -> Result<()> {
    let open = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let fail = |operation| move |e: Errno| place(operation, &device.path, e);
    let tree = open_tree(CWD, &device.path, open).map_err(fail("open the host's device for"))?;
    let stat = fstat(&tree).map_err(fail("look at"))?;
    if !is_device(&stat, device.kind, device.number) {
        return Err(Error::Untrusted {
            path: device.path.clone(),
            reason: "the host has another device there".into(),
        });
    }
    // The file just made is the one mounted on: its name is not looked up again.
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let on = match openat(parent, name, create, Mode::from_raw_mode(0o644)) {
        Ok(made) => made,
        Err(Errno::EXIST) => open_or_create(root, &device.path, Place::File)?,
        Err(e) => return Err(fail("create a file for")(e)),
    };
    attach_fd(tree.as_fd(), on.as_fd()).map_err(fail("bind the host's device to"))
}

/// Whether the file is this very device.
pub(super) fn is_device(stat: &rustix::fs::Stat, kind: FileType, number: u64) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || stat.st_rdev == number)
}

/// Whether `fd` is `/dev/null` and nothing else.
pub(super) fn is_null(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(is_device(&fstat(fd)?, FileType::CharacterDevice, makedev(1, 3)))
}

fn links(dev: BorrowedFd<'_>) -> Result<()> {
    let fail = |name: &str, e| place("create link", &Path::new("/dev").join(name), e);
    let core = Path::new("/proc/kcore")
        .exists()
        .then_some(("/proc/kcore", "core"));
    for &(target, name) in LINKS.iter().chain(&core) {
        match symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(fail(name, e)),
        }
    }
    // The node that an image or a devtmpfs has is of another devpts.
    match symlinkat("pts/ptmx", dev, "ptmx") {
        Err(Errno::EXIST) => {
            unlinkat(dev, "ptmx", AtFlags::empty()).map_err(|e| fail("ptmx", e))?;
            symlinkat("pts/ptmx", dev, "ptmx").map_err(|e| fail("ptmx", e))
        }
        answer => answer.map_err(|e| fail("ptmx", e)),
    }
}
