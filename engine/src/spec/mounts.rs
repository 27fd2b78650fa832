//! The mounts of a container: docker's defaults, its own files under /etc, and what the user asked for.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::ContainerConfig;
use crate::error::{At, Error, Result};
use crate::flags::{IpcMode, MountKind, MountSpec};
use crate::paths::Paths;

const SHM_SIZE: u64 = 64 << 20;

fn mount(kind: &str, source: &str, target: &str, options: &[&str]) -> Value {
    json!({ "type": kind, "source": source, "destination": target, "options": options })
}

/// Every mount, in the order they are made.
pub(super) fn all(config: &ContainerConfig, paths: &Paths) -> Result<Vec<Value>> {
    let host = &config.host;
    let user = &host.mounts;
    let taken = |target: &str| user.iter().any(|m| m.target == Path::new(target));
    let sys = if host.privileged { "rw" } else { "ro" };
    let mut mounts = Vec::new();
    let mut add = |kind, source, target, options: &[&str]| {
        if !taken(target) {
            mounts.push(mount(kind, source, target, options));
        }
    };
    add("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]);
    add(
        "tmpfs",
        "tmpfs",
        "/dev",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    );
    add(
        "devpts",
        "devpts",
        "/dev/pts",
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ],
    );
    add("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", sys]);
    // CVE-2022-0492, CVE-2023-25809: writable only for who has the host anyway.
    add(
        "cgroup",
        "cgroup",
        "/sys/fs/cgroup",
        &["nosuid", "noexec", "nodev", "relatime", sys],
    );
    if !matches!(host.ipc, IpcMode::Host | IpcMode::Container(_)) {
        add("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]);
    }
    match &host.ipc {
        IpcMode::None => {}
        IpcMode::Host => add("bind", "/dev/shm", "/dev/shm", &["rbind", "rw"]),
        IpcMode::Container(_) => {
            let source = text(&crate::shim::shm::place(paths, &config.id))?;
            add("bind", &source, "/dev/shm", &["bind", "rw"]);
        }
        IpcMode::Private => {
            let size = format!("size={}", host.shm_size.map_or(SHM_SIZE, |s| s.0));
            add(
                "tmpfs",
                "shm",
                "/dev/shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &size],
            );
        }
    }
    if host.init {
        let source = crate::init::program(paths)?;
        mounts.push(mount(
            "bind",
            &text(&source)?,
            crate::init::TARGET,
            &["bind", "rprivate", "ro", "nosuid", "nodev"],
        ));
    }
    let mut rest = Vec::new();
    let run = paths.run_dir(&config.id);
    for file in ["resolv.conf", "hostname", "hosts"] {
        let (source, target) = (run.join(file), format!("/etc/{file}"));
        if taken(&target) || !source.exists() || no_place_for(user, &target, paths)? {
            continue;
        }
        let access = if host.read_only { "ro" } else { "rw" };
        let spec = mount("bind", &text(&source)?, &target, &["bind", "rprivate", access]);
        rest.push((Path::new(&target).components().count(), spec));
    }
    for spec in user {
        rest.push((spec.target.components().count(), of_user(spec, paths)?));
    }
    // A mount below another comes after it, in whatever order the user wrote them: names are resolved with a volume on /etc too.
    rest.sort_by_key(|(depth, _)| *depth);
    mounts.extend(rest.into_iter().map(|(_, spec)| spec));
    Ok(mounts)
}

/// Whether the user's mount over a file's directory is read-only and lacks it, so that there is nothing to mount the file on.
fn no_place_for(user: &[MountSpec], target: &str, paths: &Paths) -> Result<bool> {
    let Some((over, below)) = user
        .iter()
        .filter_map(|spec| Some((spec, Path::new(target).strip_prefix(&spec.target).ok()?)))
        .max_by_key(|(spec, _)| spec.target.components().count())
    else {
        return Ok(false);
    };
    let source = source(over, paths)?;
    Ok(over.read_only && source.is_none_or(|(source, _)| !source.join(below).exists()))
}

/// A path as config.json can hold it.
pub(crate) fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::Invalid {
        what: format!("path {}", path.display()),
        why: "it is not UTF-8, which config.json cannot hold".into(),
    })
}

/// What a bind or volume shows, and whether with the mounts below it; none for a tmpfs. A missing source that `-v` named
/// is made.
pub(crate) fn source(spec: &MountSpec, paths: &Paths) -> Result<Option<(PathBuf, bool)>> {
    Ok(match &spec.kind {
        MountKind::Bind {
            source,
            create,
            recursive,
        } => {
            if *create && !source.exists() {
                std::fs::create_dir_all(source).at("create", source)?;
            }
            if !source.exists() {
                return Err(Error::Invalid {
                    what: format!("bind mount {}", source.display()),
                    why: "the source path does not exist".into(),
                });
            }
            Some((source.clone(), *recursive))
        }
        MountKind::Volume { name, .. } => {
            let name = name.as_deref().expect("create gives every volume a name");
            Some((paths.root.join("volumes").join(name).join("_data"), true))
        }
        MountKind::Tmpfs { .. } => None,
    })
}

fn of_user(spec: &MountSpec, paths: &Paths) -> Result<Value> {
    let access = if spec.read_only { "ro" } else { "rw" };
    let target = text(&spec.target)?;
    let MountKind::Tmpfs { size, mode, options } = &spec.kind else {
        let (source, recursive) = source(spec, paths)?.expect("binds and volumes have a source");
        let bind = if recursive { "rbind" } else { "bind" };
        let options = [bind, spec.propagation.name(), access];
        return Ok(mount("bind", &text(&source)?, &target, &options));
    };
    let mut all = vec![
        "nosuid".to_owned(),
        "nodev".to_owned(),
        "noexec".to_owned(),
        access.to_owned(),
    ];
    for option in options {
        // The user's word replaces the default it contradicts.
        let opposite = match option.as_str() {
            "exec" => "noexec",
            "suid" => "nosuid",
            "dev" => "nodev",
            _ => "",
        };
        all.retain(|o| o != opposite && o != option);
        all.push(option.clone());
    }
    all.push(format!("mode={:o}", mode.unwrap_or(0o1777)));
    if let Some(size) = size {
        all.push(format!("size={}", size.0));
    }
    Ok(json!({ "type": "tmpfs", "source": "tmpfs", "destination": target, "options": all }))
}

/// Paths shown empty. Beyond docker's classic list: interrupts and thermal throttling tell of the neighbours, powercap of
/// their work (PLATYPUS).
pub(super) fn masked() -> Vec<&'static str> {
    vec![
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]
}

/// Paths that cannot be written.
pub(super) fn read_only() -> Vec<&'static str> {
    vec![
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ]
}
