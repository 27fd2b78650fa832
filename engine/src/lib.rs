//! Containers on one host.
