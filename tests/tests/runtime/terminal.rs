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
    assert_eq!(read_all(&master), "/dev/pts/0\r\n11 22\r\nconsole\r\n");
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

#[test]
fn exec_sends_its_terminal_to_the_console_socket() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"]);
    let _ = bundle.verb(&["run", "--detach"]).ok();
    let path = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let socket = path.display().to_string();
    let mut exec = bundle
        .command(&[
            "exec",
            "--tty",
            "--console-socket",
            &socket,
            &bundle.id,
            "sh",
            "-c",
            "tty; exit 6",
        ])
        .spawn()
        .expect("start");
    let (socket, _) = listener.accept().expect("accept");
    let master = receive(&socket);
    assert_eq!(exec.wait().expect("wait").code(), Some(6));
    assert_eq!(read_all(&master), "/dev/pts/0\r\n");
}

/// A person at a terminal: script(1) gives the runtime one, what is typed goes through both.
#[test]
fn a_terminal_in_the_foreground_is_the_callers() {
    if !require(&[Need::Root, Need::Program("script")]) {
        return;
    }
    let mut bundle = Bundle::new(&["sh", "-c", "tty; read line; echo got $line; exit 3"]);
    bundle.config["process"]["terminal"] = true.into();
    let _ = bundle.command(&[]);
    let line = format!(
        "{} --root {} run {}",
        berth_tests::binary("berth-runtime").display(),
        bundle.state().display(),
        bundle.id
    );
    let out = bundle.path().join("typescript");
    let mut script = std::process::Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"])
        .current_dir(bundle.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::fs::File::create(&out).expect("file"))
        .spawn()
        .expect("start script");
    let mut keys = script.stdin.take().expect("piped");
    std::io::Write::write_all(&mut keys, b"hello\n").expect("type");
    // Not closed before the end: script would pass that on as a key.
    let code = script.wait().expect("wait").code();
    drop(keys);
    let text = std::fs::read_to_string(out).expect("read");
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("/dev/pts/0") && text.contains("got hello"),
        "{text}"
    );
    bundle.assert_clean();
}

pub(crate) fn read_all(master: &std::os::fd::OwnedFd) -> String {
    let mut text = String::new();
    let mut buffer = [0u8; 256];
    // EIO when the program has closed its end.
    while let Ok(n @ 1..) = rustix::io::read(master, &mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

fn receive(socket: &std::os::unix::net::UnixStream) -> std::os::fd::OwnedFd {
    receive_with(socket).0
}

/// One descriptor, and the bytes it came with.
pub(crate) fn receive_with(socket: &std::os::unix::net::UnixStream) -> (std::os::fd::OwnedFd, Vec<u8>) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0u8; 65536];
    let received = recvmsg(
        socket,
        &mut [std::io::IoSliceMut::new(&mut text)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .expect("receive");
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            text.truncate(received.bytes);
            return (fds.next().expect("one descriptor"), text);
        }
    }
    panic!("no descriptor came");
}
