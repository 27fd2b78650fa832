//! What strangers can send to berth: one function a door, that takes any bytes and lets them in.
//!
//! ```text
//! bytes ─► input.rs: choices ─► play.rs: what is done next ─► driver.rs: a guest's driver ─► a device, and memory.rs
//!                          └──► targets/: what is sent, and what must hold afterwards, a file a door
//! ```
//!
//! libFuzzer finds the bytes (`scripts/fuzz`, main.rs); what it found is in `corpus/`, and `cargo test` sends it again. See
//! docs/fuzzing.md.

mod allowed;
mod driver;
mod input;
mod memory;
mod play;
mod targets;

pub use targets::{TARGETS, Target};
