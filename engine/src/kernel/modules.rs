//! Which modules a guest needs, and in which order they are loaded.
//!
//! Every module names those it uses, so the files themselves tell the order; `modules.dep`, which says the same, is there
//! only once depmod(8) has run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{At, Error};
use super::modinfo;
use super::packed;

/// Without these no container comes up: its disks, their file systems, and the wire to the host.
const NEEDED: [&str; 6] = [
    "virtio_mmio",
    "virtio_blk",
    "vmw_vsock_virtio_transport",
    "erofs",
    "overlay",
    "ext4",
];

/// What a guest goes without when its kernel lacks the module.
const WANTED: [(&str, &str); 5] = [
    ("virtio_net", "its microVMs have no network"),
    ("virtio_rng", "its microVMs gather randomness slowly"),
    ("virtio_balloon", "memory its microVMs freed stays with them"),
    (
        "virtiofs",
        "volumes and host directories cannot be mounted into its microVMs",
    ),
    ("pvpanic_mmio", "a panic in its microVMs looks like a reset"),
];

/// A module, unpacked.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// What a modules directory gives; of none, nothing.
#[derive(Default)]
pub(super) struct Selection {
    /// In the order they are loaded; built-in ones are left out.
    pub(super) modules: Vec<Module>,
    /// Those of [`WANTED`] that are missing, with what that means.
    pub(super) lacks: Vec<(&'static str, &'static str)>,
}

/// Picks out of `tree` (`/lib/modules/<release>`) what a guest of the kernel `release` loads.
pub(super) fn select(tree: &Path, release: &str) -> Result<Selection, Error> {
    let tree = Tree::open(tree)?;
    let mut order = Order {
        tree: &tree,
        release,
        seen: BTreeSet::new(),
        modules: Vec::new(),
    };
    for name in NEEDED {
        order.add(name)?;
    }
    let mut lacks = Vec::new();
    for (name, without) in WANTED {
        if tree.has(name) {
            order.add(name)?;
        } else {
            lacks.push((name, without));
        }
    }
    Ok(Selection {
        modules: order.modules,
        lacks,
    })
}

/// A modules directory.
struct Tree {
    path: PathBuf,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

impl Tree {
    fn open(path: &Path) -> Result<Self, Error> {
        let list = path.join("modules.builtin");
        let built_in = match fs::read_to_string(&list) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NotModules {
                    path: path.to_owned(),
                    why: "it has no modules.builtin",
                });
            }
            other => other.at("read", &list)?,
        };
        let mut files = BTreeMap::new();
        find(&path.join("kernel"), &mut files)?;
        Ok(Self {
            path: path.to_owned(),
            files,
            built_in: built_in
                .lines()
                .filter_map(|line| packed::module_name(Path::new(line)))
                .collect(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.built_in.contains(name) || self.files.contains_key(name)
    }
}

/// Notes every module file below `dir`. No symlink is followed: `build` and `source` lead elsewhere.
fn find(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let path = entry.path();
        let kind = entry.file_type().at("look at", &path)?;
        if kind.is_dir() {
            find(&path, files)?;
        } else if kind.is_file()
            && let Some(name) = packed::module_name(&path)
        {
            files.insert(name, path);
        }
    }
    Ok(())
}

struct Order<'t> {
    tree: &'t Tree,
    release: &'t str,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order<'_> {
    /// Adds a module behind all it depends on.
    fn add(&mut self, name: &str) -> Result<(), Error> {
        if self.tree.built_in.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.tree.files.get(name).ok_or_else(|| Error::NoModule {
            path: self.tree.path.clone(),
            name: name.to_owned(),
        })?;
        let content = packed::read(path).at("read", path)?;
        let info = modinfo::parse(&content).map_err(|why| Error::NotModule {
            path: path.clone(),
            why,
        })?;
        if info.release != self.release {
            return Err(Error::OtherRelease {
                path: path.clone(),
                found: info.release,
                expected: self.release.to_owned(),
            });
        }
        for before in &info.before {
            // An algorithm goes by its name; the module that is sure to be able to compute it has an ending.
            let generic = format!("{before}_generic");
            if let Some(name) = [before, &generic].into_iter().find(|name| self.tree.has(name)) {
                self.add(name)?;
            }
        }
        for depends in &info.depends {
            self.add(depends)?;
        }
        self.modules.push(Module {
            name: name.to_owned(),
            content,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::modinfo::tests::module;

    /// A modules directory of kernel 6.1 in which all that is needed is built in but for `files`.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("kernel/deep/down")).unwrap();
        let mut built_in = String::new();
        for name in NEEDED.into_iter().chain(WANTED.map(|(name, _)| name)) {
            if !files
                .iter()
                .any(|(file, _)| file.replace('-', "_").starts_with(name))
            {
                built_in.push_str(&format!("kernel/somewhere/{name}.ko\n"));
            }
        }
        fs::write(tmp.path().join("modules.builtin"), built_in).unwrap();
        for (file, text) in files {
            let content = module(&[text, "vermagic=6.1 SMP"]);
            fs::write(tmp.path().join("kernel/deep/down").join(file), content).unwrap();
        }
        tmp
    }

    fn order(tree: &tempfile::TempDir) -> Vec<String> {
        let selection = select(tree.path(), "6.1").unwrap_or_else(|e| panic!("{e}"));
        selection.modules.into_iter().map(|module| module.name).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let tree = tree(&[
            ("virtio-mmio.ko", "depends=virtio,virtio_ring"),
            ("virtio.ko", "depends="),
            ("virtio_ring.ko", "depends=virtio"),
            ("virtio_blk.ko", "depends=virtio-ring,ext4"),
            ("unrelated.ko", "depends=nothing"),
        ]);
        assert_eq!(
            order(&tree),
            ["virtio", "virtio_ring", "virtio_mmio", "virtio_blk"]
        );
    }

    #[test]
    fn what_should_be_there_first_is_if_there_is_such_a_module() {
        let tree = tree(&[
            ("erofs.ko", "softdep=pre: crc32c nowhere"),
            ("crc32c_generic.ko", "depends="),
        ]);
        assert_eq!(order(&tree), ["crc32c_generic", "erofs"]);
    }

    #[test]
    fn a_circle_ends() {
        let tree = tree(&[("overlay.ko", "depends=other"), ("other.ko", "depends=overlay")]);
        assert_eq!(order(&tree), ["other", "overlay"]);
    }

    #[test]
    fn what_is_missing_is_named_or_told() {
        let tmp = tree(&[]);
        let list = tmp.path().join("modules.builtin");
        let all = fs::read_to_string(&list).unwrap();
        fs::write(&list, all.replace("kernel/somewhere/virtiofs.ko\n", "")).unwrap();
        let lacks: Vec<_> = select(tmp.path(), "6.1").unwrap().lacks;
        assert_eq!(
            lacks.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["virtiofs"]
        );
        fs::write(&list, all.replace("kernel/somewhere/erofs.ko\n", "")).unwrap();
        let error = select(tmp.path(), "6.1").err().unwrap().to_string();
        assert!(
            error.ends_with("has no module erofs, and it is not built in"),
            "{error}"
        );
        fs::remove_file(&list).unwrap();
        let error = select(tmp.path(), "6.1").err().unwrap().to_string();
        assert!(error.ends_with("it has no modules.builtin"), "{error}");
    }

    #[test]
    fn modules_of_another_kernel_are_refused() {
        let tree = tree(&[("erofs.ko", "depends=")]);
        let error = select(tree.path(), "6.12").err().unwrap().to_string();
        assert!(error.ends_with("erofs.ko is for kernel 6.1, not 6.12"), "{error}");
    }
}
