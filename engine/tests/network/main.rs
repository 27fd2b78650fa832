//! The network on the real kernel. Each test has a network namespace of its own that plays the host, so the machine's
//! links and rules are untouched, and a mount namespace, so nothing pinned outlives it.
#![allow(unsafe_code)] // unshare(2)

mod crash;
mod dns;
mod guest;
mod guests;
mod host;
mod isolation;
mod lifecycle;
mod linger;
mod ports;
