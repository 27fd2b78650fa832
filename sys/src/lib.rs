//! System calls that the standard library and rustix lack, one typed function per use.

pub mod mount_attr;
pub mod open_beneath;
