//! The parent's side: the spec's file system part, checked and opened as far as only the parent can.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::devices::{self, Device};
use super::options::{Bind, Options, Propagation};
use super::{Error, Result, idmap};

/// All that init needs to know to build the root, checked, with what must be opened from outside opened.
#[derive(Debug)]
pub struct Plan {
    /// Absolute, on the host.
    pub(super) rootfs: PathBuf,
    pub(super) rootfs_propagation: Option<Propagation>,
    pub(super) read_only: bool,
    pub(super) mounts: Vec<Mount>,
    pub(super) devices: Vec<Device>,
    /// `/dev` is the container's own; a bind mount of a foreign one is left as it is.
    pub(super) own_dev: bool,
    pub(super) terminal: bool,
    /// `process.cwd`, made when the image has nothing there.
    pub(super) cwd: Option<PathBuf>,
    pub(super) masked: Vec<PathBuf>,
    pub(super) read_only_paths: Vec<PathBuf>,
    /// The container sees its own cgroup as the root of each hierarchy.
    pub(super) cgroup_namespace: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A part of the tree that exists.
    Bind(Bind),
    /// Attributes of a mount made before are changed.
    Remount,
    /// The container's cgroups, of whatever version the host has.
    Cgroup,
    /// A file system type of the kernel.
    Fs(String),
}

/// One entry of the spec's mounts.
#[derive(Debug)]
pub(super) struct Mount {
    /// Absolute, without `.` or `..`.
    pub destination: PathBuf,
    pub kind: Kind,
    /// A host path for a bind, a label in mountinfo otherwise.
    pub source: PathBuf,
    pub options: Options,
    /// A bind's source, cloned and id-mapped by the parent because init in its user namespace could not.
    pub tree: Option<OwnedFd>,
}

/// Files of procfs that tools like lxcfs replace with truer ones. Nothing else of `/proc` may be mounted over: security
/// depends on writes to it arriving (CVE-2019-16884).
const PROC_REPLACEABLE: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Whether a mount on this file, a path below the container's `/proc`, is harmless.
pub(super) fn is_replaceable_in_proc(path: &Path) -> bool {
    path.to_str().is_some_and(|p| PROC_REPLACEABLE.contains(&p))
}

impl Plan {
    /// Checks the spec's root, mounts, devices, paths; opens what init may not be able to. Runs in the parent, which must be
    /// in the mount namespace that sources are named in. A bind source that does not exist is found here only if the
    /// container has a user namespace or the mount an id mapping, otherwise by [`setup`](fn@super::setup).
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field of config.json; [`Error::OpenSource`], [`Error::IdMap`].
    pub fn prepare(spec: &Spec, bundle: &Path) -> Result<Plan> {
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| invalid("root", "is missing"))?;
        if root.path().as_os_str().is_empty() {
            return Err(invalid("root.path", "is empty"));
        }
        let linux = spec.linux().as_ref();
        let namespace = |wanted| {
            linux
                .and_then(|l| l.namespaces().as_ref())
                .and_then(|all| all.iter().find(|ns| ns.typ() == wanted))
        };
        let rootfs_propagation = match linux.and_then(|l| l.rootfs_propagation().as_deref()) {
            None | Some("") => None,
            Some(word) => Some(Propagation::parse(word).ok_or_else(|| {
                invalid(
                    "linux.rootfsPropagation",
                    format!("{word:?} is no kind of propagation"),
                )
            })?),
        };
        let user_namespace = namespace(LinuxNamespaceType::User);
        let mut maps = idmap::Maps::new(linux, user_namespace.and_then(|ns| ns.path().as_deref()));
        let mut mounts = Vec::with_capacity(spec.mounts().as_ref().map_or(0, Vec::len));
        for (index, entry) in spec.mounts().iter().flatten().enumerate() {
            let mut mount = Mount::check(entry, index, bundle)?;
            let follow = initial_propagation(rootfs_propagation);
            if mount.options.idmap.is_some()
                || entry.uid_mappings().is_some()
                || entry.gid_mappings().is_some()
            {
                let userns = maps.for_mount(entry, index)?;
                mount.tree = Some(idmap::open_mapped(&mount, userns, follow)?);
            } else if user_namespace.is_some() && matches!(mount.kind, Kind::Bind(_)) {
                mount.tree = Some(idmap::open_plain(&mount, follow)?);
            }
            mounts.push(mount);
        }
        let own_dev = !mounts
            .iter()
            .any(|m| m.destination == Path::new("/dev") && matches!(m.kind, Kind::Bind(_)));
        let paths = |list: Option<&Option<Vec<String>>>, field: &str| -> Result<Vec<PathBuf>> {
            list.and_then(Option::as_ref)
                .into_iter()
                .flatten()
                .enumerate()
                .map(|(i, p)| absolute(Path::new(p), &format!("{field}[{i}]")))
                .collect()
        };
        let rootfs = bundle.join(root.path());
        Ok(Plan {
            rootfs: std::path::absolute(&rootfs)
                .map_err(|source| Error::OpenRoot { path: rootfs, source })?,
            rootfs_propagation,
            read_only: root.readonly().unwrap_or(false),
            mounts,
            devices: devices::check(linux, own_dev)?,
            own_dev,
            terminal: spec
                .process()
                .as_ref()
                .and_then(|p| p.terminal())
                .unwrap_or(false),
            cwd: spec.process().as_ref().map(|p| p.cwd().clone()),
            masked: paths(linux.map(|l| l.masked_paths()), "linux.maskedPaths")?,
            read_only_paths: paths(linux.map(|l| l.readonly_paths()), "linux.readonlyPaths")?,
            cgroup_namespace: namespace(LinuxNamespaceType::Cgroup).is_some(),
        })
    }

    /// The rootfs on the host, absolute.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }
}

/// What `/` gets in the new mount namespace before anything is mounted. Slave unless asked: later mounts of the host still
/// arrive, none of ours leaves. Shared keeps what the host has.
pub(super) fn initial_propagation(wanted: Option<Propagation>) -> Option<u64> {
    use berth_sys::mount_attr::{MS_PRIVATE, MS_SHARED, MS_SLAVE};
    match wanted.map(|p| p.mode) {
        None | Some(MS_SLAVE) => Some(MS_SLAVE),
        Some(MS_SHARED) => None,
        Some(_) => Some(MS_PRIVATE),
    }
}

impl Mount {
    fn check(entry: &oci_spec::runtime::Mount, index: usize, bundle: &Path) -> Result<Mount> {
        let field = |name: &str| format!("mounts[{index}].{name}");
        let destination = absolute(entry.destination(), &field("destination"))?;
        if destination == Path::new("/") {
            return Err(invalid(field("destination"), "is the container's root itself"));
        }
        let words = entry.options().iter().flatten().map(String::as_str);
        let options = Options::parse(words).map_err(|reason| invalid(field("options"), reason))?;
        let typ = entry.typ().as_deref().unwrap_or("");
        // runtime-spec config.md#linux-mounts: `bind` as a type is as good as the option, and so is `none` with it.
        let kind = match (options.remount, options.bind, typ) {
            (true, ..) => Kind::Remount,
            (false, Some(bind), _) => Kind::Bind(bind),
            (false, None, "bind") => Kind::Bind(Bind::Single),
            (false, None, "rbind") => Kind::Bind(Bind::Recursive),
            (false, None, "cgroup" | "cgroup2") => Kind::Cgroup,
            (false, None, "" | "none") => {
                return Err(invalid(field("type"), "is missing and the mount is not a bind"));
            }
            (false, None, name) if name.contains('\0') => {
                return Err(invalid(field("type"), "holds a NUL byte"));
            }
            (false, None, name) => Kind::Fs(name.to_owned()),
        };
        let source = entry.source().clone();
        let source = match (&kind, source) {
            (Kind::Bind(_), None) => return Err(invalid(field("source"), "is missing for a bind mount")),
            (Kind::Bind(_), Some(source)) if source.as_os_str().is_empty() => {
                return Err(invalid(field("source"), "is empty for a bind mount"));
            }
            // config.md#mounts: relative to the bundle.
            (Kind::Bind(_), Some(source)) => bundle.join(source),
            (_, source) => source.unwrap_or_else(|| PathBuf::from(if typ.is_empty() { "none" } else { typ })),
        };
        let mount = Mount {
            destination,
            kind,
            source,
            options,
            tree: None,
        };
        mount.check_combination(&field)?;
        Ok(mount)
    }

    fn check_combination(&self, field: &dyn Fn(&str) -> String) -> Result<()> {
        let is_bind = matches!(self.kind, Kind::Bind(_));
        let is_fs = |name: &str| matches!(&self.kind, Kind::Fs(n) if n == name);
        if is_bind && let Some((key, _)) = self.options.data.first() {
            return Err(invalid(
                field("options"),
                format!("not supported: option {key:?} on a bind mount"),
            ));
        }
        if is_bind && let Some(flag) = self.options.superblock.first() {
            return Err(invalid(
                field("options"),
                format!("not supported: option {flag:?} on a bind mount"),
            ));
        }
        if self.options.copy_up && !is_fs("tmpfs") {
            return Err(invalid(field("options"), "tmpcopyup needs type tmpfs"));
        }
        if self.options.idmap.is_some() && !is_bind {
            return Err(invalid(
                field("options"),
                "not supported: idmap on anything but a bind mount",
            ));
        }
        if self.kind == Kind::Cgroup && !self.options.data.is_empty() {
            return Err(invalid(field("options"), "not supported: data on a cgroup mount"));
        }
        if let Ok(below) = self.destination.strip_prefix("/proc") {
            let whole = below.as_os_str().is_empty() && (is_fs("proc") || is_bind || self.options.remount);
            let replaced = is_bind && is_replaceable_in_proc(below);
            if !(whole || replaced) {
                return Err(invalid(
                    field("destination"),
                    "only procfs itself belongs in /proc",
                ));
            }
        }
        Ok(())
    }
}

/// `path` as an absolute path without `.` and `..`, only to compare it with known names; the kernel resolves it.
fn absolute(path: &Path, field: &str) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(invalid(field, "is empty"));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(invalid(field, "holds a NUL byte"));
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Invalid {
        field: field.into(),
        reason: reason.into(),
    }
}
