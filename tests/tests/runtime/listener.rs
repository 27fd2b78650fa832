//! Seccomp's notify action: the descriptor reaches the agent with the state of the process.

use std::os::unix::net::UnixListener;

use berth_tests::{Bundle, Need, require};
use serde_json::{Value, json};

use crate::terminal::receive_with;

#[test]
fn the_agent_gets_the_descriptor_and_the_state() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["mkdir", "/tmp/made"]);
    let path = bundle.path().join("agent.sock");
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "listenerMetadata": "for the agent", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]});
    let agent = UnixListener::bind(&path).expect("bind");
    let err = bundle.path().join("err");
    let mut run = bundle
        .command(&["run", &bundle.id])
        .stderr(std::fs::File::create(&err).expect("file"))
        .spawn()
        .expect("start");
    let (socket, _) = agent.accept().expect("accept");
    let (notify, text) = receive_with(&socket);
    let state: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "for the agent");
    assert_eq!(state["state"]["id"], bundle.id);
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
    // Without an agent the kernel answers for it: ENOSYS. So the call did wait for us.
    drop(notify);
    assert_eq!(run.wait().expect("wait").code(), Some(1));
    let said = std::fs::read_to_string(err).expect("read");
    assert!(said.contains("Function not implemented"), "{said}");
    bundle.assert_clean();
}

#[test]
fn an_agent_that_is_not_there_is_named_and_nothing_is_made() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/agent",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let ran = bundle.verb(&["run"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("/no/agent"),
        "{}",
        ran.stderr
    );
    bundle.assert_clean();
}
