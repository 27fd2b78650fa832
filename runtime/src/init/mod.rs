//! The child's side of a container start.

pub mod rootfs;
