//! The doors, a file each.

mod api;
mod balloon;
mod block;
mod config;
mod fs;
mod kernel;
mod mmio;
mod net;
mod ports;
mod rng;
mod snapshot;
mod vsock;

/// What takes an input, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Each panics when something does not hold that must.
pub const TARGETS: &[Target] = &[
    ("block", block::block),
    ("net", net::net),
    ("vsock", vsock::vsock),
    ("rng", rng::rng),
    ("balloon", balloon::balloon),
    ("fs", fs::fs),
    ("mmio", mmio::mmio),
    ("ports", ports::ports),
    ("kernel", kernel::kernel),
    ("api", api::api),
    ("config", config::config),
    ("snapshot", snapshot::snapshot),
];

/// Whether this process is root's; says what is skipped otherwise.
fn with_root(target: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("BERTH_TESTS_STRICT").is_none(),
            "{target} needs root"
        );
        eprintln!("skipped: {target} needs root");
    }
    root
}
