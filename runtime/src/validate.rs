//! Every check of the specification, one list; what passes becomes a [`ContainerSpec`].
//!
//! The file system part (root, mounts, devices, masked paths) is checked by [`crate::init::rootfs::Plan`], filters by
//! [`crate::seccomp::Filter`], limits by `berth-cgroups`: each where its form is known. All of them run before
//! anything is made.

mod shared_mounts;

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Ns, LinuxPersonalityDomain, Spec};

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::process::ProcessSpec;

/// A checked container: what the check proved to be there is no `Option` any more.
#[derive(Debug)]
pub struct ContainerSpec {
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute path of `root.path`.
    pub rootfs: PathBuf,
    /// The user's program.
    pub process: ProcessSpec,
    /// New and joined namespaces.
    pub namespaces: Namespaces,
    /// Lines for `uid_map`; empty without a new user namespace.
    pub uid_map: String,
    /// Lines for `gid_map`.
    pub gid_map: String,
    /// Lines for `timens_offsets`.
    pub time_offsets: String,
    /// File below `/proc/sys`, and what to write.
    pub sysctls: Vec<(String, String)>,
    /// For `personality(2)`.
    pub personality: Option<u64>,
    /// What was parsed, for those who check their own part.
    pub spec: Spec,
    /// What of it is left out, and why.
    pub warnings: Vec<String>,
}

/// Which namespaces are made and which are entered.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Namespaces {
    /// `CLONE_NEW*` bits of the new ones.
    pub new: u64,
    /// `CLONE_NEW*` bit and path of those joined.
    pub join: Vec<(u64, PathBuf)>,
}

impl Namespaces {
    /// Whether the container has its own namespace of this type, new or joined.
    #[must_use]
    pub fn has(&self, kind: Ns) -> bool {
        self.all() & bit(kind) != 0
    }

    /// Whether a new one of this type is made.
    #[must_use]
    pub fn makes(&self, kind: Ns) -> bool {
        self.new & bit(kind) != 0
    }

    /// Whether one of this type is joined.
    #[must_use]
    pub fn joins(&self, kind: Ns) -> bool {
        self.join.iter().any(|(joined, _)| *joined == bit(kind))
    }

    /// Whether its mount namespace is not its own but joined or, left out of the list, the runtime's.
    #[must_use]
    pub fn shares_mounts(&self) -> bool {
        !self.makes(Ns::Mount)
    }

    /// Bits of all.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.join.iter().fold(self.new, |all, (kind, _)| all | kind)
    }
}

/// The `CLONE_NEW*` bit of a namespace type.
#[must_use]
pub fn bit(kind: Ns) -> u64 {
    u64::from((kind as i32).unsigned_abs())
}

/// Checks a bundle.
///
/// # Errors
///
/// [`Error::Invalid`] names the field and why; [`Error::Unsupported`] for what berth does not do.
pub fn check(bundle: Bundle) -> Result<ContainerSpec> {
    let spec = bundle.spec;
    version(&spec)?;
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::invalid("root", "is missing"))?;
    if root.path().as_os_str().is_empty() {
        return Err(Error::invalid("root.path", "is empty"));
    }
    let rootfs = bundle.dir.join(root.path());
    let given = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::invalid("process", "is missing"))?;
    let process = ProcessSpec::check(given, "process")?;
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| Error::invalid("linux", "is missing"))?;
    if spec.vm().is_some() || spec.windows().is_some() || spec.solaris().is_some() || spec.zos().is_some() {
        return Err(Error::unsupported(
            "config.json",
            "it is for another platform than linux",
        ));
    }
    let namespaces = namespaces(linux)?;
    if namespaces.shares_mounts() {
        shared_mounts::check(&spec, &namespaces)?;
    }
    names(&spec, &namespaces)?;
    // config.md#annotations
    if spec
        .annotations()
        .as_ref()
        .is_some_and(|all| all.contains_key(""))
    {
        return Err(Error::invalid("annotations", "holds an empty key"));
    }
    let mut warnings = bundle.warnings;
    // In a user namespace of its own the first process has them all.
    if !namespaces.has(Ns::User) {
        warnings.extend(crate::capabilities::lacking(given));
    }
    unsupported(linux)?;
    hooks(&spec)?;
    let (uid_map, gid_map) = id_maps(linux, &namespaces)?;
    let time_offsets = time_offsets(linux, &namespaces)?;
    let sysctls = sysctls(linux, &namespaces)?;
    let personality = personality(linux)?;
    Ok(ContainerSpec {
        bundle: bundle.dir,
        rootfs,
        process,
        namespaces,
        uid_map,
        gid_map,
        time_offsets,
        sysctls,
        personality,
        spec,
        warnings,
    })
}

fn version(spec: &Spec) -> Result<()> {
    let mut parts = spec.version().split('.');
    let numeric =
        |part: Option<&str>| part.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    if parts.next() == Some("1") && numeric(parts.next()) && parts.next().is_some() {
        return Ok(());
    }
    Err(Error::invalid(
        "ociVersion",
        format!("{:?} is not a version 1.x.y", spec.version()),
    ))
}

fn namespaces(linux: &Linux) -> Result<Namespaces> {
    let mut found = Namespaces::default();
    for (n, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let kind = bit(namespace.typ());
        if found.all() & kind != 0 {
            return Err(Error::invalid(
                format!("linux.namespaces[{n}].type"),
                "is given twice",
            ));
        }
        match namespace.path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
            None => found.new |= kind,
            Some(path) if path.is_absolute() => found.join.push((kind, path.clone())),
            Some(_) => {
                return Err(Error::invalid(
                    format!("linux.namespaces[{n}].path"),
                    "must be an absolute path",
                ));
            }
        }
    }
    Ok(found)
}

fn names(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_ref().filter(|n| !n.is_empty()) else {
            continue;
        };
        if !namespaces.has(Ns::Uts) {
            return Err(Error::invalid(field, "needs a uts namespace in linux.namespaces"));
        }
        if name.len() > 64 || name.contains('\0') {
            return Err(Error::invalid(field, "must be at most 64 bytes without NUL"));
        }
    }
    Ok(())
}

fn unsupported(linux: &Linux) -> Result<()> {
    if linux.intel_rdt().is_some() {
        return Err(Error::unsupported(
            "linux.intelRdt",
            "berth does not manage resctrl groups",
        ));
    }
    if linux.memory_policy().is_some() {
        return Err(Error::unsupported(
            "linux.memoryPolicy",
            "use linux.resources.cpu.mems",
        ));
    }
    if linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(Error::unsupported(
            "linux.netDevices",
            "move devices with a createRuntime hook",
        ));
    }
    if linux.mount_label().as_ref().is_some_and(|l| !l.is_empty())
        && !std::path::Path::new("/sys/fs/selinux/enforce").exists()
    {
        return Err(Error::invalid(
            "linux.mountLabel",
            "selinux is not enabled on the host",
        ));
    }
    Ok(())
}

fn hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    for (kind, list) in crate::hooks::kinds(hooks) {
        for (n, hook) in list.iter().enumerate() {
            let field = |name: &str| format!("hooks.{kind}[{n}].{name}");
            if !hook.path().is_absolute() {
                return Err(Error::invalid(field("path"), "must be an absolute path"));
            }
            if hook.timeout().is_some_and(|t| t <= 0) {
                return Err(Error::invalid(field("timeout"), "must be greater than zero"));
            }
        }
    }
    Ok(())
}

fn id_maps(linux: &Linux, namespaces: &Namespaces) -> Result<(String, String)> {
    let uids = linux.uid_mappings().as_deref().unwrap_or_default();
    let gids = linux.gid_mappings().as_deref().unwrap_or_default();
    if !namespaces.makes(Ns::User) {
        // With a joined namespace engines repeat its mappings here; they are in force already.
        if !(namespaces.has(Ns::User) || uids.is_empty() && gids.is_empty()) {
            return Err(Error::invalid(
                "linux.uidMappings",
                "needs a user namespace in linux.namespaces",
            ));
        }
        return Ok(Default::default());
    }
    Ok((
        id_map(uids, "linux.uidMappings")?,
        id_map(gids, "linux.gidMappings")?,
    ))
}

fn id_map(mappings: &[LinuxIdMapping], field: &str) -> Result<String> {
    if mappings.is_empty() {
        return Err(Error::invalid(
            field,
            "must not be empty with a new user namespace",
        ));
    }
    let mut lines = String::new();
    for (n, map) in mappings.iter().enumerate() {
        let field = format!("{field}[{n}].size");
        if map.size() == 0 {
            return Err(Error::invalid(field, "is 0"));
        }
        if map.container_id().checked_add(map.size() - 1).is_none()
            || map.host_id().checked_add(map.size() - 1).is_none()
        {
            return Err(Error::invalid(field, "reaches beyond the last id"));
        }
        lines.push_str(&format!(
            "{} {} {}\n",
            map.container_id(),
            map.host_id(),
            map.size()
        ));
    }
    Ok(lines)
}

fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<String> {
    let mut lines = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let field = format!("linux.timeOffsets.{clock}");
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::invalid(field, "only monotonic and boottime have offsets"));
        }
        if !namespaces.makes(Ns::Time) {
            return Err(Error::invalid(
                field,
                "needs a new time namespace in linux.namespaces",
            ));
        }
        let nanos = offset.nanosecs().unwrap_or(0);
        if nanos >= 1_000_000_000 {
            return Err(Error::invalid(field, "nanosecs must be below 1000000000"));
        }
        lines.push_str(&format!("{clock} {} {nanos}\n", offset.secs().unwrap_or(0)));
    }
    Ok(lines)
}

/// sysctls of the ipc namespace outside `fs.mqueue.`.
const IPC_SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.shm_next_id",
];

/// Only what belongs to a namespace of the container: any other file of `/proc/sys` changes the host.
fn sysctls(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let field = || format!("linux.sysctl.{}", key.escape_debug());
        let path = sysctl_path(key).ok_or_else(|| Error::invalid(field(), "is not the name of a sysctl"))?;
        let dotted = path.replace('/', ".");
        let needed = if dotted.starts_with("net.") {
            Ns::Network
        } else if IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            Ns::Ipc
        } else if dotted == "kernel.domainname" {
            Ns::Uts
        } else if dotted == "kernel.hostname" {
            return Err(Error::invalid(field(), "set hostname instead"));
        } else {
            return Err(Error::invalid(
                field(),
                "does not belong to a namespace: it would change the host",
            ));
        };
        if !namespaces.has(needed) {
            let why = format!("needs a namespace of type {needed} in linux.namespaces");
            return Err(Error::invalid(field(), why));
        }
        out.push((path, value.clone()));
    }
    Ok(out)
}

/// The file below `/proc/sys`. As sysctl(8): the first separator decides; with dots as separators a slash stands for
/// a dot in a name (`net.ipv4.conf.eth0/1.rp_filter`).
fn sysctl_path(key: &str) -> Option<String> {
    let path: String = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.to_owned(),
    };
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    path.split('/').all(plain).then_some(path)
}

pub(crate) fn personality(linux: &Linux) -> Result<Option<u64>> {
    let Some(wanted) = linux.personality() else {
        return Ok(None);
    };
    if wanted.flags().as_ref().is_some_and(|f| !f.is_empty()) {
        return Err(Error::unsupported(
            "linux.personality.flags",
            "the specification defines none",
        ));
    }
    Ok(Some(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small valid configuration with the value at JSON pointer `at` replaced.
    fn with(at: &str, value: serde_json::Value) -> Result<ContainerSpec> {
        let mut config = serde_json::json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
        });
        let (parent, key) = at.rsplit_once('/').expect("pointer");
        config.pointer_mut(parent).expect("parent")[key] = value;
        let text = config.to_string();
        let dir = PathBuf::from("/bundle");
        let spec = crate::bundle::parse(text.as_bytes(), &dir.join("config.json"))?;
        check(Bundle {
            dir,
            spec,
            warnings: Vec::new(),
        })
    }

    fn field(result: Result<ContainerSpec>) -> String {
        match result {
            Err(Error::Invalid { field, .. } | Error::Config { field, .. }) => field,
            Err(Error::Unsupported { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bad_value_in_each_section_is_named() {
        let j = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("json");
        let cases = [
            ("/ociVersion", r#""2.0.0""#, "ociVersion"),
            ("/root", "null", "root"),
            ("/root/path", r#""""#, "root.path"),
            ("/root/readonly", r#""yes""#, "root.readonly"),
            ("/process", "null", "process"),
            ("/process/args", r#""sh""#, "process.args"),
            ("/process/user", r#"{"uid": -1, "gid": 0}"#, "process.user.uid"),
            ("/mounts", r#"[{"destination": 4}]"#, "mounts[0].destination"),
            ("/hostname", r#""x""#, "hostname"),
            (
                "/hooks",
                r#"{"poststop": [{"path": "rel"}]}"#,
                "hooks.poststop[0].path",
            ),
            (
                "/hooks",
                r#"{"prestart": [{"path": "/x", "timeout": 0}]}"#,
                "hooks.prestart[0].timeout",
            ),
            (
                "/linux/namespaces",
                r#"[{"type": "mount"}, {"type": "mount"}]"#,
                "linux.namespaces[1].type",
            ),
            (
                "/linux/namespaces",
                r#"[{"type": "mount"}, {"type": "network", "path": "x"}]"#,
                "linux.namespaces[1].path",
            ),
            (
                "/linux/namespaces",
                r#"[{"type": "mount"}, {"type": "user"}]"#,
                "linux.uidMappings",
            ),
            (
                "/linux/namespaces",
                r#"[{"type": "moon"}]"#,
                "linux.namespaces[0].type",
            ),
            (
                "/linux/uidMappings",
                r#"[{"hostID": 1, "containerID": 0, "size": 1}]"#,
                "linux.uidMappings",
            ),
            (
                "/linux/sysctl",
                r#"{"kernel.panic": "1"}"#,
                "linux.sysctl.kernel.panic",
            ),
            (
                "/linux/sysctl",
                r#"{"net.ipv4.ip_forward": "1"}"#,
                "linux.sysctl.net.ipv4.ip_forward",
            ),
            (
                "/linux/sysctl",
                r#"{"net/../kernel/panic": "1"}"#,
                "linux.sysctl.net/../kernel/panic",
            ),
            (
                "/linux/timeOffsets",
                r#"{"monotonic": {"secs": 1}}"#,
                "linux.timeOffsets.monotonic",
            ),
            ("/linux/intelRdt", r#"{"closID": "x"}"#, "linux.intelRdt"),
        ];
        for (at, value, name) in cases {
            assert_eq!(field(with(at, j(value))), name, "{at} = {value}");
        }
    }

    #[test]
    fn dots_and_slashes_change_roles_in_sysctl_names() {
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.rp_filter").as_deref(),
            Some("net/ipv4/conf/eth0.1/rp_filter")
        );
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/rp_filter").as_deref(),
            Some("net/ipv4/conf/eth0.1/rp_filter")
        );
        assert_eq!(sysctl_path("net/../x"), None);
        assert_eq!(sysctl_path(""), None);
    }

    proptest! {
        #[test]
        fn a_sysctl_path_never_leaves_proc_sys(key in "[a-z./\\PC]{0,40}") {
            if let Some(path) = sysctl_path(&key) {
                let all_normal = std::path::Path::new(&path)
                    .components()
                    .all(|c| matches!(c, std::path::Component::Normal(_)));
                prop_assert!(all_normal && !path.starts_with('/'));
            }
        }
    }
}
