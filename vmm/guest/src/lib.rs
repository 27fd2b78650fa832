//! PID 1 inside a microVM, and the protocol the host speaks to it; the page is docs/guest.md.
//!
//! For the host: [`protocol`] is what is said, [`frame`] how it is written, [`client`] says it, [`layout`] names the places in
//! the guest that a configuration may mention.

pub mod protocol;

pub mod frame;

pub mod client;

pub mod layout;
