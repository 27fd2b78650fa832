//! End-to-end tests of `berth-runtime`: one file per verb, and one per promise that spans verbs.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod guards;
mod hooks;
mod invalid;
mod kill;
mod listener;
mod memory;
mod messages;
mod mounts;
mod pause;
mod process;
mod run;
mod seccomp;
mod shared_mounts;
mod spec;
mod terminal;
mod time_namespace;
mod update;
mod user_namespace;
