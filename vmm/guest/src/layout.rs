//! Where things are in the guest, for both sides: the host names these paths in the configurations it sends.

/// A tmpfs; all below it goes with the guest.
pub const RUN: &str = "/run/berth";
/// The container's bundle.
pub const BUNDLE: &str = "/run/berth/bundle";
/// The overlay, mounted by Setup; in a configuration `root.path` is `rootfs`.
pub const ROOTFS: &str = "/run/berth/bundle/rootfs";

/// The path of a file of Setup.
#[must_use]
pub fn file(name: &str) -> String {
    format!("{RUN}/files/{name}")
}

/// The mount point of a share.
#[must_use]
pub fn share(tag: &str) -> String {
    format!("{RUN}/shares/{tag}")
}
