//! PID 1 inside a microVM, and the protocol the host speaks to it; the page is docs/guest.md.
//!
//! For the host: [`protocol`] is what is said, [`frame`] how it is written, [`client`] says it, [`layout`] names the places in
//! the guest that a configuration may mention. The rest is the program: [`boot`] to a listening guest, [`serve`] its one loop,
//! [`setup`] what a container stands on, [`container`] the container itself, [`copy`] its files, [`restored`] what a copy of a guest does first, [`power`] the end.

pub mod protocol;

pub mod frame;

pub mod client;

pub mod layout;

pub mod error;

pub mod boot;
mod modules;

pub mod listen;

pub mod serve;

pub mod setup;

pub mod container;
pub mod copy;
mod stdio;

pub mod restored;

pub mod power;
