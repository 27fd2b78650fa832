//! Roots built for real, each in a thread with a mount namespace of its own: `unshare(CLONE_FS)` gives a thread its own root,
//! working directory and umask, so tests do not meet.
#![allow(unsafe_code)] // unshare(2), whose effect is confined to the thread made for it

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::{Value, json};

use super::*;

/// Runs `test` where its mounts are nobody else's. Skips aloud without root.
fn in_mount_namespace(test: impl FnOnce() + Send) {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("BERTH_TESTS_STRICT").is_none(), "needs root");
        eprintln!("skipped: needs root");
        return;
    }
    std::thread::scope(|scope| {
        let joined = scope
            .spawn(|| {
                // SAFETY: neither flag touches the descriptor table or anything another thread relies on.
                unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }.expect("unshare");
                test();
            })
            .join();
        if let Err(panic) = joined {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A bundle with an empty rootfs.
fn bundle() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::create_dir(dir.path().join("rootfs")).expect("rootfs");
    dir
}

fn spec(mounts: Value, more: Value) -> Spec {
    let mut spec = json!({
        "ociVersion": "1.2.0", "root": {"path": "rootfs"}, "mounts": mounts,
        "linux": {"namespaces": [{"type": "mount"}]},
    });
    for (key, value) in more.as_object().expect("object") {
        match spec[key].as_object_mut() {
            Some(known) => known.extend(value.as_object().expect("object").clone()),
            None => spec[key] = value.clone(),
        }
    }
    serde_json::from_value(spec).expect("spec")
}

fn standard_mounts() -> Vec<Value> {
    vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k", "ro"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
    ]
}

fn build_with(bundle: &Path, spec: &Spec) -> Result<(Plan, Mounted)> {
    let plan = Plan::prepare(spec, bundle)?;
    let mounted = setup(&plan)?;
    Ok((plan, mounted))
}

fn enter(bundle: &Path, spec: &Spec) {
    let (plan, mounted) = build_with(bundle, spec).expect("setup");
    pivot(&plan, &mounted, false).expect("pivot");
    finish(&plan).expect("finish");
}

fn refused(bundle: &Path, spec: &Spec) -> String {
    let error = build_with(bundle, spec).expect_err("must be refused");
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
    error.to_string()
}

fn mount_line(point: &str) -> String {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    table
        .lines()
        .rfind(|l| l.split(' ').nth(4) == Some(point))
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_standard_root_has_everything_and_nothing_of_the_host() {
    let bundle = bundle();
    in_mount_namespace(|| {
        let linux = json!({"maskedPaths": ["/proc/version", "/sys/firmware", "/proc/absent", "/secret", "/hidden"],
            "readonlyPaths": ["/proc/sys"],
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o660, "uid": 7, "gid": 8}]});
        let rootfs = bundle.path().join("rootfs");
        std::fs::create_dir(rootfs.join("secret")).unwrap();
        std::fs::create_dir(rootfs.join("hidden")).unwrap();
        std::fs::write(rootfs.join("secret/key"), "x").unwrap();
        let more = json!({"linux": linux, "process": {"terminal": true, "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "root": {"readonly": true}});
        let (plan, mounted) =
            build_with(bundle.path(), &spec(standard_mounts().into(), more)).expect("setup");
        let console = mounted.console.as_ref().expect("a console");
        assert!(rustix::termios::isatty(&console.slave));
        pivot(&plan, &mounted, false).expect("pivot");
        finish(&plan).expect("finish");

        procfs::Proc::open().expect("a real /proc");
        let null = std::fs::metadata("/dev/null").unwrap();
        assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
        assert_eq!(null.permissions().mode() & 0o7777, 0o666);
        let fuse = std::fs::metadata("/dev/fuse").unwrap();
        assert_eq!(
            (fuse.uid(), fuse.gid(), fuse.permissions().mode() & 0o7777),
            (7, 8, 0o660)
        );
        assert_eq!(std::fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
        assert_eq!(
            std::fs::read_link("/dev/stderr").unwrap(),
            Path::new("/proc/self/fd/2")
        );
        assert_eq!(
            std::fs::metadata("/dev/shm").unwrap().permissions().mode() & 0o7777,
            0o1777
        );
        let slave = rustix::fs::fstat(&console.slave).unwrap();
        assert_eq!(std::fs::metadata("/dev/console").unwrap().rdev(), slave.st_rdev);
        // Read-only: the root, the tmpfs of /dev although nodes were made in it, what is masked and /proc/sys.
        for path in ["/x", "/dev/x", "/secret/x", "/sys/fs/cgroup/x"] {
            let error = std::fs::write(path, "").expect_err(path);
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{path}");
        }
        assert_eq!(std::fs::read_dir("/secret").unwrap().count(), 0);
        assert!(
            std::fs::metadata("/proc/version")
                .unwrap()
                .file_type()
                .is_char_device()
        );
        assert!(std::fs::read("/proc/version").unwrap().is_empty());
        assert!(mount_line("/proc/sys").contains(" ro"));
        assert!(mount_line("/dev/shm").contains("nosuid,nodev,noexec"));
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert_eq!(
            table.lines().filter(|l| l.split(' ').nth(4) == Some("/")).count(),
            1,
            "{table}"
        );
        assert!(!table.contains("rootfs/"), "{table}");
        // release_agent (CVE-2022-0492) is out of reach: each hierarchy is read-only.
        for line in table.lines().filter(|l| l.contains(" - cgroup")) {
            assert!(
                line.split(' ')
                    .nth(5)
                    .unwrap()
                    .starts_with("ro,nosuid,nodev,noexec"),
                "{line}"
            );
        }
        assert!(table.lines().any(|l| l.contains(" - cgroup")), "{table}");
    });
}

#[test]
fn links_in_the_image_lead_nowhere_outside() {
    let bundle = bundle();
    let outside = tempfile::tempdir().unwrap();
    let climbed_to = tempfile::tempdir().unwrap();
    in_mount_namespace(|| {
        let rootfs = bundle.path().join("rootfs");
        symlink(outside.path(), rootfs.join("absolute")).unwrap();
        let climbing = format!("../../../../../../../..{}", climbed_to.path().display());
        symlink(climbing, rootfs.join("climbing")).unwrap();
        symlink(outside.path().join("fresh"), rootfs.join("dangling")).unwrap();
        std::fs::write(outside.path().join("file"), "host").unwrap();
        let source = outside.path().join("file");
        let mounts = json!([
            {"destination": "/absolute/a", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/climbing/b", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/dangling/c", "source": source, "options": ["bind", "ro"]},
        ]);
        let (_plan, _mounted) = build_with(bundle.path(), &spec(mounts, json!({}))).expect("setup");
        let names: Vec<_> = std::fs::read_dir(outside.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["file"], "created on the host");
        assert!(!climbed_to.path().join("b").exists());
        let below = |p: &Path| rootfs.join(p.strip_prefix("/").unwrap());
        assert!(below(&outside.path().join("a")).is_dir());
        assert_eq!(
            std::fs::read_to_string(below(&outside.path().join("fresh/c"))).unwrap(),
            "host"
        );
    });
}

#[test]
fn a_directory_exchanged_for_a_link_meanwhile_leads_nowhere_outside() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let bundle = bundle();
    let outside = tempfile::tempdir().unwrap();
    let rootfs = bundle.path().join("rootfs");
    std::fs::create_dir(rootfs.join("swap")).unwrap();
    symlink(outside.path(), rootfs.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let root = std::fs::File::open(&rootfs).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (rootfs.join("swap"), rootfs.join("link"));
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags).unwrap();
            }
        });
        for i in 0..2000 {
            let path = format!("/swap/d{i}/e");
            // A lost race may be an error; a directory outside may not be.
            let _ = resolve::open_or_create(
                std::os::fd::AsFd::as_fd(&root),
                Path::new(&path),
                resolve::Place::Dir,
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        std::fs::read_dir(outside.path()).unwrap().count(),
        0,
        "created on the host"
    );
}

#[test]
fn linked_kernel_directories_are_refused() {
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs"), ("dev", "tmpfs")] {
        let bundle = bundle();
        in_mount_namespace(|| {
            symlink("/tmp", bundle.path().join("rootfs").join(name)).unwrap();
            let mounts = json!([{"destination": format!("/{name}"), "type": kind, "source": kind}]);
            assert!(refused(bundle.path(), &spec(mounts, json!({}))).contains("symbolic link"));
        });
    }
}

#[test]
fn nothing_is_mounted_inside_proc_under_any_name() {
    for destination in ["/proc/self", "/proc/sys/kernel", "/x/../proc/1/attr", "/proc"] {
        let mounts = json!([{"destination": destination, "type": "tmpfs", "source": "tmpfs"}]);
        let error =
            Plan::prepare(&spec(mounts, json!({})), Path::new("/nonexistent")).expect_err(destination);
        assert!(error.to_string().starts_with("mounts[0].destination"), "{error}");
    }
    let bundle = bundle();
    in_mount_namespace(|| {
        symlink("/proc", bundle.path().join("rootfs/alias")).unwrap();
        let mounts = json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/alias/sys", "type": "tmpfs", "source": "tmpfs"},
        ]);
        assert!(refused(bundle.path(), &spec(mounts, json!({}))).contains("inside a procfs"));
    });
}

#[test]
fn a_false_proc_is_found_out() {
    let bundle = bundle();
    in_mount_namespace(|| {
        std::fs::create_dir(bundle.path().join("fake")).unwrap();
        let mounts = json!([{"destination": "/proc", "source": "fake", "options": ["bind"]}]);
        assert!(refused(bundle.path(), &spec(mounts, json!({}))).contains("no procfs"));
        std::fs::create_dir_all(bundle.path().join("rootfs/proc/sys")).unwrap();
        enter(bundle.path(), &spec(json!([]), json!({})));
        assert!(matches!(procfs::Proc::open(), Err(Error::Untrusted { .. })));
    });
}

#[test]
fn writes_to_proc_do_not_cross_mounts() {
    let bundle = bundle();
    in_mount_namespace(|| {
        std::fs::write(bundle.path().join("false"), "1").unwrap();
        let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/proc/uptime", "source": "false", "options": ["bind"]}]);
        enter(bundle.path(), &spec(mounts, json!({})));
        let error = procfs::Proc::open()
            .unwrap()
            .write("uptime", b"x")
            .expect_err("crossed");
        let Error::Proc { source, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(source.kind(), std::io::ErrorKind::CrossesDevices);
    });
}

#[test]
fn a_false_null_device_is_refused() {
    let bundle = bundle();
    in_mount_namespace(|| {
        std::fs::create_dir(bundle.path().join("rootfs/dev")).unwrap();
        std::fs::write(bundle.path().join("rootfs/dev/null"), "").unwrap();
        assert!(refused(bundle.path(), &spec(json!([]), json!({}))).contains("not that device"));
    });
    // Also when /dev is a bind mount that we do not fill: masking proves what it mounts (CVE-2025-31133).
    in_mount_namespace(|| {
        let false_dev = bundle.path().join("false-dev");
        std::fs::create_dir(&false_dev).unwrap();
        symlink("/etc/passwd", false_dev.join("null")).unwrap();
        std::fs::create_dir_all(bundle.path().join("rootfs/etc")).unwrap();
        std::fs::write(bundle.path().join("rootfs/etc/passwd"), "").unwrap();
        std::fs::write(bundle.path().join("rootfs/secret"), "").unwrap();
        let mounts = json!([{"destination": "/dev", "source": "false-dev", "options": ["bind"]}]);
        let spec = spec(mounts, json!({"linux": {"maskedPaths": ["/secret"]}}));
        let (plan, mounted) = build_with(bundle.path(), &spec).expect("setup");
        pivot(&plan, &mounted, false).expect("pivot");
        let error = finish(&plan).expect_err("mounted a false null");
        assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
        assert_eq!(
            std::fs::read_dir("/dev").unwrap().count(),
            1,
            "a foreign /dev was filled"
        );
    });
}

#[test]
fn a_false_terminal_multiplexer_is_refused() {
    let bundle = bundle();
    in_mount_namespace(|| {
        std::fs::create_dir_all(bundle.path().join("rootfs/dev/pts")).unwrap();
        std::fs::write(bundle.path().join("rootfs/dev/pts/ptmx"), "").unwrap();
        let process = json!({"process": {"terminal": true, "cwd": "/", "user": {"uid": 0, "gid": 0}}});
        assert!(refused(bundle.path(), &spec(json!([]), process)).contains("multiplexer"));
    });
}

#[test]
fn recursive_read_only_reaches_what_plain_does_not() {
    let bundle = bundle();
    in_mount_namespace(|| {
        let tree = bundle.path().join("tree");
        std::fs::create_dir_all(tree.join("below")).unwrap();
        rustix::mount::mount(
            "tmpfs",
            tree.join("below"),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        let mounts = json!([
            {"destination": "/plain", "source": "tree", "options": ["rbind", "ro"]},
            {"destination": "/all", "source": "tree", "options": ["rbind", "rro", "rnosuid", "rprivate"]},
            {"destination": "/single", "source": "tree", "options": ["bind", "noexec", "unbindable"]},
            {"destination": "/proc", "type": "proc", "source": "proc"},
        ]);
        enter(bundle.path(), &spec(mounts, json!({})));
        std::fs::write("/plain/below/x", "").expect("ro is for the top alone");
        std::fs::write("/plain/x", "").expect_err("ro");
        std::fs::write("/all/below/x", "").expect_err("rro");
        assert!(mount_line("/all/below").contains("ro,nosuid"));
        assert!(mount_line("/single/below").is_empty());
        assert!(mount_line("/single").contains("noexec") && mount_line("/single").contains("unbindable"));
    });
}

#[test]
fn ids_are_mapped_as_the_mount_says() {
    let bundle = bundle();
    in_mount_namespace(|| {
        std::fs::create_dir(bundle.path().join("data")).unwrap();
        std::fs::write(bundle.path().join("data/file"), "").unwrap();
        let ids = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
        let mounts = json!([
            {"destination": "/data", "source": "data", "options": ["bind", "idmap"], "uidMappings": ids, "gidMappings": ids},
            {"destination": "/tree", "source": "data", "options": ["rbind", "ridmap"], "uidMappings": ids, "gidMappings": ids},
        ]);
        enter(bundle.path(), &spec(mounts, json!({})));
        for path in ["/data/file", "/tree/file"] {
            let file = std::fs::metadata(path).unwrap();
            assert_eq!((file.uid(), file.gid()), (5000, 5000), "{path}");
        }
    });
    let mounts = json!([{"destination": "/data", "source": "data", "options": ["bind", "idmap"]}]);
    let error = Plan::prepare(&spec(mounts, json!({})), bundle.path()).expect_err("no mapping anywhere");
    assert!(error.to_string().contains("uidMappings"), "{error}");
}

#[test]
fn a_tmpfs_takes_what_the_image_has() {
    let bundle = bundle();
    in_mount_namespace(|| {
        let etc = bundle.path().join("rootfs/etc");
        std::fs::create_dir_all(etc.join("deep/er")).unwrap();
        std::fs::write(etc.join("deep/er/file"), "text").unwrap();
        std::fs::set_permissions(etc.join("deep/er/file"), PermissionsExt::from_mode(0o4751)).unwrap();
        std::os::unix::fs::chown(etc.join("deep"), Some(3), Some(4)).unwrap();
        symlink("/host/secret", etc.join("link")).unwrap();
        std::fs::create_dir(bundle.path().join("rootfs/tmp")).unwrap();
        std::fs::set_permissions(
            bundle.path().join("rootfs/tmp"),
            PermissionsExt::from_mode(0o1777),
        )
        .unwrap();
        let mounts = json!([
            {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]},
        ]);
        enter(bundle.path(), &spec(mounts, json!({})));
        assert_eq!(std::fs::read_to_string("/etc/deep/er/file").unwrap(), "text");
        assert_eq!(
            std::fs::metadata("/etc/deep/er/file").unwrap().mode() & 0o7777,
            0o4751
        );
        assert_eq!(std::fs::metadata("/etc/deep").unwrap().gid(), 4);
        assert_eq!(
            std::fs::read_link("/etc/link").unwrap(),
            Path::new("/host/secret")
        );
        std::fs::write("/etc/x", "").expect_err("read-only");
        assert_eq!(
            std::fs::metadata("/tmp").unwrap().mode() & 0o7777,
            0o1777,
            "the image's own mode"
        );
    });
}

#[test]
fn an_overlay_takes_more_layers_than_one_string_holds() {
    let bundle = bundle();
    in_mount_namespace(|| {
        let lower: Vec<String> = (0..12)
            .map(|i| {
                let dir = bundle.path().join(format!("layer-with-a-long-name-{i}"));
                std::fs::create_dir(&dir).unwrap();
                std::fs::write(dir.join(format!("f{i}")), "").unwrap();
                dir.display().to_string()
            })
            .collect();
        let mounts = json!([{"destination": "/merged", "type": "overlay", "source": "overlay",
            "options": ["ro", "nodev", format!("lowerdir={}", lower.join(":"))]}]);
        enter(bundle.path(), &spec(mounts, json!({})));
        assert_eq!(std::fs::read_dir("/merged").unwrap().count(), 12);
    });
}

#[test]
fn a_bad_option_is_explained_by_the_file_system() {
    let bundle = bundle();
    in_mount_namespace(|| {
        let mounts = json!([{"destination": "/t", "type": "tmpfs", "source": "t", "options": ["size=lots"]}]);
        let error = build_with(bundle.path(), &spec(mounts, json!({}))).expect_err("size");
        assert!(error.to_string().contains("set size=lots"), "{error}");
    });
}

#[test]
fn shared_roots_keep_our_mounts_from_the_host() {
    let bundle = bundle();
    in_mount_namespace(|| {
        let base = bundle.path();
        rustix::mount::mount_bind(base, base).unwrap();
        rustix::mount::mount_change(base, rustix::mount::MountPropagationFlags::SHARED).unwrap();
        // Another namespace that shares `base`: what leaks appears here.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: as in `in_mount_namespace`.
                unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }.unwrap();
                let mounts = json!([{"destination": "/t", "type": "tmpfs", "source": "t"},
                    {"destination": "/proc", "type": "proc", "source": "proc"}]);
                enter(
                    base,
                    &spec(mounts, json!({"linux": {"rootfsPropagation": "shared"}})),
                );
                assert!(mount_line("/").contains("shared:"));
            });
        });
        assert!(mount_line(&base.join("rootfs").display().to_string()).is_empty());
        assert!(mount_line(&base.join("rootfs/t").display().to_string()).is_empty());
        unmount(base, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn without_pivot_the_hosts_proc_is_gone() {
    let bundle = bundle();
    in_mount_namespace(|| {
        let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
        let (plan, mounted) = build_with(bundle.path(), &spec(mounts, json!({}))).expect("setup");
        pivot(&plan, &mounted, true).expect("move");
        finish(&plan).expect("finish");
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert_eq!(
            table.lines().filter(|l| l.contains(" - proc ")).count(),
            1,
            "{table}"
        );
        assert!(!table.contains(" - sysfs "), "{table}");
    });
}

/// Set in the copy of this test binary that runs inside a user namespace.
const INSIDE: &str = "BERTH_TEST_IN_USER_NAMESPACE";

#[test]
fn in_a_user_namespace_devices_are_the_hosts() {
    if std::env::var_os(INSIDE).is_none() {
        // A process with threads cannot enter a user namespace, so the test runs again in one made for it.
        let status = std::process::Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "--net",
                "--ipc",
                "--pid",
                "--fork",
            ])
            .arg(std::env::current_exe().expect("this binary"))
            .args([
                "--exact",
                "init::rootfs::tests::in_a_user_namespace_devices_are_the_hosts",
            ])
            .env(INSIDE, "1")
            .output()
            .expect("unshare of util-linux");
        let said = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let bundle = bundle();
    in_mount_namespace(|| {
        std::fs::create_dir(bundle.path().join("data")).unwrap();
        std::fs::write(bundle.path().join("data/file"), "text").unwrap();
        std::fs::write(bundle.path().join("rootfs/secret"), "x").unwrap();
        let mut mounts = standard_mounts();
        // No group 5 is mapped, and the cgroup namespace is the host's.
        mounts.retain(|m| !["devpts", "cgroup"].contains(&m["type"].as_str().unwrap()));
        mounts.push(
            json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}),
        );
        mounts.push(json!({"destination": "/data", "source": "data", "options": ["rbind", "ro"]}));
        let linux = json!({"namespaces": [{"type": "mount"}, {"type": "user"}], "maskedPaths": ["/secret", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys"]});
        let more = json!({"linux": linux, "process": {"terminal": true, "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "root": {"readonly": true}});
        enter(bundle.path(), &spec(mounts.into(), more));
        let null = std::fs::metadata("/dev/null").unwrap();
        assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
        std::fs::write("/dev/null", "x").expect("usable although bound");
        assert!(
            mount_line("/dev/null").contains("/dev/null"),
            "a mount of its own"
        );
        assert_eq!(std::fs::read_to_string("/data/file").unwrap(), "text");
        std::fs::write("/data/file", "").expect_err("read-only");
        assert!(std::fs::read("/secret").unwrap().is_empty());
        procfs::Proc::open().expect("a real /proc");
    });
}

#[test]
fn a_cgroup_namespace_mounts_every_hierarchy_anew() {
    let bundle = bundle();
    in_mount_namespace(|| {
        // SAFETY: a thread's cgroup namespace is its own.
        unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }.expect("unshare");
        let linux = json!({"namespaces": [{"type": "mount"}, {"type": "cgroup"}]});
        enter(
            bundle.path(),
            &spec(standard_mounts().into(), json!({"linux": linux})),
        );
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let cgroups: Vec<&str> = table.lines().filter(|l| l.contains(" - cgroup")).collect();
        assert!(!cgroups.is_empty());
        for line in cgroups {
            let fields: Vec<&str> = line.split(' ').collect();
            assert_eq!(fields[3], "/", "the namespace's root: {line}");
            assert!(fields[5].starts_with("ro,"), "{line}");
        }
    });
}
