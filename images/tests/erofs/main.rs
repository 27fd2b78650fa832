//! EROFS images as the kernel sees them: mounted on this host and compared with the trees they were made of.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod compare;
mod extremes;
mod host;
mod overlay;
mod roundtrip;
mod store;
mod tree;
