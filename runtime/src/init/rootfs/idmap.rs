//! Bind sources opened by the parent: id-mapped (config.md#posix-platform-mounts), or plain where init's user namespace
//! might keep it from reaching them. Both come as detached trees that init only has to attach.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::mount_attr::{MOUNT_ATTR_IDMAP, MountAttr, Userns, mount_setattr, user_namespace};
use oci_spec::runtime::{Linux, LinuxIdMapping, Mount as SpecMount};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::options::Bind;
use super::plan::{Kind, Mount, invalid};
use super::{Error, Result};

/// The user namespaces whose maps the mounts of one container use; equal maps share one.
pub(super) struct Maps<'spec> {
    linux: Option<&'spec Linux>,
    /// The container's user namespace, if it joins an existing one.
    joined: Option<&'spec Path>,
    made: Vec<((String, String), OwnedFd)>,
}

impl<'spec> Maps<'spec> {
    pub(super) fn new(linux: Option<&'spec Linux>, joined: Option<&'spec Path>) -> Maps<'spec> {
        Maps {
            linux,
            joined,
            made: Vec::new(),
        }
    }

    /// The namespace for one mount: its own mappings, else the container's.
    pub(super) fn for_mount(&mut self, mount: &SpecMount, index: usize) -> Result<BorrowedFd<'_>> {
        let field = format!("mounts[{index}].uidMappings");
        let fail = |source| Error::IdMap {
            destination: mount.destination().clone(),
            source,
        };
        let key = match (mount.uid_mappings(), mount.gid_mappings()) {
            (Some(uids), Some(gids)) => (map_text(uids), map_text(gids)),
            (None, None) => match (self.joined, self.linux) {
                (Some(path), _) => (path.to_string_lossy().into_owned(), String::new()),
                (None, Some(linux)) => {
                    let text =
                        |m: &Option<Vec<LinuxIdMapping>>| m.as_deref().map(map_text).unwrap_or_default();
                    (text(linux.uid_mappings()), text(linux.gid_mappings()))
                }
                (None, None) => Default::default(),
            },
            _ => {
                return Err(invalid(
                    field,
                    "uidMappings and gidMappings must be given together",
                ));
            }
        };
        if key.0.is_empty() {
            return Err(invalid(
                field,
                "is empty, and the container has no user namespace to take it from",
            ));
        }
        let at = match self.made.iter().position(|(k, _)| *k == key) {
            Some(at) => at,
            None => {
                let fd = match self.joined {
                    Some(path) if key.1.is_empty() => std::fs::File::open(path).map(OwnedFd::from),
                    _ => user_namespace(&key.0, &key.1),
                };
                self.made.push((key, fd.map_err(fail)?));
                self.made.len() - 1
            }
        };
        Ok(self.made[at].1.as_fd())
    }
}

/// The lines of `/proc/PID/uid_map`.
fn map_text(mappings: &[LinuxIdMapping]) -> String {
    mappings
        .iter()
        .map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size()))
        .collect()
}

/// The source as a detached tree, ids mapped by `userns`. Mapping needs privilege over the file system's own user
/// namespace, which init in a user namespace lacks.
pub(super) fn open_mapped(mount: &Mount, userns: BorrowedFd<'_>, follow: Option<u64>) -> Result<OwnedFd> {
    let tree = open_plain(mount, follow)?;
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        userns: Some(Userns(userns)),
        ..MountAttr::default()
    };
    // Mappings without either word mean `idmap`.
    let recursive = mount.options.idmap.unwrap_or(false);
    mount_setattr(tree.as_fd(), recursive, &attr).map_err(|source| Error::IdMap {
        destination: mount.destination.clone(),
        source,
    })?;
    Ok(tree)
}

/// The source as a detached tree that hears of the host's mounts as the container's `/` would (`follow`), for the parent
/// sits in the host's mount namespace where it may be shared.
pub(super) fn open_plain(mount: &Mount, follow: Option<u64>) -> Result<OwnedFd> {
    let tree = clone_source(mount)?;
    if let Some(propagation) = follow {
        mount_setattr(
            tree.as_fd(),
            true,
            &MountAttr {
                propagation,
                ..MountAttr::default()
            },
        )
        .map_err(|source| Error::Propagation {
            path: mount.source.clone(),
            source,
        })?;
    }
    Ok(tree)
}

/// The bind's source as a detached tree.
pub(super) fn clone_source(mount: &Mount) -> Result<OwnedFd> {
    let recursive = match mount.kind {
        Kind::Bind(Bind::Recursive) => OpenTreeFlags::AT_RECURSIVE,
        _ => OpenTreeFlags::empty(),
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
    open_tree(CWD, &mount.source, flags).map_err(|e| Error::OpenSource {
        source_path: mount.source.clone(),
        destination: mount.destination.clone(),
        source: e.into(),
    })
}
