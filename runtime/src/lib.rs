//! The OCI runtime as a library.

pub mod init;
pub mod seccomp;
