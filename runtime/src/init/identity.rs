//! Who the process is: limits, capabilities, ids, labels. In the order the kernel's rules force.

use std::os::fd::BorrowedFd;

use berth_sys::credentials as sys;

use crate::error::{Error, Result, Step};
use crate::init::rootfs::procfs::Proc;
use crate::process::{CapabilityMasks, ProcessSpec};
use crate::seccomp::Filter;

/// Highest capability number a mask can hold.
const CAPS_MAX: u32 = 63;

/// Limits. Before ids change: raising needs `CAP_SYS_RESOURCE`.
pub(crate) fn set_rlimits(process: &ProcessSpec) -> Result<()> {
    for limit in &process.rlimits {
        sys::set_rlimit(limit.resource, limit.soft, limit.hard).map_err(|e| {
            let mut object = format!("{} to {}:{}", limit.name, limit.soft, limit.hard);
            if e.raw_os_error() == Some(libc::EPERM) {
                object.push_str(" (raising a hard limit needs CAP_SYS_RESOURCE)");
            }
            Error::io("set process.rlimits", object, e)
        })?;
    }
    Ok(())
}

/// Scheduling and I/O priority. Before ids change: raising needs `CAP_SYS_NICE`.
pub(crate) fn set_priorities(process: &ProcessSpec) -> Result<()> {
    if let Some(attr) = process.scheduler {
        sys::set_scheduler(attr).step("set", "process.scheduler")?;
    }
    if let Some((class, level)) = process.io_priority {
        sys::set_io_priority(class, level).step("set", "process.ioPriority")?;
    }
    Ok(())
}

/// The kernel's choice of whom to kill for memory, for the process `proc` knows as `whom`: `self` or a pid.
pub(crate) fn set_oom_score_adj(proc: &Proc, whom: &str, score: Option<i32>) -> Result<()> {
    let Some(score) = score else { return Ok(()) };
    let text = score.to_string();
    let file = format!("{whom}/oom_score_adj");
    let Err(error) = proc.write(&file, text.as_bytes()) else {
        return Ok(());
    };
    // Lowering needs CAP_SYS_RESOURCE; writing what is there already is refused too on some kernels.
    if proc.read(&file).is_ok_and(|now| now.trim() == text) {
        return Ok(());
    }
    Err(Error::Init {
        step: format!("cannot set process.oomScoreAdj to {score}"),
        why: chain(&error),
    })
}

/// Labels for the coming execve. `proc` must be a real procfs, or the write goes nowhere (CVE-2019-16884).
pub(crate) fn set_labels(proc: &Proc, process: &ProcessSpec) -> Result<()> {
    let failed = |field: &str, e: &dyn std::error::Error| Error::Init {
        step: format!("cannot apply {field}"),
        why: chain(e),
    };
    if let Some(label) = &process.selinux_label {
        proc.write("self/attr/exec", label.as_bytes())
            .map_err(|e| failed("process.selinuxLabel", &e))?;
    }
    if let Some(profile) = &process.apparmor_profile {
        let text = format!("exec {profile}");
        let write = proc.write("self/attr/apparmor/exec", text.as_bytes());
        write
            .or_else(|_| proc.write("self/attr/exec", text.as_bytes()))
            .map_err(|e| failed("process.apparmorProfile", &e))?;
    }
    Ok(())
}

/// Becomes the user with its capabilities and nothing of the caller's. With `filter`, loads it first if
/// no_new_privs is off: loading then needs `CAP_SYS_ADMIN`, which goes away here.
pub(crate) fn become_user(process: &ProcessSpec, filter: Option<&LoadFilter<'_>>) -> Result<()> {
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).step("set", "no_new_privs")?;
    } else if let Some(filter) = filter {
        filter.load()?;
    }
    let wanted = process.capabilities;
    keep_bounding(wanted.bounding)?;
    sys::keep_capabilities(true).step("keep", "capabilities")?;
    set_groups(process)?;
    sys::set_gid(process.gid).step("set gid", process.gid.to_string())?;
    sys::set_uid(process.uid).step("set uid", process.uid.to_string())?;
    sys::keep_capabilities(false).step("drop", "kept capabilities")?;
    set_capabilities(wanted)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(process.umask));
    Ok(())
}

/// A filter and what its notify descriptor needs on the way out.
pub(crate) struct LoadFilter<'a> {
    pub(crate) filter: &'a Filter,
    /// The connected `listenerPath` and the container process state.
    pub(crate) listener: Option<(BorrowedFd<'a>, Vec<u8>)>,
}

impl LoadFilter<'_> {
    pub(crate) fn load(&self) -> Result<()> {
        let failed = |e: crate::seccomp::Error| Error::Init {
            step: "cannot load linux.seccomp".into(),
            why: chain(&e),
        };
        let Some(notify) = self.filter.load().map_err(failed)? else {
            return Ok(());
        };
        if let Some((socket, state)) = &self.listener {
            use std::os::fd::AsFd;
            self.filter
                .send_listener(*socket, state, notify.as_fd())
                .map_err(failed)?;
        }
        Ok(())
    }
}

fn set_groups(process: &ProcessSpec) -> Result<()> {
    match sys::set_groups(&process.groups) {
        // A user namespace made without privilege denies setgroups; then there is nothing to set either.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && process.groups.is_empty() => Ok(()),
        other => other.step("set", "process.user.additionalGids"),
    }
}

/// Leaves `keep` in the bounding set. Numbers beyond the kernel's last capability end the list.
fn keep_bounding(keep: u64) -> Result<()> {
    for cap in (0..=CAPS_MAX).filter(|cap| keep >> cap & 1 == 0) {
        match sys::drop_from_bounding_set(cap) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            other => other.step("drop from the bounding set", format!("capability {cap}"))?,
        }
    }
    Ok(())
}

/// Those of `wanted` that are in the bounding set.
fn bounded(wanted: u64) -> u64 {
    let on = |cap: &u32| wanted >> cap & 1 == 1 && sys::in_bounding_set(*cap).unwrap_or(false);
    (0..=CAPS_MAX).filter(on).fold(0, |mask, cap| mask | 1 << cap)
}

/// What the caller lacks is left out, as runc does: a host without `CAP_SYS_RESOURCE` still runs containers that name it.
fn set_capabilities(wanted: CapabilityMasks) -> Result<()> {
    let now = sys::capabilities().step("read", "capabilities")?;
    let permitted = wanted.permitted & now.permitted;
    let inheritable = bounded(wanted.inheritable) & (now.permitted | now.inheritable);
    let sets = sys::CapSets {
        effective: wanted.effective & permitted,
        permitted,
        inheritable,
    };
    sys::set_capabilities(sets).step("set", "process.capabilities")?;
    sys::clear_ambient().step("clear", "ambient capabilities")?;
    let mut ambient = wanted.ambient & permitted & inheritable;
    while ambient != 0 {
        let cap = ambient.trailing_zeros();
        sys::raise_ambient(cap).step("raise", format!("ambient capability {cap}"))?;
        ambient &= ambient - 1;
    }
    Ok(())
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    text
}
