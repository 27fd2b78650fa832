//! Which module files to load, and in which order.
//!
//! Debian makes `modules.dep` when a kernel is installed, so the package has none; but every module names those it needs
//! in its `.modinfo` section, as `depends=a,b`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files that give `wanted` (module names, `-` as good as `_`), each after those it depends on.
///
/// # Panics
/// When a module is neither in `tree` (`lib/modules/VERSION`) nor built in.
pub fn load_order(tree: &Path, wanted: &[&str]) -> Vec<PathBuf> {
    let mut files = HashMap::new();
    find(&tree.join("kernel"), &mut files);
    let built_in = fs::read_to_string(tree.join("modules.builtin")).expect("read modules.builtin");
    let built_in = built_in
        .lines()
        .filter_map(|line| module_name(Path::new(line)))
        .collect();
    let mut order = Order {
        files,
        built_in,
        seen: HashSet::new(),
        loads: Vec::new(),
    };
    for name in wanted {
        order.add(&name.replace('-', "_"));
    }
    order.loads
}

struct Order {
    files: HashMap<String, PathBuf>,
    built_in: HashSet<String>,
    seen: HashSet<String>,
    loads: Vec<PathBuf>,
}

impl Order {
    fn add(&mut self, name: &str) {
        if self.built_in.contains(name) || !self.seen.insert(name.to_owned()) {
            return;
        }
        let file = self
            .files
            .get(name)
            .unwrap_or_else(|| panic!("this kernel has no module {name}"))
            .clone();
        let content = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for dependency in depends(&content) {
            self.add(&dependency);
        }
        self.loads.push(file);
    }
}

fn find(directory: &Path, files: &mut HashMap<String, PathBuf>) {
    for entry in fs::read_dir(directory).expect("list the modules").flatten() {
        let path = entry.path();
        if entry.file_type().expect("the type of an entry").is_dir() {
            find(&path, files);
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
}

fn module_name(path: &Path) -> Option<String> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".ko")?;
    Some(stem.replace('-', "_"))
}

/// The names in a module's `depends=`, a string of its own in `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    module
        .split(|byte| *byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="))
        .map(String::from_utf8_lossy)
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let tree = tempfile::tempdir().unwrap();
        let kernel = tree.path().join("kernel/net");
        fs::create_dir_all(&kernel).unwrap();
        for (name, info) in [
            (
                "top.ko",
                &b"\x7fELF\0license=GPL\0depends=left-one,right,inside\0"[..],
            ),
            ("left_one.ko", b"\0depends=base\0"),
            ("right.ko", b"\0depends=base\0vermagic=6.1\0"),
            ("base.ko", b"\0depends=\0"),
            ("other.ko", b"\0depends=nowhere\0"),
        ] {
            fs::write(kernel.join(name), info).unwrap();
        }
        fs::write(tree.path().join("modules.builtin"), "kernel/fs/inside.ko\n").unwrap();
        let names: Vec<_> = load_order(tree.path(), &["right", "inside", "top"])
            .iter()
            .filter_map(|path| module_name(path))
            .collect();
        assert_eq!(names, ["base", "right", "left_one", "top"]);
    }
}
