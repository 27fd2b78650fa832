//! The end of a container by force: through its shim, or without one that does not answer.
//!
//! ```text
//! ask the shim ─ no word ─► kill init, which the shim sees ─ no end ─► kill the shim: whoever looks next tears down
//! ```

use std::time::{Duration, Instant};

use berth_sys::pidfd;

use crate::engine::Engine;
use crate::error::{At, Error, Result};
use crate::flags::Signal;
use crate::id::ContainerId;
use crate::reconcile;
use crate::shim::protocol::PATIENCE;
use crate::shim::{runtime_id, runtime_root};

/// Between two looks whether a shim has gone: it tells nobody who is not connected.
const LOOK: Duration = Duration::from_millis(10);

impl Engine {
    /// Kills a running container and returns when it has ended. A shim that cannot hear, for want of descriptors or because
    /// somebody stopped it, is done without after [`PATIENCE`], and killed after as long again.
    ///
    /// # Errors
    ///
    /// [`Error::ShimSilent`] when even that leaves it alive: the kernel holds it, or its record does not say who it is.
    pub(crate) fn end(&self, id: &ContainerId) -> Result<()> {
        let silent = match self.stop_within(id, Signal::KILL.number(), -1, Some(PATIENCE)) {
            Err(e @ Error::ShimSilent { .. }) => e,
            other => return other.map(drop),
        };
        log::debug!("killing container {id} without its shim");
        let state = reconcile::state(&self.paths, id)?;
        if let Some(init) = pidfd::open_same(state.pid, state.pid_start).at("open", "/proc")? {
            // It may end by itself between the two calls.
            let _ = pidfd::send_signal(&init, libc::SIGKILL);
        }
        // Once more, for this thaws too: a frozen process dies of nothing on cgroup v1.
        if let Ok(container) = berth_runtime::Container::load(&runtime_root(&self.paths), &runtime_id(id)?) {
            let _ = container.kill(libc::SIGKILL, false);
        }
        if self.shim_goes(id)? {
            return Ok(());
        }
        let state = reconcile::state(&self.paths, id)?;
        let shim = pidfd::open_same(state.shim_pid, state.shim_start).at("open", "/proc")?;
        let Some(shim) = shim.filter(|_| state.status.needs_shim()) else {
            return if self.shim_goes(id)? { Ok(()) } else { Err(silent) };
        };
        log::debug!("killing the shim of container {id}");
        pidfd::send_signal(&shim, libc::SIGKILL).at("kill", format!("/proc/{}", state.shim_pid))?;
        if self.shim_goes(id)? { Ok(()) } else { Err(silent) }
    }

    /// Whether nobody holds the shim's lock within [`PATIENCE`].
    fn shim_goes(&self, id: &ContainerId) -> Result<bool> {
        let until = Instant::now() + PATIENCE;
        while reconcile::shim_lives(&self.paths, id)? {
            if Instant::now() > until {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
        Ok(true)
    }
}
