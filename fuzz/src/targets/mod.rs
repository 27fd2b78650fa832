//! The doors, a file each.

mod block;
mod rng;

/// What takes an input, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Each panics when something does not hold that must.
pub const TARGETS: &[Target] = &[("block", block::block), ("rng", rng::rng)];
