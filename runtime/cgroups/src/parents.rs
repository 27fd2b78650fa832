//! Parents we made above a cgroup, and taking them away again with the last child.
//!
//! Who made a directory is written on the directory itself, as an extended attribute: many runtimes with states of
//! their own share parents, and the one that removes the last child is often not the one that made the parent.

use rustix::fs::XattrFlags;

use crate::dir::Dir;
use crate::hierarchy::Hierarchy;
use crate::path::CgroupPath;

/// `trusted.`: only the host's root sets it, so no container marks what the host should lose.
const MARK: &str = "trusted.berth.made";

/// Notes that the directory was made by us. Best effort: without the mark it stays.
pub(crate) fn mark(root: &Dir, relative: &str) {
    let _ = rustix::fs::setxattr(root.path().join(relative), MARK, b"1", XattrFlags::empty());
}

fn is_marked(root: &Dir, relative: &str) -> bool {
    rustix::fs::getxattr(root.path().join(relative), MARK, &mut [0u8; 1][..]).is_ok()
}

impl Hierarchy {
    /// Removes the parents of `path` that [`crate::Cgroup::create`] made, here or in another process, and in which
    /// nothing is any more. Best effort, does not block.
    pub fn remove_made_parents(&self, path: &CgroupPath) {
        let roots = || self.v1.iter().map(|mount| &mount.root).chain(&self.unified);
        let mut ancestors: Vec<&str> = path.ancestors().collect();
        while let Some(ancestor) = ancestors.pop() {
            for root in roots().filter(|root| is_marked(root, ancestor)) {
                // Refused while somebody else's cgroup or process is in it: the last one out removes it.
                let _ = root.remove_below(ancestor);
            }
        }
    }
}
