//! What a test needs of the host, declared; a test that cannot run says so aloud and never counts as a silent pass.

use std::path::Path;

/// One thing a host may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The effective user is root.
    Root,
    /// A program of this name is on the path.
    Program(&'static str),
    /// `/dev/kvm` can be opened.
    Kvm,
}

/// What a test in the test VM needs.
pub const TEST_VM: &[Need] = &[
    Need::Root,
    Need::Program("qemu-system-x86_64"),
    Need::Program("busybox"),
];

impl Need {
    pub(crate) fn is_met(self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Program(name) => std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path).any(|directory| directory.join(name).exists())
            }),
            Self::Kvm => std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(Path::new("/dev/kvm"))
                .is_ok(),
        }
    }
}

/// Whether the test may run; prints `skipped: …` when not, and panics instead under `BERTH_TESTS_STRICT=1`.
///
/// ```no_run
/// # use berth_tests::{Need, require};
/// if !require(&[Need::Root, Need::Program("skopeo")]) {
///     return;
/// }
/// ```
///
/// # Panics
/// Under `BERTH_TESTS_STRICT=1`, when something is missing.
#[must_use]
pub fn require(needs: &[Need]) -> bool {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return true;
    }
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("BERTH_TESTS_STRICT").is_none_or(|value| value != "1"),
        "{name} needs {missing:?}"
    );
    eprintln!("skipped: {name}: this host lacks {missing:?}");
    false
}
