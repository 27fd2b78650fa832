//! `berth` as a docker user drives it: the built binary, busybox, the real kernel. A file per group of verbs or flags; each
//! test has a store, a state and a network namespace of its own.

mod attach;
mod copy;
mod events;
mod exec;
mod fixture;
mod grammar;
mod health;
mod help;
mod inspect;
mod lifecycle;
mod limits;
mod list;
mod logs;
mod membership;
mod mounts;
mod network;
mod nginx;
mod process;
mod pull;
mod refused;
mod restart;
mod security;
mod system;
mod terminal;
mod volume;
