//! Kernel modules of the initramfs: `/modules` names their files, one absolute path a line, in the order they are loaded.

use std::fs::File;
use std::io;
use std::path::Path;

/// Loads them all; the files go as they are loaded, for they are the guest's memory. A module that cannot be loaded is
/// told to the console and not fatal: what needed it will say so itself. Fine when there is no list: everything is built in.
pub fn load(list: &Path) {
    let names = match std::fs::read_to_string(list) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return,
        Err(e) => {
            eprintln!("berth-guest: cannot read {}: {e}", list.display());
            return;
        }
    };
    for name in names.lines().map(str::trim).filter(|name| !name.is_empty()) {
        if let Err(e) = load_one(Path::new(name)) {
            eprintln!("berth-guest: cannot load module {name}: {e}");
        }
    }
}

fn load_one(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match rustix::system::finit_module(&file, c"", 0) {
        // It came in with another, or is built in.
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    // A root that cannot be written to keeps it.
    let _ = std::fs::remove_file(path);
    Ok(())
}
