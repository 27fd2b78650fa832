//! What kind of namespace a file of nsfs stands for (`ioctl_nsfs(2)`, Linux 4.11).
#![allow(unsafe_code)] // libc's ioctl is the only way to NS_GET_NSTYPE

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The `CLONE_NEW*` bit of the namespace behind `file`.
///
/// # Errors
///
/// `ENOTTY` when the file is no namespace.
pub fn kind(file: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: NS_GET_NSTYPE takes no argument, and a file of another kind answers ENOTTY.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from(kind.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn each_file_says_what_it_is() {
        for (name, bit) in [("mnt", libc::CLONE_NEWNS), ("net", libc::CLONE_NEWNET)] {
            let file = std::fs::File::open(format!("/proc/self/ns/{name}")).unwrap();
            assert_eq!(kind(file.as_fd()).unwrap(), u64::from(bit.unsigned_abs()));
        }
        let other = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(
            kind(other.as_fd()).unwrap_err().raw_os_error(),
            Some(libc::ENOTTY)
        );
    }
}
