//! Terminals: the console socket gets the master, the program the other end.

use std::os::unix::net::UnixListener;

use berth_tests::{Bundle, Need, require};

#[test]
fn the_console_socket_receives_a_working_terminal() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["sh", "-c", "tty; stty size; test -c /dev/console && echo console"]);
    bundle.config["process"]["terminal"] = true.into();
    bundle.config["process"]["consoleSize"] = serde_json::json!({"height": 11, "width": 22});
    let path = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let _ = bundle
        .verb(&["create", "--console-socket", &path.display().to_string()])
        .ok();
    let (socket, _) = listener.accept().expect("accept");
    let master = receive(&socket);
    let _ = bundle.verb(&["start"]).ok();
    let mut text = String::new();
    // EIO when the program has closed its end.
    let mut buffer = [0u8; 256];
    while let Ok(n @ 1..) = rustix::io::read(&master, &mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert_eq!(text, "/dev/pts/0\r\n11 22\r\nconsole\r\n");
}

#[test]
fn a_terminal_with_nowhere_to_go_is_refused() {
    if !require(&[Need::Root]) {
        return;
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["process"]["terminal"] = true.into();
    let ran = bundle.verb(&["create"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("--console-socket"),
        "{}",
        ran.stderr
    );
    bundle.assert_clean();
}

fn receive(socket: &std::os::unix::net::UnixStream) -> std::os::fd::OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 64];
    recvmsg(
        socket,
        &mut [std::io::IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .expect("receive");
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            return fds.next().expect("one descriptor");
        }
    }
    panic!("no descriptor came");
}
