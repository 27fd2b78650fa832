//! Waiting for what must come, without a word on how fast.

use std::time::{Duration, Instant};

/// Far above what anything in a test takes on a busy host; reaching it is the failure.
pub const HANG: Duration = Duration::from_secs(60);

/// Waits until something holds.
///
/// # Panics
/// When it does not within [`HANG`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
