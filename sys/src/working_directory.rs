//! A working directory of the calling thread's own (`unshare(2)`, `CLONE_FS`).
#![allow(unsafe_code)] // rustix marks unshare unsafe for the sake of CLONE_FILES

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// From here on `chdir`, `chroot` and `umask` of this thread touch no other thread, and theirs not this one.
///
/// # Errors
///
/// ENOMEM.
pub fn unshare() -> rustix::io::Result<()> {
    // SAFETY: only the descriptor table is what other threads' owned descriptors rely on, and it stays shared.
    unsafe { unshare_unsafe(UnshareFlags::FS) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_other_threads_stay_where_they_are() {
        let before = std::env::current_dir().unwrap();
        std::thread::spawn(|| {
            super::unshare().unwrap();
            std::env::set_current_dir("/proc/self/fd").unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(std::env::current_dir().unwrap(), before);
    }
}
