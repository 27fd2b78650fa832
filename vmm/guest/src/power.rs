//! The end of the guest.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use berth_sys::signals;
use rustix::process::WaitOptions;
use rustix::system::RebootCommand;

use crate::error::{At, Result};

/// Longest wait for killed processes; one that hangs in the kernel would keep the guest from ending.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(5);

/// Kills every process but this one and collects them.
pub fn kill_everything() {
    // It fails only for who is not PID 1, and main has seen to that.
    let _ = signals::send_to_all_others(SIGKILL);
    let until = Instant::now() + KILL_WAIT_MAX;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() < until => std::thread::sleep(STEP),
            // No child is left, or none that dies.
            _ => return,
        }
    }
}

const SIGKILL: i32 = 9;

/// Switches the machine off; in a pid namespace that is not the first, ends the namespace.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_BOOT`.
pub fn off() -> Result<Infallible> {
    rustix::fs::sync();
    rustix::system::reboot(RebootCommand::PowerOff).at("switch off", "the power")?;
    // In a pid namespace the signal that ends this process may come a moment later.
    loop {
        std::thread::sleep(KILL_WAIT_MAX);
    }
}
