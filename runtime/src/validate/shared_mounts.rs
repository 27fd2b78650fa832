//! A container in a mount namespace that is not its own: what its configuration may not ask for.
//!
//! runtime-spec config-linux.md#namespaces lets a mount namespace be joined by `path` and makes a container without one
//! inherit the runtime's, but does not say what becomes of `root` and `mounts` there. runc does its mounts and pivots in
//! it all the same, for everybody who lives in it (opencontainers/runc#1700). Here the rule is:
//!
//! * `root.path` is looked up in that namespace, by the kernel and below its root; a relative one is relative to the absolute
//!   path of the bundle. The process enters it by `chroot(2)`; `/` is the namespace's own root.
//! * Whatever would change the namespace is refused: it would show in the namespace of its owner and outlive the container,
//!   as nobody could say afterwards which mounts and nodes to take away. No default device, link or `/dev/console` is made,
//!   nor a working directory; a terminal comes from the devpts at `/dev/pts` below the root.
//! * Writes to `/proc` that security rests on go to the runtime's own procfs, opened before: the `/proc` of the
//!   namespace may be a false one, another pid namespace's or none.

use oci_spec::runtime::{LinuxNamespaceType as Ns, Spec};

use super::Namespaces;
use crate::error::{Error, Result};

/// Refuses, by its field, what would mount or make something.
pub(super) fn check(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    let whose = if namespaces.joins(Ns::Mount) {
        "a joined mount namespace"
    } else {
        "the runtime's mount namespace, as linux.namespaces has none"
    };
    let refuse = |field: &str, what: &str| {
        Error::invalid(
            field,
            format!("{what} {whose}, which is not the container's own and outlives it"),
        )
    };
    let linux = spec.linux().as_ref();
    let filled = |list: Option<&Option<Vec<String>>>| {
        list.and_then(Option::as_ref).is_some_and(|list| !list.is_empty())
    };
    let named =
        |name: Option<&Option<String>>| name.and_then(Option::as_ref).is_some_and(|name| !name.is_empty());
    if spec.mounts().as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(refuse("mounts", "would be made in"));
    }
    if spec
        .root()
        .as_ref()
        .is_some_and(|root| root.readonly() == Some(true))
    {
        return Err(refuse("root.readonly", "would change a mount of"));
    }
    if filled(linux.map(|l| l.masked_paths())) {
        return Err(refuse("linux.maskedPaths", "would be mounted over in"));
    }
    if filled(linux.map(|l| l.readonly_paths())) {
        return Err(refuse("linux.readonlyPaths", "would be mounted over in"));
    }
    if named(linux.map(|l| l.rootfs_propagation())) {
        return Err(refuse("linux.rootfsPropagation", "would change mounts of"));
    }
    if named(linux.map(|l| l.mount_label())) {
        return Err(refuse("linux.mountLabel", "is for mounts, and none is made in"));
    }
    if linux
        .and_then(|l| l.devices().as_ref())
        .is_some_and(|list| !list.is_empty())
    {
        return Err(refuse("linux.devices", "would be made in"));
    }
    let hooks = crate::hooks::of(spec.hooks().as_ref(), "createContainer");
    if namespaces.joins(Ns::Mount) && !hooks.is_empty() {
        // config.md#createcontainer-hooks: the path of the runtime's namespace, executed in the container's.
        return Err(Error::invalid(
            "hooks.createContainer",
            "its program would be the runtime's and what it loads a joined mount namespace's; use createRuntime or \
             startContainer",
        ));
    }
    Ok(())
}
