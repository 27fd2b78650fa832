//! Layers through the public interface, on the real filesystem: hostile archives, peers' archives, the store.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod archive;
mod form;
mod hostile;
mod limits;
mod peers;
mod store;
