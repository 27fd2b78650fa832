//! The jail of berth-vmm, seen from the host: who the machine's process is and what it can name once a guest runs, and what the process
//! outside does for it. Guests are a few bytes long, so that any KVM runs them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use berth_tests::{Need, VmmApi, bare_guest, eventually, require};

/// The lowest number of a jail's user that chose none.
const UIDS: u32 = 0x7000_0000;
const NAMESPACES: [&str; 5] = ["mnt", "net", "ipc", "uts", "pid"];

/// Waits for an interrupt, again and again: `hlt; jmp`. None comes.
const WAITS: &[u8] = &[0xf4, 0xeb, 0xfd];
/// Asks the keyboard's controller for a reset: `mov al, 0xfe; out 0x64, al`.
const RESETS: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64];
/// Nobody handles it: `ud2`.
const CRASHES: &[u8] = &[0x0f, 0x0b];

/// A monitor whose guest runs, with a disk and a socket.
fn running(flags: &[&str]) -> VmmApi {
    start(&berth_tests::binary("berth-vmm"), flags)
}

fn start(program: &Path, flags: &[&str]) -> VmmApi {
    let vmm = configured(program, flags, WAITS);
    vmm.done("PUT", "/actions", START);
    vmm
}

const START: &str = r#"{"action_type": "InstanceStart"}"#;

/// A monitor with such a guest, a disk and a socket, which are not there yet.
fn configured(program: &Path, flags: &[&str], code: &[u8]) -> VmmApi {
    let vmm = VmmApi::start(program, flags);
    let at = |name: &str| vmm.directory.path().join(name).display().to_string();
    fs::write(at("kernel"), bare_guest(code)).unwrap();
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
    vmm
}

fn of_process(vmm: &VmmApi, file: &str) -> PathBuf {
    Path::new("/proc").join(vmm.machine().to_string()).join(file)
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
    let vmm = running(&[]);
    let own = (UIDS + vmm.process.id()).to_string();
    let file = of_process(&vmm, "status");
    assert_eq!(status(&file, "Uid"), vec![own.clone(); 4]);
    assert_eq!(status(&file, "Gid"), vec![own; 4]);
    assert_eq!(status(&file, "Groups"), Vec::<String>::new());
    assert_eq!(status(&file, "NSpid")[1..], ["1"], "the first of its namespace");
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
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&of_process(&vmm, "cwd")), inode(&root));

    // It still does what needs no file.
    assert_eq!(vmm.ask("GET", "/", "").1["state"], "Running");
    vmm.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    vmm.done("PATCH", "/vm", r#"{"state": "Resumed"}"#);
    let limits = r#"{"drive_id": "d", "rate_limiter": {"bandwidth": {"size": 1000, "refill_time": 100}}}"#;
    vmm.done("PATCH", "/drives/d", limits);
}

#[test]
fn a_jail_takes_the_user_it_is_told() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = running(&["--uid", "12345", "--gid", "54321"]);
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
    fs::write(at("kernel"), bare_guest(WAITS)).unwrap();
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
        &["--config-file", &at("vm.json")],
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
    let mut vmm = start(&script, &[]);
    vmm.process.kill().unwrap();
    vmm.process.wait().unwrap();
    eventually("it ends", || UnixStream::connect(vmm.socket()).is_err());
    clean_up();
}

/// The next puts away what one leaves that is killed: its cgroup.
fn clean_up() {
    drop(running(&[]));
}

/// Who connects to a guest does so as before: through the socket that was there first.
#[test]
fn programs_reach_a_jailed_guest() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = running(&[]);
    let socket = vmm.directory.path().join("vsock");
    eventually("it is accepted", || UnixStream::connect(&socket).is_ok());
}

#[test]
fn without_a_jail_it_is_one_process_and_stays_where_it_is() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = running(&["--no-jail"]);
    let process = Path::new("/proc").join(vmm.process.id().to_string());
    assert_eq!(status(&process.join("status"), "Uid"), ["0"; 4]);
    assert_eq!(namespaces(Path::new("/proc/self")), namespaces(&process));
    let children = process.join(format!("task/{}/children", vmm.process.id()));
    assert_eq!(fs::read_to_string(children).unwrap(), "");
}

/// Who is outside opens it; the guest's rights to it stay what they were.
#[test]
fn a_jailed_disk_gets_another_file() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    for (read_only, access) in [(false, libc::O_RDWR), (true, libc::O_RDONLY)] {
        let vmm = configured(&berth_tests::binary("berth-vmm"), &[], WAITS);
        let at = |name: &str| vmm.directory.path().join(name).display().to_string();
        let drive = format!(
            r#"{{"drive_id": "d", "path_on_host": "{}", "is_root_device": false, "is_read_only": {read_only}}}"#,
            at("disk")
        );
        vmm.done("PUT", "/drives/d", &drive);
        vmm.done("PUT", "/actions", START);
        fs::write(at("other"), [1; 8192]).unwrap();
        let change = |path: &str| format!(r#"{{"drive_id": "d", "path_on_host": "{path}"}}"#);
        vmm.done("PATCH", "/drives/d", &change(&at("other")));
        let other = at("other");
        let held: Vec<i32> = descriptors(&vmm)
            .into_iter()
            .filter(|(_, target)| *target == other)
            .map(|(number, _)| access_of(&vmm, &number))
            .collect();
        assert_eq!(held, [access], "read-only: {read_only}");
        let config = vmm.ask("GET", "/vm/config", "").1;
        assert_eq!(config["drives"][0]["path_on_host"], other.as_str());
        for (path, why) in [
            ("/nowhere".to_owned(), "drive d: /nowhere: No such file"),
            (at(""), "drive d: "),
            (
                "/dev/null".to_owned(),
                "drive d: /dev/null: it is neither a regular file",
            ),
        ] {
            let said = vmm.refused("PATCH", "/drives/d", &change(&path));
            assert!(said.contains(why), "{said}");
        }
        let said = vmm.refused(
            "PATCH",
            "/drives/x",
            &change("/etc/hostname").replace("\"d\"", "\"x\""),
        );
        assert!(said.contains("No drive is called x"), "{said}");
    }
}

/// Numbers and targets of what the machine's process has open.
fn descriptors(vmm: &VmmApi) -> Vec<(String, String)> {
    let entries = fs::read_dir(of_process(vmm, "fd")).unwrap();
    let named = entries.map(|entry| {
        let path = entry.unwrap().path();
        let target = fs::read_link(&path).unwrap().display().to_string();
        (path.file_name().unwrap().to_string_lossy().into_owned(), target)
    });
    named.collect()
}

/// How a descriptor was opened (proc_pid_fdinfo(5)).
fn access_of(vmm: &VmmApi, number: &str) -> i32 {
    let info = fs::read_to_string(of_process(vmm, &format!("fdinfo/{number}"))).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_ACCMODE
}

/// Neither the API's sockets nor what the monitor's starter forgot to close.
#[test]
fn a_jailed_machine_has_no_descriptors_of_others() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("careless");
    let program = berth_tests::binary("berth-vmm");
    let text = format!("#!/bin/sh\nexec {} \"$@\" 9</etc/passwd\n", program.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let vmm = start(&script, &[]);
    let keeper = fs::read_link(format!("/proc/{}/fd/9", vmm.process.id())).unwrap();
    assert_eq!(keeper, Path::new("/etc/passwd"), "the keeper has it");
    let ours = descriptors(&vmm);
    assert!(
        !ours.iter().any(|(_, target)| target.ends_with("/etc/passwd")),
        "{ours:?}"
    );
    // Two to the keeper, and vsock's listener: no client of the API's, and not its listener.
    let sockets = ours.iter().filter(|(_, target)| target.starts_with("socket:"));
    assert_eq!(sockets.count(), 3, "{ours:?}");
}

/// Waits until a process of this number is gone, or has been waited for by nobody yet.
fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn ends(vmm: &mut VmmApi) -> ExitStatus {
    let mut status = None;
    eventually("it ends", || {
        status = vmm.process.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// The API's socket and vsock's.
fn has_sockets(vmm: &VmmApi) -> [bool; 2] {
    ["api", "vsock"].map(|name| vmm.directory.path().join(name).symlink_metadata().is_ok())
}

#[test]
fn keeper_and_machine_end_together_and_leave_nothing() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let mut vmm = running(&[]);
        let machine = vmm.machine();
        assert_eq!(has_sockets(&vmm), [true; 2]);
        kill(vmm.process.id(), signal);
        assert_eq!(ends(&mut vmm).signal(), Some(signal));
        assert_eq!(has_sockets(&vmm), [false; 2], "signal {signal}");
        assert!(is_gone(machine), "signal {signal}");
    }
    // Whatever ends the machine.
    let mut vmm = running(&[]);
    kill(vmm.machine(), libc::SIGKILL);
    assert_eq!(ends(&mut vmm).signal(), Some(libc::SIGKILL));
    assert_eq!(has_sockets(&vmm), [false; 2]);
    // Nobody is there to put anything away, and a machine that stands hears of nothing.
    let mut vmm = running(&[]);
    let machine = vmm.machine();
    kill(machine, libc::SIGSTOP);
    kill(vmm.process.id(), libc::SIGKILL);
    assert_eq!(ends(&mut vmm).signal(), Some(libc::SIGKILL));
    eventually("the machine ends", || is_gone(machine));
    clean_up();
}

fn kill(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_guests_end_is_the_keepers_status() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let program = berth_tests::binary("berth-vmm");
    for (code, status) in [(RESETS, 3), (CRASHES, 4)] {
        for flags in [&[][..], &["--no-jail"]] {
            let mut vmm = configured(&program, flags, code);
            // It may end before its answer is on its way.
            let mut socket = UnixStream::connect(vmm.socket()).unwrap();
            let length = START.len();
            let request = format!("PUT /actions HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{START}");
            std::io::Write::write_all(&mut socket, request.as_bytes()).unwrap();
            assert_eq!(vmm.wait(), status, "{flags:?}\n{}", vmm.text("log"));
            assert_eq!(has_sockets(&vmm), [false; 2], "{flags:?}");
        }
    }
}

/// A start that fails is told as ever, leaves nothing behind, and can be tried again.
#[test]
fn a_start_that_fails_can_be_put_right() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = configured(&berth_tests::binary("berth-vmm"), &[], b"");
    let at = |name: &str| vmm.directory.path().join(name);
    fs::write(at("kernel"), "no kernel").unwrap();
    for _ in 0..2 {
        let said = vmm.refused("PUT", "/actions", START);
        assert!(said.contains("kernel"), "{said}");
        assert_eq!(vmm.ask("GET", "/", "").1["state"], "Not started");
        assert_eq!(has_sockets(&vmm), [true, false]);
    }
    fs::write(at("kernel"), bare_guest(WAITS)).unwrap();
    // Taken by another: it stays his.
    let taken = std::os::unix::net::UnixListener::bind(at("vsock")).unwrap();
    let said = vmm.refused("PUT", "/actions", START);
    assert!(said.contains("is another microVM using it?"), "{said}");
    assert_eq!(has_sockets(&vmm), [true, true]);
    drop(taken);
    fs::remove_file(at("vsock")).unwrap();
    vmm.done("PUT", "/actions", START);
    assert_eq!(vmm.ask("GET", "/", "").1["state"], "Running");
}

#[test]
fn a_plain_user_is_told_what_to_do() {
    if !require(&[Need::Root]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("kernel"), bare_guest(RESETS)).unwrap();
    fs::copy(berth_tests::binary("berth-vmm"), at("berth-vmm")).unwrap();
    let config = format!(
        r#"{{"boot-source": {{"kernel_image_path": "{}"}}}}"#,
        at("kernel").display()
    );
    fs::write(at("vm.json"), config).unwrap();
    let output = Command::new(at("berth-vmm"))
        .args(["--no-api", "--config-file"])
        .arg(at("vm.json"))
        .uid(12345)
        .gid(12345)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--no-jail") && said.lines().count() == 1, "{said}");
}

/// Where a process is, by the first of these controllers that the host has.
fn cgroup_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |controllers: &str| {
        text.lines().find_map(|line| {
            line.split_once(':')?
                .1
                .strip_prefix(controllers)?
                .strip_prefix(':')
        })
    };
    of("pids").or_else(|| of("")).expect("a cgroup").to_owned()
}

/// The directory of such a cgroup.
fn cgroup_directory(path: &str) -> PathBuf {
    let path = path.trim_start_matches('/');
    let mounts = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
    let mount = mounts
        .into_iter()
        .find(|mount| Path::new(mount).join("cgroup.procs").exists());
    Path::new(mount.expect("a hierarchy")).join(path)
}

#[test]
fn a_machine_has_a_cgroup_of_its_own() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let mut vmm = running(&[]);
    let keeper = vmm.process.id();
    let here = cgroup_of(keeper);
    let theirs = cgroup_of(vmm.machine());
    assert_eq!(
        theirs,
        format!("{}/berth-vmm-{keeper}.vm", here.trim_end_matches('/'))
    );
    for task in fs::read_dir(of_process(&vmm, "task")).unwrap() {
        let pid = task.unwrap().file_name().to_string_lossy().parse().unwrap();
        assert_eq!(cgroup_of(pid), theirs);
    }
    let directory = cgroup_directory(&theirs);
    assert!(directory.exists(), "{directory:?}");
    kill(vmm.machine(), libc::SIGKILL);
    ends(&mut vmm);
    assert!(!directory.exists(), "{directory:?}");

    // A keeper that is killed puts nothing away; the next does.
    let mut vmm = running(&[]);
    let (machine, directory) = (vmm.machine(), cgroup_directory(&cgroup_of(vmm.machine())));
    kill(vmm.process.id(), libc::SIGKILL);
    ends(&mut vmm);
    eventually("the machine ends", || is_gone(machine));
    assert!(directory.exists());
    let _next = running(&[]);
    assert!(!directory.exists(), "{directory:?}");
}

#[test]
fn a_machines_cgroup_is_where_and_what_it_is_told() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let own = format!("berth-test-{}", std::process::id());
    let parent = format!("{own}/machines");
    let flags = [
        "--parent-cgroup",
        &parent,
        "--id",
        "a-vm",
        "--cgroup",
        "pids.max=77",
    ];
    let vmm = running(&flags);
    let path = cgroup_of(vmm.machine());
    assert_eq!(path, format!("/{parent}/a-vm"));
    let directory = cgroup_directory(&path);
    assert_eq!(fs::read_to_string(directory.join("pids.max")).unwrap(), "77\n");
    // Another of its name, which is in nobody's way.
    let other = configured(&berth_tests::binary("berth-vmm"), &flags, WAITS);
    let said = other.refused("PUT", "/actions", START);
    assert!(said.contains("a-vm is in use"), "{said}");
    assert!(directory.exists());
    let wrong = [
        "--parent-cgroup",
        &parent,
        "--id",
        "b-vm",
        "--cgroup",
        "pids.most=77",
    ];
    let other = configured(&berth_tests::binary("berth-vmm"), &wrong, WAITS);
    let said = other.refused("PUT", "/actions", START);
    assert!(said.contains("pids.most"), "{said}");
    drop((vmm, other));
    // Nor the parents, which were made for them.
    let top = cgroup_directory(&own);
    assert!(!top.exists(), "{top:?}");
}

/// A namespace of its own, held open by a thread that waits.
#[test]
fn a_jail_joins_a_network_namespace_and_keeps_its_bounds() {
    if !require(&[Need::Root, Need::Kvm, Need::Program("unshare")]) {
        return;
    }
    let mut holder = Command::new("unshare")
        .args(["--net", "sleep", "1000"])
        .spawn()
        .unwrap();
    let file = format!("/proc/{}/ns/net", holder.id());
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let ours = inode(Path::new("/proc/self/ns/net"));
    eventually("it has its namespace", || inode(Path::new(&file)) != ours);
    let vmm = running(&["--netns", &file, "--resource-limit", "no-file=321"]);
    assert_eq!(inode(&of_process(&vmm, "ns/net")), inode(Path::new(&file)));
    let keeper = format!("/proc/{}/ns/net", vmm.process.id());
    assert_eq!(inode(Path::new(&keeper)), ours);
    let limits = fs::read_to_string(of_process(&vmm, "limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("321"), "{files}");
    holder.kill().unwrap();
    holder.wait().unwrap();

    let vmm = configured(
        &berth_tests::binary("berth-vmm"),
        &["--netns", "/etc/passwd"],
        WAITS,
    );
    let said = vmm.refused("PUT", "/actions", START);
    assert!(
        said.contains("cannot enter network namespace /etc/passwd"),
        "{said}"
    );
    assert_eq!(has_sockets(&vmm), [true, false]);
}
