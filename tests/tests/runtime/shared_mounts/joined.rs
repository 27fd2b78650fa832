//! What works there, and that the namespace stays as it was.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use berth_tests::{Need, require};
use serde_json::json;

use super::{Owner, PROC, bare, joining, namespaces, shell};

#[test]
fn the_root_is_found_inside_and_nothing_there_changes() {
    if !require(&[Need::Root]) {
        return;
    }
    let (bundle, owner) = joining(&["sleep", "1000"], "");
    let before = owner.mountinfo();
    let files = |owner: &Owner| {
        let root = format!(
            "/proc/{}/root{}",
            owner.0.id(),
            bundle.path().join("inside").display()
        );
        let list = Command::new("find").arg(root).output().expect("find");
        String::from_utf8_lossy(&list.stdout).into_owned()
    };
    let listed = files(&owner);
    let _ = bundle.verb(&["create"]).ok();
    assert_eq!(bundle.state_field("status"), "created");
    let _ = bundle.verb(&["start"]).ok();
    assert_eq!(bundle.state_field("status"), "running");
    assert!(
        !bundle.path().join("inside/only-inside").exists(),
        "the host has it too"
    );

    let pid = bundle.state_field("pid");
    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).expect("link");
    assert_eq!(link("ns/mnt").display().to_string(), owner.link());
    assert_ne!(
        link("ns/pid"),
        std::fs::read_link("/proc/self/ns/pid").expect("link")
    );
    assert_eq!(link("root"), bundle.path().join("inside"));
    // exec finds the same root, and its working directory below it.
    assert_eq!(bundle.exec(&["cat", "/only-inside"]), "here");
    assert_eq!(bundle.exec(&["pwd"]), "/");
    assert_eq!(bundle.exec(&["ls", "/.."]), bundle.exec(&["ls", "/"]));

    assert_eq!(owner.mountinfo(), before);
    let _ = bundle.verb(&["kill", "--all"]);
    let _ = bundle.output(&["kill", &bundle.id, "KILL"]);
    let _ = bundle.verb(&["delete", "--force"]).ok();
    assert_eq!(owner.mountinfo(), before);
    assert_eq!(files(&owner), listed, "no device, link or directory was made");
    bundle.assert_clean();
}

#[test]
fn links_of_the_path_are_followed_inside_and_slash_is_all_of_it() {
    if !require(&[Need::Root]) {
        return;
    }
    let (mut bundle, owner) = joining(&["/bin/sh", "-c", "cat /only-inside; pwd"], "");
    let link = bundle.path().join("link");
    std::os::unix::fs::symlink("inside", &link).expect("link");
    for path in [link.display().to_string(), "link/bin/..".into()] {
        bundle.config["root"]["path"] = json!(path);
        assert_eq!(bundle.verb(&["run"]).ok(), "here\n/", "{path}");
    }
    bundle.config["root"]["path"] = json!("/");
    let file = bundle.path().join("inside/only-inside").display().to_string();
    bundle.config["process"]["args"] = json!(["/bin/cat", file]);
    assert_eq!(bundle.verb(&["run"]).ok(), "here");
    drop(owner);
}

#[test]
fn sysctls_and_scores_go_to_the_kernel_whatever_proc_is_there() {
    if !require(&[Need::Root]) {
        return;
    }
    // A false /proc for the whole namespace: what is written there must not be taken for the kernel's.
    let script = "mount -t tmpfs false /proc; mkdir -p /proc/self /proc/sys/kernel
         echo 1 > /proc/self/oom_score_adj; echo 1 > /proc/sys/kernel/msgmax; echo > /proc/self/timens_offsets";
    let (mut bundle, owner) = joining(&["sleep", "1000"], script);
    namespaces(&mut bundle).push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1000, "nanosecs": 0}});
    bundle.config["linux"]["sysctl"] = json!({"kernel.msgmax": "4321"});
    bundle.config["process"]["oomScoreAdj"] = json!(777);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let pid = bundle.state_field("pid");
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("read");
    assert_eq!(read("oom_score_adj").trim(), "777");
    assert!(
        read("timens_offsets").contains("1000"),
        "{}",
        read("timens_offsets")
    );
    let msgmax = Command::new("nsenter")
        .args([
            &format!("--ipc=/proc/{pid}/ns/ipc"),
            "cat",
            "/proc/sys/kernel/msgmax",
        ])
        .output()
        .expect("nsenter");
    assert_eq!(String::from_utf8_lossy(&msgmax.stdout).trim(), "4321");
    let inside = |name: &str| {
        let root = PathBuf::from(format!("/proc/{}/root/proc", owner.0.id()));
        std::fs::read_to_string(root.join(name)).expect("read")
    };
    assert_eq!(inside("self/oom_score_adj"), "1\n");
    assert_eq!(inside("sys/kernel/msgmax"), "1\n");
}

#[test]
fn a_new_user_namespace_goes_with_a_joined_mount_namespace() {
    if !require(&[Need::Root]) {
        return;
    }
    let (mut bundle, owner) = joining(&["sleep", "1000"], "");
    let before = owner.mountinfo();
    namespaces(&mut bundle).push(json!({"type": "user"}));
    bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.path(), mode).expect("chmod");
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let pid = bundle.state_field("pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    assert!(status.contains("Uid:\t100000\t"), "{status}");
    assert_eq!(bundle.exec(&["cat", "/only-inside"]), "here");
    assert_eq!(bundle.exec(&["id", "-u"]), "0");
    assert_eq!(owner.mountinfo(), before);
}

#[test]
fn a_joined_pid_namespace_of_the_same_owner_works_too() {
    if !require(&[Need::Root]) {
        return;
    }
    let (mut bundle, owner) = joining(
        &["sh", "-c", "cat /only-inside; readlink /proc/self/ns/mnt"],
        PROC,
    );
    namespaces(&mut bundle).retain(|ns| ns["type"] != "pid");
    let path = owner.namespace("pid");
    namespaces(&mut bundle).push(json!({"type": "pid", "path": path}));
    assert_eq!(bundle.verb(&["run"]).ok(), format!("here\n{}", owner.link()));
    bundle.assert_clean();
}

#[test]
fn a_terminal_is_of_the_devpts_in_the_root() {
    if !require(&[Need::Root]) {
        return;
    }
    let script = "mkdir dev/pts; mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts";
    let args = ["sh", "-c", "tty; test -e /dev/console || echo none"];
    let (mut bundle, owner) = joining(&args, script);
    let before = owner.mountinfo();
    bundle.config["process"]["terminal"] = true.into();
    let socket = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&socket).expect("bind");
    let flag = format!("--console-socket={}", socket.display());
    let _ = bundle.verb(&["create", &flag]).ok();
    let (connection, _) = listener.accept().expect("accept");
    let (master, _) = crate::terminal::receive_with(&connection);
    let _ = bundle.verb(&["start"]).ok();
    assert_eq!(crate::terminal::read_all(&master), "/dev/pts/0\r\nnone\r\n");
    assert_eq!(owner.mountinfo(), before);

    let (mut bundle, _owner) = joining(&["true"], "");
    bundle.config["process"]["terminal"] = true.into();
    let ran = bundle.verb(&["create", &flag]);
    assert!(
        ran.code == 1 && ran.stderr.contains("/dev/pts in the container"),
        "{}",
        ran.stderr
    );
}

#[test]
fn hooks_see_the_runtimes_files_and_the_start_hook_the_roots() {
    if !require(&[Need::Root]) {
        return;
    }
    let (mut bundle, owner) = joining(&["cat", "/order"], "");
    let before = owner.mountinfo();
    let log = bundle.path().join("log");
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        bundle.config["hooks"][kind] = shell(&format!("echo {kind} >> {}", log.display()));
    }
    bundle.config["hooks"]["startContainer"] = shell("cat /only-inside > /order");
    let ran = bundle.verb(&["run"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("cannot open /dev/null"),
        "{}",
        ran.stderr
    );
    let null = bundle.path().join("inside/dev/null");
    let null = format!("/proc/{}/root{}", owner.0.id(), null.display());
    std::fs::write(null, "").expect("write");
    std::fs::remove_file(&log).expect("remove");
    assert_eq!(bundle.verb(&["run"]).ok(), "here");
    let log = std::fs::read_to_string(log).expect("log");
    assert_eq!(log, "prestart\ncreateRuntime\npoststart\npoststop\n");
    assert_eq!(owner.mountinfo(), before);
    bundle.assert_clean();
}

/// config-linux.md#namespaces: what is not in the list is the runtime's.
#[test]
fn without_a_mount_namespace_the_root_is_a_directory_of_the_runtimes() {
    if !require(&[Need::Root]) {
        return;
    }
    let before = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mut bundle = bare(&["sleep", "1000"]);
    bundle.config["root"]["path"] = json!("rootfs");
    bundle.config["hooks"]["createContainer"] = shell("true");
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let pid = bundle.state_field("pid");
    let link = |pid: &str, name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).expect("link");
    assert_eq!(link(&pid.to_string(), "ns/mnt"), link("self", "ns/mnt"));
    assert_eq!(link(&pid.to_string(), "root"), bundle.rootfs());
    std::fs::write(bundle.rootfs().join("file"), "seen").expect("write");
    assert_eq!(bundle.exec(&["cat", "/file"]), "seen");
    let _ = bundle.verb(&["delete", "--force"]).ok();
    let after = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let ours = |text: &str| text.lines().filter(|l| l.contains("berth-bundle-")).count();
    assert!(ours(&after) <= ours(&before), "{after}");

    bundle.config["mounts"] = json!([{"destination": "/proc", "type": "proc"}]);
    let ran = bundle.verb(&["create"]);
    assert!(
        ran.code == 1
            && ran.stderr.contains("field mounts: ")
            && ran.stderr.contains("the runtime's mount namespace"),
        "{}",
        ran.stderr
    );
    bundle.assert_clean();
}
