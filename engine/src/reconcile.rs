//! Puts the record right after a shim died or the host restarted.
//!
//! *Lock free and state not final* is the one test: whoever finds that takes the container's own lock, kills what is left,
//! tears down mounts, network and cgroup, and writes the exit record.

use std::fs::File;

use berth_cgroups::{Cgroup, CgroupPath, Hierarchy};
use jiff::Timestamp;
use rustix::fs::FlockOperation;

use crate::container::{State, Status};
use crate::error::{At, Error, Result};
use crate::id::ContainerId;
use crate::isolation::vm;
use crate::paths::Paths;
use crate::record::{self, Durability};
use crate::{network, rootfs};

/// The exit code of a container whose shim can no longer say; docker's for "unknown".
pub(crate) const UNKNOWN_EXIT: i32 = 255;

/// Whether a shim lives: it holds its lock.
pub(crate) fn shim_lives(paths: &Paths, id: &ContainerId) -> Result<bool> {
    let path = paths.run_dir(id).join("shim.lock");
    let file = match File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.at("open", &path)?,
    };
    // Shared: two who ask at once must not take each other for the shim.
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(e) => Err(Error::io("lock", path, e)),
    }
}

/// What a container is doing. Reads two small files when all is well.
pub(crate) fn state(paths: &Paths, id: &ContainerId) -> Result<State> {
    let state = record::state(paths, id)?;
    if settled(paths, id, &state)? {
        return Ok(state);
    }
    // Somebody who has the lock is starting, removing or reconciling it: what the record says is the best there is.
    match record::try_lock(paths, id)? {
        None => record::state(paths, id),
        Some(_lock) => locked(paths, id),
    }
}

fn settled(paths: &Paths, id: &ContainerId, state: &State) -> Result<bool> {
    Ok(match state.status {
        Status::Created | Status::Exited | Status::Dead => {
            record::was_created(paths, id) && !vm::stopped::is_up(paths, id)
        }
        Status::Running | Status::Paused | Status::Restarting => shim_lives(paths, id)?,
        Status::Removing => false,
    })
}

/// As [`state`], for whoever holds the container's lock already.
pub(crate) fn locked(paths: &Paths, id: &ContainerId) -> Result<State> {
    let mut state = record::state(paths, id)?;
    if !record::was_created(paths, id) || (state.status == Status::Removing && !shim_lives(paths, id)?) {
        // A create or a removal that was cut short.
        let config = record::config(paths, id).ok();
        clear(paths, id, &state)?;
        crate::remove::erase(paths, id, config.as_ref(), true)?;
        return Err(Error::NoSuchContainer(id.to_string()));
    }
    if !state.status.needs_shim() && vm::stopped::is_up(paths, id) {
        // Of a copy that was killed: who has the lock now is not who booted it.
        clear(paths, id, &state)?;
    }
    if state.status.needs_shim() && !shim_lives(paths, id)? {
        clear(paths, id, &state)?;
        let config = record::config(paths, id)?;
        if config.host.auto_remove {
            crate::remove::erase(paths, id, Some(&config), true)?;
            return Err(Error::NoSuchContainer(id.to_string()));
        }
        state.status = Status::Exited;
        state.exit_code = UNKNOWN_EXIT;
        state.error = "the shim ended before its container".into();
        state.finished = Some(Timestamp::now());
        settle(&mut state);
        record::save_state(paths, id, &state, Durability::Synced)?;
    }
    Ok(state)
}

/// What is true of no container that does not run.
pub(crate) fn settle(state: &mut State) {
    state.pid = 0;
    state.pid_start = 0;
    state.shim_pid = 0;
    state.shim_start = 0;
    state.endpoints.clear();
    state.ports.clear();
}

/// Kills and tears down what a dead shim left. Each step is fine when there is nothing to do.
pub(crate) fn clear(paths: &Paths, id: &ContainerId, state: &State) -> Result<()> {
    if state.pid > 0
        && let Some(pidfd) = berth_sys::pidfd::open_same(state.pid, state.pid_start).at("open", "/proc")?
    {
        // It may end by itself between the two calls.
        let _ = berth_sys::pidfd::send_signal(&pidfd, libc::SIGKILL);
        berth_sys::pidfd::ended_within(&pidfd, None).at("wait for", "/proc")?;
    }
    crate::shim::forget(paths, id)?;
    forget_cgroup(paths, id);
    network::detach(&network_paths(paths), id.as_str()).map_err(|e| Error::Network {
        id: id.to_string(),
        source: Box::new(e),
    })?;
    rootfs::unmount(&paths.rootfs(id)).at("unmount", paths.rootfs(id))?;
    crate::shim::shm::give_back(paths, id).at("unmount", crate::shim::shm::place(paths, id))?;
    match std::fs::remove_dir_all(paths.run_dir(id)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", paths.run_dir(id), e)),
        _ => Ok(()),
    }
}

/// Removes a cgroup that the runtime knows no more of, because the run state was wiped, and kills what is in it. A cgroup that
/// cannot be removed keeps no container from being put right.
fn forget_cgroup(paths: &Paths, id: &ContainerId) {
    let Ok(config) = record::config(paths, id) else {
        return;
    };
    if let Ok(path) = CgroupPath::parse(config.cgroup()) {
        remove_cgroup(&path);
    }
}

/// Removes a cgroup, if it is there, and kills what is in it. Best effort.
pub(crate) fn remove_cgroup(path: &CgroupPath) {
    let _ = Hierarchy::detect().and_then(|hierarchy| {
        let cgroup = Cgroup::open(&hierarchy, path)?;
        cgroup.kill()?;
        cgroup.remove()?;
        hierarchy.remove_made_parents(path);
        Ok(())
    });
}

/// The same two directories, as the network module names them.
pub(crate) fn network_paths(paths: &Paths) -> network::Paths {
    network::Paths::new(&paths.root, &paths.state)
}
