//! Those who talk to a shim: however many, however slow, they cost it little and keep nobody else from being heard.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, Stdio};
use std::time::Duration;

use berth_tests::{Berth, HANG, Need, Shim, eventually, require};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

const SLEEP: [&str; 2] = ["sleep", "600"];

/// A client of ours on the shim's socket, as `berth` itself connects.
fn connect(berth: &Berth, id: &str) -> OwnedFd {
    let directory = std::fs::File::open(berth.state().join("containers").join(id)).expect("a run directory");
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("socket");
    // sun_path holds 108 bytes.
    let path = format!("/proc/self/fd/{}/shim.sock", directory.as_raw_fd());
    let address = SocketAddrUnix::new(path).expect("a short path");
    rustix::net::connect(&socket, &address).expect("connect to the shim");
    socket
}

/// One request; false when the shim takes no more for now.
fn ask(socket: &OwnedFd, request: &str) -> bool {
    let packet = format!("q{request}");
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::send(socket, packet.as_bytes(), flags).is_ok()
}

/// How many descriptors the shim holds once whoever started it has left.
fn settled(shim: &Shim) -> usize {
    let mut last = 0;
    eventually("the shim rests", || {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut last, shim.descriptors()) == last
    });
    last
}

fn quiet(berth: &Berth, arguments: &[&str]) -> Child {
    let mut command = berth.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("start berth")
}

#[test]
fn control_is_heard_however_many_wait_or_say_nothing() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let (id, shim) = Shim::run(&berth, &[], &SLEEP);
    let before = settled(&shim);
    let waiting: Vec<OwnedFd> = (0..64)
        .map(|_| {
            let client = connect(&berth, &id);
            assert!(ask(&client, r#"{"Wait":{"last":true}}"#));
            client
        })
        .collect();
    // Each is heard before the next is taken in.
    for verb in ["wait", "attach"] {
        let refused = berth.run([verb, &id]);
        assert_eq!(refused.code, 1, "{verb}: {}", refused.stdout);
        let why = "64 clients are attached or wait";
        assert!(refused.stderr.contains(why), "{verb}: {}", refused.stderr);
    }

    let silent: Vec<OwnedFd> = (0..50).map(|_| connect(&berth, &id)).collect();
    shim.hears(&berth, &["pause", &id]);
    shim.hears(&berth, &["unpause", &id]);
    shim.hears(&berth, &["kill", "--signal=CONT", &id]);
    let most = before + 64 + 32;
    eventually("who says nothing makes room", || shim.descriptors() <= most);
    shim.hears(&berth, &["stop", "-t", "0", &id]);
    for client in &waiting {
        let mut answer = [0; 64];
        let (length, _) =
            rustix::net::recv(client, &mut answer[..], rustix::net::RecvFlags::DONTWAIT).expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.contains(r#"{"Exit":{"code":137}}"#), "{answer}");
    }
    drop(silent);
    let _ = berth.run(["rm", &id]).ok();
}

#[test]
fn who_is_slow_to_ask_is_not_sent_away_for_others() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let (id, shim) = Shim::run(&berth, &[], &SLEEP);
    let _ = settled(&shim);
    // More than the shim listens to at a time; the rest is at the door.
    let clients: Vec<OwnedFd> = (0..40).map(|_| connect(&berth, &id)).collect();
    std::thread::sleep(Duration::from_millis(300));
    for client in &clients {
        assert!(ask(client, r#"{"Wait":{"last":true}}"#));
    }
    shim.hears(&berth, &["stop", "-t", "0", &id]);
    for client in &clients {
        let mut answer = [0; 64];
        let (length, _) =
            rustix::net::recv(client, &mut answer[..], rustix::net::RecvFlags::empty()).expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.contains(r#"{"Exit":{"code":137}}"#), "{answer}");
    }
    let _ = berth.run(["rm", &id]).ok();
}

#[test]
fn a_client_that_takes_no_answers_is_asked_nothing_more() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let (id, shim) = Shim::run(&berth, &[], &SLEEP);
    let deaf = connect(&berth, &id);
    let before = shim.memory_kib();
    let mut refused = 0;
    // No such signal: an answer, and nothing done. Each answer is some fifty bytes; all of them would be tens of MiB.
    let mut asked = 0;
    while asked < 200_000 && refused < 50 {
        if ask(&deaf, r#"{"Kill":{"signal":0}}"#) {
            (asked, refused) = (asked + 1, 0);
        } else {
            refused += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let grown = shim.memory_kib().saturating_sub(before);
    assert!(grown < 4096, "the shim keeps {grown} KiB more");
    shim.hears(&berth, &["stop", "-t", "0", &id]);
    let _ = berth.run(["rm", &id]).ok();
}

#[test]
fn an_attached_client_that_stalls_costs_no_memory_and_holds_up_no_stop() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let script = "mkfifo /go; read line < /go; yes";
    let (id, shim) = Shim::run(&berth, &[], &["sh", "-c", script]);
    let before = (shim.memory_kib(), settled(&shim));
    // Nobody reads its output.
    let mut stalled = berth
        .command(["attach", "--no-stdin", &id])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start berth");
    eventually("it is attached", || shim.descriptors() > before.1);
    eventually("it waits for us", || {
        berth.run(["exec", &id, "test", "-p", "/go"]).code == 0
    });
    let _ = berth.run(["exec", &id, "sh", "-c", "echo > /go"]).ok();
    let log = berth.root().join("containers").join(&id).join("container.log");
    let size = || std::fs::metadata(&log).map_or(0, |m| m.len());
    eventually("output flows", || size() > 0);
    let mut last = 0;
    eventually("the stalled client holds it back", || {
        std::thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut last, size()) == last
    });
    let grown = shim.memory_kib().saturating_sub(before.0);
    assert!(grown < 4096, "the shim keeps {grown} KiB more");
    shim.hears(&berth, &["stop", "-t", "0", &id]);
    let _ = stalled.kill();
    let _ = stalled.wait();
    let _ = berth.run(["rm", "-f", &id]).ok();
}

/// CVE-2022-31030 is memory, here it is descriptors and threads too: whatever is done a hundred times leaves nothing.
#[test]
fn attach_resize_exec_and_checks_leave_nothing_in_the_shim() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let flags = ["-t", "--health-cmd=true", "--health-interval=20ms"];
    let (id, shim) = Shim::run(&berth, &flags, &SLEEP);
    let rounds = |count: usize| {
        for _ in 0..count {
            let client = connect(&berth, &id);
            assert!(ask(
                &client,
                r#"{"Attach":{"stdin":true,"stdout":true,"stderr":true}}"#
            ));
            for rows in 1..10 {
                assert!(ask(
                    &client,
                    &format!(r#"{{"Resize":{{"rows":{rows},"columns":80}}}}"#)
                ));
            }
        }
        for _ in 0..count / 8 {
            let _ = berth.run(["exec", &id, "true"]).ok();
            let mut attached = quiet(&berth, &["attach", "--no-stdin", &id]);
            attached.kill().expect("kill berth attach");
            attached.wait().expect("wait for berth attach");
        }
    };
    // What is allocated once is allocated now.
    rounds(40);
    eventually("clients are gone", || shim.others().is_empty());
    let before = (shim.descriptors(), shim.threads(), shim.memory_kib());
    rounds(400);
    eventually("no descriptor is left", || shim.descriptors() <= before.0);
    assert_eq!(shim.threads(), before.1);
    let grown = shim.memory_kib().saturating_sub(before.2);
    assert!(grown < 1024, "the shim keeps {grown} KiB more");
    let _ = berth.run(["rm", "-f", &id]).ok();
}

#[test]
fn a_container_ends_although_others_write_to_its_streams() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    // Without a pid namespace the rest does not go with init.
    let script = "yes & yes & yes & sleep 1; exit 7";
    let (id, shim) = Shim::run(&berth, &["--pid=host"], &["sh", "-c", script]);
    shim.hears(&berth, &["wait", &id]);
    assert_eq!(
        berth
            .run(["inspect", "--format", "{{.State.ExitCode}}", &id])
            .ok(),
        "7"
    );
    let _ = berth.run(["rm", &id]).ok();
}

#[test]
fn what_the_caller_left_open_is_not_kept_open_by_the_shim() {
    if !require(&[Need::Root, Need::Program("busybox")]) {
        return;
    }
    let berth = Berth::with_busybox();
    let run = berth.command(["run", "-d", "--network=none", "busybox", "sleep", "600"]);
    let program = run.get_program().to_owned();
    // Descriptor 9 is the pipe we read; the container's streams are elsewhere.
    let mut caller = std::process::Command::new("sh")
        .args(["-c", "exec 9>&1; \"$@\" > /dev/null", "sh"])
        .arg(program)
        .args(run.get_args())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start sh");
    let mut pipe = caller.stdout.take().expect("piped");
    assert!(caller.wait().expect("wait").success());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(std::io::Read::read_to_end(&mut pipe, &mut Vec::new())));
    let end = told.recv_timeout(HANG);
    let id = berth.run(["ps", "-q"]).ok();
    let _ = berth.run(["rm", "-f", &id]).ok();
    end.expect("the pipe ends although the container runs")
        .expect("read");
}
