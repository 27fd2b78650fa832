//! `process` of the specification (config.md#process), checked and in the form the kernel takes it.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use berth_sys::credentials::SchedAttr;
use oci_spec::runtime::{
    Capabilities, Capability, IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimitType,
    Process,
};

use crate::error::{Error, Result};

/// A checked process: nothing here can be refused later but by the kernel.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// `args[0]`, as the user wrote it.
    pub program: String,
    /// At least one.
    pub args: Vec<CString>,
    /// `KEY=value`.
    pub env: Vec<CString>,
    /// Absolute.
    pub cwd: PathBuf,
    /// In the container's user namespace.
    pub uid: u32,
    /// In the container's user namespace.
    pub gid: u32,
    /// Supplementary groups: exactly these, none kept of the caller's.
    pub groups: Vec<u32>,
    /// Files' mode bits to leave out; 0022 unless given.
    pub umask: u32,
    /// Absent in the configuration means none at all, as runc reads it.
    pub capabilities: CapabilityMasks,
    /// `RLIMIT_*` number, name, soft, hard.
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// For `/proc/self/attr/apparmor/exec`.
    pub apparmor_profile: Option<String>,
    /// For `/proc/self/attr/exec`.
    pub selinux_label: Option<String>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Class and level for `ioprio_set(2)`.
    pub io_priority: Option<(u32, u32)>,
    /// For `sched_setattr(2)`.
    pub scheduler: Option<SchedAttr>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// Five sets of `capabilities(7)`; bit n is capability n.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[allow(missing_docs)] // named as in the specification
pub struct CapabilityMasks {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// One limit.
#[derive(Clone, Debug)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// `RLIMIT_NOFILE`, for messages.
    pub name: String,
    /// What counts now.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

impl ProcessSpec {
    /// Checks `process`; `field` is how messages call it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names the field; [`Error::Unsupported`] for what berth does not do.
    pub fn check(process: &Process, field: &str) -> Result<Self> {
        let at = |name: &str| format!("{field}.{name}");
        let args = strings(process.args().as_deref().unwrap_or_default(), &at("args"))?;
        let program = match process.args().as_deref() {
            Some([first, ..]) if !first.is_empty() => first.clone(),
            Some([_, ..]) => return Err(Error::invalid(at("args[0]"), "is empty")),
            _ => return Err(Error::invalid(at("args"), "must name a program")),
        };
        if !process.cwd().is_absolute() {
            return Err(Error::invalid(at("cwd"), "must be an absolute path"));
        }
        if process.cwd().as_os_str().as_encoded_bytes().contains(&0) {
            return Err(Error::invalid(at("cwd"), "holds a NUL byte"));
        }
        let user = process.user();
        let groups = user.additional_gids().clone().unwrap_or_default();
        // The kernel reads -1 as "leave as it is", which would be root (the class of CVE-2024-40635).
        for (name, id) in [("user.uid", user.uid()), ("user.gid", user.gid())] {
            if id == u32::MAX {
                return Err(Error::invalid(at(name), "4294967295 is not an id"));
            }
        }
        if groups.contains(&u32::MAX) {
            return Err(Error::invalid(
                at("user.additionalGids"),
                "4294967295 is not an id",
            ));
        }
        let umask = user.umask().unwrap_or(0o022);
        if umask > 0o777 {
            return Err(Error::invalid(at("user.umask"), "larger than 0777"));
        }
        if let Some(score) = process.oom_score_adj().filter(|s| !(-1000..=1000).contains(s)) {
            return Err(Error::invalid(
                at("oomScoreAdj"),
                format!("{score} is not between -1000 and 1000"),
            ));
        }
        if process.exec_cpu_affinity().is_some() {
            return Err(Error::unsupported(
                at("execCPUAffinity"),
                "use linux.resources.cpu.cpus",
            ));
        }
        let terminal = process.terminal().unwrap_or(false);
        let side =
            |n: u64| u16::try_from(n).map_err(|_| Error::invalid(at("consoleSize"), "larger than 65535"));
        let console_size = match process.console_size().filter(|s| s.height() > 0 || s.width() > 0) {
            Some(size) => Some((side(size.height())?, side(size.width())?)),
            None => None,
        };
        Ok(Self {
            program,
            args,
            env: environment(process.env().as_deref().unwrap_or_default(), &at("env"))?,
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups,
            umask,
            capabilities: capabilities(process, &at("capabilities"))?,
            rlimits: rlimits(process, &at("rlimits"))?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            apparmor_profile: label(process.apparmor_profile().as_deref(), &at("apparmorProfile"))?,
            selinux_label: label(process.selinux_label().as_deref(), &at("selinuxLabel"))?,
            oom_score_adj: process.oom_score_adj(),
            io_priority: io_priority(process, &at("ioPriority"))?,
            scheduler: scheduler(process, &at("scheduler"))?,
            terminal,
            console_size,
        })
    }

    /// The value of a variable of the process's environment; the last one wins, as in the C library's putenv order.
    #[must_use]
    pub fn env_value(&self, key: &str) -> Option<&str> {
        let entry = self.env.iter().rev().filter_map(|e| e.to_str().ok());
        entry
            .filter_map(|e| e.split_once('='))
            .find(|(k, _)| *k == key)
            .map(|(_, v)| v)
    }
}

/// What has no name or no value can be no variable; programs read such entries each in its own way.
fn environment(from: &[String], field: &str) -> Result<Vec<CString>> {
    let odd = |entry: &String| entry.find('=').is_none_or(|at| at == 0);
    if let Some(n) = from.iter().position(odd) {
        return Err(Error::invalid(
            format!("{field}[{n}]"),
            format!("{:?} is not NAME=VALUE", from[n]),
        ));
    }
    strings(from, field)
}

fn strings(from: &[String], field: &str) -> Result<Vec<CString>> {
    let one = |(n, s): (usize, &String)| {
        CString::new(s.as_str()).map_err(|_| Error::invalid(format!("{field}[{n}]"), "holds a NUL byte"))
    };
    from.iter().enumerate().map(one).collect()
}

/// An LSM label. Refused when the host lacks the module, as runc does: running without would be silent.
fn label(text: Option<&str>, field: &str) -> Result<Option<String>> {
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    if text.bytes().any(|b| b == 0 || b == b'\n') {
        return Err(Error::invalid(field, "holds a NUL byte or a newline"));
    }
    let (present, module) = if field.ends_with("apparmorProfile") {
        let enabled =
            std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|e| e.starts_with(b"Y"));
        (enabled, "apparmor")
    } else {
        (Path::new("/sys/fs/selinux/enforce").exists(), "selinux")
    };
    if !present {
        return Err(Error::invalid(
            field,
            format!("{module} is not enabled on the host"),
        ));
    }
    Ok(Some(text.to_owned()))
}

fn capabilities(process: &Process, field: &str) -> Result<CapabilityMasks> {
    let Some(sets) = process.capabilities() else {
        return Ok(CapabilityMasks::default());
    };
    let mask = |set: &Option<Capabilities>| {
        set.iter()
            .flatten()
            .fold(0u64, |mask, cap| mask | 1 << capability_number(*cap))
    };
    let masks = CapabilityMasks {
        bounding: mask(sets.bounding()),
        effective: mask(sets.effective()),
        inheritable: mask(sets.inheritable()),
        permitted: mask(sets.permitted()),
        ambient: mask(sets.ambient()),
    };
    if masks.effective & !masks.permitted != 0 {
        return Err(Error::invalid(
            format!("{field}.effective"),
            "holds a capability that is not permitted",
        ));
    }
    Ok(masks)
}

/// The number of a capability in linux/capability.h.
#[must_use]
pub fn capability_number(cap: Capability) -> u32 {
    use Capability as C;
    match cap {
        C::Chown => 0,
        C::DacOverride => 1,
        C::DacReadSearch => 2,
        C::Fowner => 3,
        C::Fsetid => 4,
        C::Kill => 5,
        C::Setgid => 6,
        C::Setuid => 7,
        C::Setpcap => 8,
        C::LinuxImmutable => 9,
        C::NetBindService => 10,
        C::NetBroadcast => 11,
        C::NetAdmin => 12,
        C::NetRaw => 13,
        C::IpcLock => 14,
        C::IpcOwner => 15,
        C::SysModule => 16,
        C::SysRawio => 17,
        C::SysChroot => 18,
        C::SysPtrace => 19,
        C::SysPacct => 20,
        C::SysAdmin => 21,
        C::SysBoot => 22,
        C::SysNice => 23,
        C::SysResource => 24,
        C::SysTime => 25,
        C::SysTtyConfig => 26,
        C::Mknod => 27,
        C::Lease => 28,
        C::AuditWrite => 29,
        C::AuditControl => 30,
        C::Setfcap => 31,
        C::MacOverride => 32,
        C::MacAdmin => 33,
        C::Syslog => 34,
        C::WakeAlarm => 35,
        C::BlockSuspend => 36,
        C::AuditRead => 37,
        C::Perfmon => 38,
        C::Bpf => 39,
        C::CheckpointRestore => 40,
    }
}

fn rlimits(process: &Process, field: &str) -> Result<Vec<Rlimit>> {
    let mut out: Vec<Rlimit> = Vec::new();
    for (n, limit) in process.rlimits().iter().flatten().enumerate() {
        use PosixRlimitType as T;
        let resource = match limit.typ() {
            T::RlimitCpu => 0,
            T::RlimitFsize => 1,
            T::RlimitData => 2,
            T::RlimitStack => 3,
            T::RlimitCore => 4,
            T::RlimitRss => 5,
            T::RlimitNproc => 6,
            T::RlimitNofile => 7,
            T::RlimitMemlock => 8,
            T::RlimitAs => 9,
            T::RlimitLocks => 10,
            T::RlimitSigpending => 11,
            T::RlimitMsgqueue => 12,
            T::RlimitNice => 13,
            T::RlimitRtprio => 14,
            T::RlimitRttime => 15,
        };
        if limit.soft() > limit.hard() {
            return Err(Error::invalid(
                format!("{field}[{n}].soft"),
                "is larger than hard",
            ));
        }
        if out.iter().any(|other| other.resource == resource) {
            return Err(Error::invalid(format!("{field}[{n}].type"), "is given twice"));
        }
        out.push(Rlimit {
            resource,
            name: limit.typ().to_string(),
            soft: limit.soft(),
            hard: limit.hard(),
        });
    }
    Ok(out)
}

fn io_priority(process: &Process, field: &str) -> Result<Option<(u32, u32)>> {
    let Some(io) = process.io_priority() else {
        return Ok(None);
    };
    let level = u32::try_from(io.priority()).ok().filter(|l| *l < 8);
    let level = level.ok_or_else(|| Error::invalid(format!("{field}.priority"), "must be 0 to 7"))?;
    Ok(Some(match io.class() {
        IOPriorityClass::IoprioClassRt => (1, level),
        IOPriorityClass::IoprioClassBe => (2, level),
        IOPriorityClass::IoprioClassIdle => (3, level),
    }))
}

fn scheduler(process: &Process, field: &str) -> Result<Option<SchedAttr>> {
    let Some(wanted) = process.scheduler() else {
        return Ok(None);
    };
    use LinuxSchedulerFlag as F;
    use LinuxSchedulerPolicy as P;
    let policy = match wanted.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
        P::SchedIso => {
            return Err(Error::unsupported(
                format!("{field}.policy"),
                "Linux has no SCHED_ISO",
            ));
        }
    };
    let mut attr = SchedAttr {
        policy,
        ..SchedAttr::default()
    };
    attr.nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&attr.nice) {
        return Err(Error::invalid(format!("{field}.nice"), "must be -20 to 19"));
    }
    let priority = wanted.priority().unwrap_or(0);
    attr.priority =
        u32::try_from(priority).map_err(|_| Error::invalid(format!("{field}.priority"), "is negative"))?;
    for flag in wanted.flags().iter().flatten() {
        attr.flags |= match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin => 0x20,
            F::SchedFlagUtilClampMax => 0x40,
        };
    }
    attr.runtime = wanted.runtime().unwrap_or(0);
    attr.deadline = wanted.deadline().unwrap_or(0);
    attr.period = wanted.period().unwrap_or(0);
    Ok(Some(attr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: serde_json::Value) -> Result<ProcessSpec> {
        let mut base = serde_json::json!({"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}});
        for (k, v) in json.as_object().expect("object") {
            base[k] = v.clone();
        }
        ProcessSpec::check(&serde_json::from_value(base).expect("parses"), "process")
    }

    fn field(json: serde_json::Value) -> String {
        match check(json) {
            Err(Error::Invalid { field, .. }) => field,
            Err(Error::Unsupported { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_bad_field_is_named() {
        let cases = [
            (serde_json::json!({"args": []}), "process.args"),
            (serde_json::json!({"args": [""]}), "process.args[0]"),
            (serde_json::json!({"args": ["a", "b\u{0}"]}), "process.args[1]"),
            (serde_json::json!({"env": ["A=\u{0}"]}), "process.env[0]"),
            (serde_json::json!({"env": ["A=", "B"]}), "process.env[1]"),
            (serde_json::json!({"env": ["=x"]}), "process.env[0]"),
            (serde_json::json!({"cwd": "etc"}), "process.cwd"),
            (
                serde_json::json!({"user": {"uid": 4_294_967_295u32, "gid": 0}}),
                "process.user.uid",
            ),
            (
                serde_json::json!({"user": {"uid": 0, "gid": 4_294_967_295u32}}),
                "process.user.gid",
            ),
            (
                serde_json::json!({"user": {"uid": 0, "gid": 0, "umask": 512}}),
                "process.user.umask",
            ),
            (serde_json::json!({"oomScoreAdj": 1001}), "process.oomScoreAdj"),
            (
                serde_json::json!({"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}),
                "process.rlimits[0].soft",
            ),
            (
                serde_json::json!({"apparmorProfile": "a\nb"}),
                "process.apparmorProfile",
            ),
            (
                serde_json::json!({"capabilities": {"effective": ["CAP_CHOWN"]}}),
                "process.capabilities.effective",
            ),
            (
                serde_json::json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}),
                "process.ioPriority.priority",
            ),
        ];
        for (json, name) in cases {
            assert_eq!(field(json.clone()), name, "{json}");
        }
    }

    #[test]
    fn the_sets_are_masks_of_kernel_numbers() {
        let caps = serde_json::json!({"capabilities": {"bounding": ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]}});
        let masks = check(caps).expect("valid").capabilities;
        assert_eq!(masks.bounding, 1 | 1 << 40);
        assert_eq!(masks.inheritable, 0);
    }
}
