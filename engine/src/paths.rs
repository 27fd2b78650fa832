//! Where everything lives; the one place that joins `ROOT` and `STATE` with names (docs/architecture.md, "State on
//! disk").

use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::id::ContainerId;

/// The two directories berth keeps things in. Both are mode 0700: a user who may traverse them may run setuid
/// programs of containers (CVE-2024-25621).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Durable: images, containers, volumes, networks.
    pub root: PathBuf,
    /// Gone at reboot: sockets, locks, leases, network namespaces.
    pub state: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Paths {
            root: "/var/lib/berth".into(),
            state: "/run/berth".into(),
        }
    }
}

/// Whether a directory is empty, a fresh file system's, or one in which something of berth's lies.
fn may_be_ours(dir: &Path) -> std::io::Result<bool> {
    const OURS: [&str; 7] = [
        "blobs",
        "containers",
        "events",
        "images",
        "kernels",
        "networks",
        "volumes",
    ];
    let mut is_empty = true;
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if OURS.iter().any(|ours| name == *ours) {
            return Ok(true);
        }
        is_empty &= name == "lost+found";
    }
    Ok(is_empty)
}

impl Paths {
    /// Makes the directories that every verb relies on, mode 0700. Cheap when they exist.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the one that cannot be made, [`Error::NotOurs`] for a directory of somebody else's.
    pub fn prepare(&self) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
        let private = |dir: &Path, recursive: bool| {
            let mut builder = std::fs::DirBuilder::new();
            match builder.recursive(recursive).mode(0o700).create(dir) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        };
        for top in [&self.root, &self.state] {
            match std::fs::symlink_metadata(top) {
                Ok(meta) if meta.is_dir() && meta.mode() & 0o777 == 0o700 => {}
                Ok(meta) if meta.is_dir() => {
                    // `--root /tmp` must not take /tmp from everybody else.
                    if !may_be_ours(top).at("list", top)? {
                        return Err(Error::NotOurs { path: top.clone() });
                    }
                    std::fs::set_permissions(top, std::fs::Permissions::from_mode(0o700))
                        .at("set the mode of", top)?;
                }
                _ => private(top, true).at("make", top)?,
            }
        }
        for dir in [
            self.containers(),
            self.names(),
            self.state_containers(),
            self.locks(),
        ] {
            if !dir.is_dir() {
                private(&dir, false).at("make", &dir)?;
            }
        }
        Ok(())
    }

    /// `ROOT/containers`.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// `ROOT/containers/<id>`.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// `ROOT/containers/<id>/config.json`.
    pub fn config(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("config.json")
    }

    /// `ROOT/containers/<id>/state.json`.
    pub fn state_file(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("state.json")
    }

    /// `ROOT/containers/<id>/container.log`; rotated files carry `.1`, `.2` … after it.
    pub fn log(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("container.log")
    }

    /// `ROOT/containers/<id>/upper`, the writable layer.
    pub fn upper(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("upper")
    }

    /// `ROOT/containers/<id>/work`, which overlayfs needs beside the writable layer.
    pub fn work(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("work")
    }

    /// `ROOT/containers/<id>/scratch.ext4`, what a microVM writes to instead.
    pub fn scratch(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("scratch.ext4")
    }

    /// `ROOT/names`.
    pub fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// `STATE/containers`.
    pub fn state_containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// `STATE/containers/<id>`, the shim's own directory.
    pub fn run_dir(&self, id: &ContainerId) -> PathBuf {
        self.state_containers().join(id.as_str())
    }

    /// `STATE/containers/<id>/bundle`.
    pub fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.run_dir(id).join("bundle")
    }

    /// `STATE/containers/<id>/bundle/rootfs`.
    pub fn rootfs(&self, id: &ContainerId) -> PathBuf {
        self.bundle(id).join("rootfs")
    }

    /// `STATE/runtime`, the OCI runtime's state root.
    pub fn runtime_root(&self) -> PathBuf {
        self.state.join("runtime")
    }

    /// `STATE/seccomp`, the compiled filters.
    pub fn seccomp(&self) -> PathBuf {
        self.state.join("seccomp")
    }

    /// `STATE/docker-init`, the program of `--init`.
    pub fn init(&self) -> PathBuf {
        self.state.join("docker-init")
    }

    /// `STATE/locks`.
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }
}
