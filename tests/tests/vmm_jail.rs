//! The jail of berth-vmm, seen from the host: who the process is and what it can name once a guest runs. The guest is three
//! bytes long, so that any KVM runs it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_tests::{Need, VmmApi, eventually, require};

/// The lowest number of a jail's user that chose none.
const UIDS: u32 = 0x7000_0000;
const NAMESPACES: [&str; 4] = ["mnt", "net", "ipc", "uts"];

/// An ELF file that waits for an interrupt, again and again: `hlt; jmp`. None comes.
fn waiting_guest() -> Vec<u8> {
    const CODE: [u8; 3] = [0xf4, 0xeb, 0xfd];
    const AT: u64 = 0x100_0000;
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for address in [AT, 64, 0] {
        file.extend(address.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // One segment, readable and executable.
    for word in [1u32, 5] {
        file.extend(word.to_le_bytes());
    }
    let length = CODE.len() as u64;
    for number in [HEADERS, AT, AT, length, length, 1] {
        file.extend(number.to_le_bytes());
    }
    file.extend(CODE);
    file
}

/// A monitor whose guest runs, with a disk and a socket.
fn running(flags: &[&str]) -> VmmApi {
    start(&berth_tests::binary("berth-vmm"), flags)
}

fn start(program: &Path, flags: &[&str]) -> VmmApi {
    let vmm = VmmApi::start(program, flags);
    let at = |name: &str| vmm.directory.path().join(name).display().to_string();
    fs::write(at("kernel"), waiting_guest()).unwrap();
    fs::write(at("disk"), [0; 4096]).unwrap();
    let (kernel, disk, socket) = (at("kernel"), at("disk"), at("vsock"));
    vmm.done(
        "PUT",
        "/boot-source",
        &format!(r#"{{"kernel_image_path": "{kernel}"}}"#),
    );
    vmm.done(
        "PUT",
        "/drives/d",
        &format!(r#"{{"drive_id": "d", "path_on_host": "{disk}", "is_root_device": false}}"#),
    );
    vmm.done(
        "PUT",
        "/vsock",
        &format!(r#"{{"guest_cid": 3, "uds_path": "{socket}"}}"#),
    );
    vmm.done("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#);
    vmm
}

fn of_process(vmm: &VmmApi, file: &str) -> PathBuf {
    Path::new("/proc").join(vmm.process.id().to_string()).join(file)
}

/// A line of `/proc/PID/status`.
fn status(path: &Path, key: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.expect("the kernel says")
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn namespaces(of: &Path) -> Vec<u64> {
    let inode = |name| fs::metadata(of.join("ns").join(name)).unwrap().ino();
    NAMESPACES.map(inode).to_vec()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_jailed_monitor_is_nobody_and_sees_nothing() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = running(&["--jail"]);
    let own = (UIDS + vmm.process.id()).to_string();
    let file = of_process(&vmm, "status");
    assert_eq!(status(&file, "Uid"), vec![own.clone(); 4]);
    assert_eq!(status(&file, "Gid"), vec![own; 4]);
    assert_eq!(status(&file, "Groups"), Vec::<String>::new());
    for task in fs::read_dir(of_process(&vmm, "task")).unwrap() {
        let file = task.unwrap().path().join("status");
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(status(&file, set), ["0000000000000000"], "{set}");
        }
        assert_eq!(status(&file, "NoNewPrivs"), ["1"]);
        assert_eq!(status(&file, "Seccomp"), ["2"]);
    }

    let ours = namespaces(Path::new("/proc/self"));
    let theirs = namespaces(&of_process(&vmm, ""));
    for ((name, ours), theirs) in NAMESPACES.iter().zip(ours).zip(theirs) {
        assert_ne!(ours, theirs, "{name}");
    }
    let root = of_process(&vmm, "root");
    assert_eq!(names(&root), Vec::<String>::new());
    let mounts = fs::read_to_string(of_process(&vmm, "mountinfo")).unwrap();
    let mounts: Vec<&str> = mounts.lines().collect();
    assert!(
        mounts.len() == 1 && mounts[0].contains(" / / ro,") && mounts[0].contains(" - tmpfs "),
        "{mounts:?}"
    );
    // The directory of vsock's socket, and nothing above it.
    let working = of_process(&vmm, "cwd");
    assert!(names(&working).contains(&"vsock".to_owned()));
    let (here, above) = (
        fs::metadata(&working).unwrap(),
        fs::metadata(working.join("..")).unwrap(),
    );
    assert_eq!((here.dev(), here.ino()), (above.dev(), above.ino()));

    // It still does what needs no file.
    assert_eq!(vmm.ask("GET", "/", "").1["state"], "Running");
    vmm.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    vmm.done("PATCH", "/vm", r#"{"state": "Resumed"}"#);
    let limits = r#"{"drive_id": "d", "rate_limiter": {"bandwidth": {"size": 1000, "refill_time": 100}}}"#;
    vmm.done("PATCH", "/drives/d", limits);
    let why = vmm.refused(
        "PATCH",
        "/drives/d",
        r#"{"drive_id": "d", "path_on_host": "/etc/hostname"}"#,
    );
    assert!(why.contains("jail"), "{why}");
}

#[test]
fn a_jail_takes_the_user_it_is_told() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = running(&["--jail", "--uid", "12345", "--gid", "54321"]);
    let file = of_process(&vmm, "status");
    assert_eq!(status(&file, "Uid"), ["12345"; 4]);
    assert_eq!(status(&file, "Gid"), ["54321"; 4]);
    let vmm = running(&["--jail", "--uid", "0", "--gid", "0"]);
    assert_eq!(
        status(&of_process(&vmm, "status"), "CapPrm"),
        ["0000000000000000"],
        "root in name alone"
    );
}

/// The thread that serves a directory acts for the guest's root there, and for nobody else.
#[test]
fn a_shared_directorys_thread_keeps_what_files_need() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::write(at("kernel"), waiting_guest()).unwrap();
    fs::create_dir(at("shared")).unwrap();
    let config = format!(
        r#"{{"boot-source": {{"kernel_image_path": "{}"}},
            "shared-directories": [{{"tag": "shared", "path_on_host": "{}"}}]}}"#,
        at("kernel"),
        at("shared"),
    );
    fs::write(at("vm.json"), config).unwrap();
    let vmm = VmmApi::start(
        &berth_tests::binary("berth-vmm"),
        &["--jail", "--config-file", &at("vm.json")],
    );
    // It answers once it is started.
    assert_eq!(vmm.ask("GET", "/", "").1["state"], "Running");
    let mut found = 0;
    for task in fs::read_dir(of_process(&vmm, "task")).unwrap() {
        let task = task.unwrap().path();
        let file = task.join("status");
        let is_share = fs::read_to_string(task.join("comm")).unwrap().trim() == "share";
        // CAP_CHOWN to CAP_FSETID.
        let expected = if is_share {
            "000000000000001f"
        } else {
            "0000000000000000"
        };
        assert_eq!(status(&file, "CapEff"), [expected]);
        assert_eq!(status(&file, "CapPrm"), [expected]);
        assert_eq!(status(&file, "Uid")[0] == "0", is_share);
        found += usize::from(is_share);
    }
    assert_eq!(found, 1);
    assert_eq!(names(&of_process(&vmm, "root")), Vec::<String>::new());
}

/// A change of user makes the kernel forget that a process ends with its starter; berth's shim relies on it.
#[test]
fn a_jailed_monitor_ends_with_who_started_it_if_asked() {
    if !require(&[Need::Root, Need::Kvm, Need::Program("setpriv")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("starter");
    let program = berth_tests::binary("berth-vmm");
    let text = format!(
        "#!/bin/sh\nsetpriv --pdeathsig KILL {} \"$@\" &\nwait\n",
        program.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut vmm = start(&script, &["--jail"]);
    vmm.process.kill().unwrap();
    vmm.process.wait().unwrap();
    eventually("it ends", || {
        std::os::unix::net::UnixStream::connect(vmm.socket()).is_err()
    });
}

/// Who connects to a guest does so as before: through the socket that was there first.
#[test]
fn programs_reach_a_jailed_guest() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = running(&["--jail"]);
    let socket = vmm.directory.path().join("vsock");
    eventually("it is accepted", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
}

#[test]
fn without_the_flag_it_stays_where_it_is() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = running(&[]);
    assert_eq!(status(&of_process(&vmm, "status"), "Uid"), ["0"; 4]);
    assert_eq!(
        namespaces(Path::new("/proc/self")),
        namespaces(&of_process(&vmm, ""))
    );
}
