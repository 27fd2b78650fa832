//! End-to-end tests of `berth-runtime`: one file per verb, and one per promise that spans verbs.

mod create;
mod delete;
mod exec;
mod guards;
mod hooks;
mod invalid;
mod kill;
mod mounts;
mod pause;
mod process;
mod run;
mod seccomp;
mod terminal;
mod time_namespace;
mod user_namespace;
