//! The control API: HTTP over a Unix socket, with Firecracker's paths, bodies and answers.
//!
//! ```text
//! socket ─ server: accept, read, write ─► connection: bytes ⇄ requests, answers ─ http: one head, one answer
//!                └─► command: method, path and body, typed ─► control, which does it
//! ```
//!
//! [`Server`] is one descriptor to an event loop. Nothing here blocks, whatever clients do; what they can make it hold is
//! bounded.

mod command;
mod connection;
mod http;
mod server;

pub use command::{Action, Command, Fault, Question, Setting};
#[cfg(feature = "fuzzing")]
pub(crate) use connection::Connection;
pub use http::{Request, Response};
pub use server::{BODY_MAX, Server};
