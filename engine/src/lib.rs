//! Containers on one host.

pub mod copy;
pub mod events;
pub mod network;
pub mod seccomp_profile;
pub mod stats;
pub mod volumes;
