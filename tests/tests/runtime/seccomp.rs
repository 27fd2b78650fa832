//! Seccomp profiles of the specification, enforced on a real program.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use berth_tests::{Bundle, Need, require};
use serde_json::{Value, json};

fn with_action(script: &str, action: &str, more: &Value) -> Bundle {
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    let mut rule = json!({"names": ["mkdir", "mkdirat"], "action": action});
    for (key, value) in more.as_object().expect("an object") {
        rule[key] = value.clone();
    }
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [rule]});
    bundle
}

#[test]
fn a_filtered_call_gets_the_profiles_error_with_and_without_new_privileges() {
    if !require(&[Need::Root]) {
        return;
    }
    for no_new_privileges in [true, false] {
        let mut bundle = with_action(
            "mkdir /tmp/x 2>&1; grep ^Seccomp: /proc/self/status",
            "SCMP_ACT_ERRNO",
            &json!({"errnoRet": 28}),
        );
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let printed = bundle.verb(&["run"]).ok();
        assert!(
            printed.contains("No space left on device") && printed.ends_with("Seccomp:\t2"),
            "no_new_privileges {no_new_privileges}: {printed}"
        );
    }
}

#[test]
fn a_killing_rule_ends_the_program() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = with_action("(mkdir /tmp/x); echo $?", "SCMP_ACT_KILL_PROCESS", &json!({}));
    // 128 and SIGSYS.
    assert!(bundle.verb(&["run"]).ok().ends_with("159"));
}

#[test]
fn the_listener_gets_the_descriptor_and_the_state() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = with_action("mkdir /tmp/x 2>&1; true", "SCMP_ACT_NOTIFY", &json!({}));
    let path = bundle.path().join("listener");
    let listener = UnixListener::bind(&path).expect("listen");
    bundle.config["linux"]["seccomp"]["listenerPath"] = json!(path);
    bundle.config["linux"]["seccomp"]["listenerMetadata"] = json!("from the test");
    let handler = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("accept");
        // Dropping the descriptor answers the waiting call with ENOSYS.
        receive(&socket).0
    });
    let printed = bundle.verb(&["run"]).ok();
    assert!(printed.contains("Function not implemented"), "{printed}");
    let state = handler.join().expect("the listener's thread");
    assert_eq!(state["metadata"], "from the test");
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["state"]["id"], json!(bundle.id));
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
    bundle.assert_clean();
}

fn receive(socket: &UnixStream) -> (Value, Option<OwnedFd>) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0_u8; 16384];
    let length = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut text)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .expect("receive")
    .bytes;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    assert!(fd.is_some(), "the filter's descriptor comes with the state");
    (
        serde_json::from_slice(&text[..length]).expect("the state is JSON"),
        fd,
    )
}

#[test]
fn an_unknown_action_is_named() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = with_action("true", "SCMP_ACT_PERHAPS", &json!({}));
    let ran = bundle.verb(&["run"]);
    assert!(
        ran.code != 0 && ran.stderr.contains("SCMP_ACT_PERHAPS"),
        "{}",
        ran.stderr
    );
    bundle.assert_clean();
}
