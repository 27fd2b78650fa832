//! Names inside containers, as the C library and busybox look them up, and the files they start from. Each test has a
//! network namespace and a mount namespace of its own, whose `/etc` files play the host's.
#![allow(unsafe_code)] // unshare(2)

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use berth_tests::{Berth, Need, Shim, require};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// What the C library needs to be used in a container that has none: the host's own.
const LIBC: [&str; 6] = [
    "-v",
    "/usr:/usr:ro",
    "-v",
    "/lib:/lib:ro",
    "-v",
    "/lib64:/lib64:ro",
];

/// Runs `test` where the host is a namespace of its own with these lines in its `/etc/resolv.conf` and `/etc/hosts`.
fn as_host(resolv_conf: &'static str, hosts: &'static str, test: impl FnOnce(&Berth) + Send + 'static) {
    if !require(&[Need::Root, Need::Program("busybox"), Need::Program("getent")]) {
        return;
    }
    let run = move || {
        // SAFETY: neither flag shares or splits memory or descriptors.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.unwrap();
        let private =
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        assert!(
            Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap()
                .success()
        );
        let berth = Berth::with_busybox();
        for (path, text) in [("/etc/resolv.conf", resolv_conf), ("/etc/hosts", hosts)] {
            let file = berth.scratch().join(path.replace('/', "_"));
            std::fs::write(&file, text).unwrap();
            rustix::mount::mount_bind(&file, path).unwrap();
        }
        test(&berth);
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs something inside a container's network namespace, on a thread of its own.
fn inside<T: Send + 'static>(berth: &Berth, id: &str, action: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = std::fs::File::open(berth.state().join("netns").join(id)).unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        action()
    })
    .join()
    .unwrap()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

/// A question whose name has as many addresses as its first label says: `3.example.com`. Over UDP more than fit are said
/// to be truncated, with none of them. Without a number there is no such name.
fn answer(question: &[u8], is_tcp: bool) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let first = &question[13..13 + usize::from(question[12])];
    let count: Option<u8> = std::str::from_utf8(first).unwrap().parse().ok();
    let is_a = question[end - 4..end] == [0, 1, 0, 1];
    let count = count.map(|count| if is_a { count } else { 0 });
    let is_cut = !is_tcp && count.is_some_and(|count| count > 20);
    let given = count.filter(|_| !is_cut).unwrap_or(0);
    let mut reply = question[..2].to_vec();
    reply.extend([
        if is_cut { 0x83 } else { 0x81 },
        if count.is_some() { 0x80 } else { 0x83 },
    ]);
    reply.extend([0, 1, 0, given, 0, 0, 0, 0]);
    reply.extend(&question[12..end]);
    for n in 0..given {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, n]);
    }
    reply
}

/// A resolver at an address of the test's host; how often it was asked.
fn resolver(at: [u8; 4]) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let at = SocketAddr::from((at, 53));
    let (udp, tcp) = (UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap());
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            udp.send_to(&answer(&buffer[..length], false), from).unwrap();
        }
    });
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            if let Ok(question) = read_message(&mut stream) {
                let _ = write_message(&mut stream, &answer(&question, true));
            }
        }
    });
    asked
}

fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, message].concat())
}

#[test]
fn c_libraries_find_neighbours_and_the_world() {
    let host = "nameserver 127.0.1.9\nnameserver 127.0.1.1\n";
    as_host(host, "127.0.0.1 localhost\n", |berth| {
        let asked = resolver([127, 0, 1, 1]);
        let _ = berth.run(["network", "create", "back"]).ok();
        let id = berth
            .run([
                "run",
                "-d",
                "--name",
                "web",
                "--network",
                "back",
                "--network-alias",
                "www",
                "busybox",
                "sleep",
                "600",
            ])
            .ok();
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let ip = berth.run(["inspect", "--format", format, "web"]).ok();
        let _ = berth
            .run(["run", "-d", "--name", "apart", "busybox", "sleep", "600"])
            .ok();
        let run = |program: &[&str]| {
            let fixed = ["run", "--rm", "--network", "back"];
            let arguments = [&fixed[..], &LIBC, &["busybox"], program].concat();
            berth.run(arguments)
        };
        for name in ["web", "www", &id[..12]] {
            let found = run(&["/usr/bin/getent", "ahostsv4", name]).ok();
            assert!(found.starts_with(&ip), "{name}: {found}");
            let found = run(&["/bin/nslookup", name]).ok();
            assert!(found.contains(&format!("Address: {ip}")), "{name}: {found}");
        }
        let found = run(&["/usr/bin/getent", "hosts", &ip]).ok();
        assert!(found.ends_with(" web"), "{found}");
        assert_eq!(asked.load(Ordering::SeqCst), 0, "the world hears of neighbours");
        // Of the other network, and of nowhere: getent(1) says 2.
        for name in ["apart", "none.example.com"] {
            assert_eq!(run(&["/usr/bin/getent", "ahostsv4", name]).code, 2, "{name}");
        }
        // The first resolver does not listen, the second answers; what is truncated comes over TCP.
        for (name, count) in [("3.example.com", 3), ("40.example.com", 40)] {
            let found = run(&["/usr/bin/getent", "ahostsv4", name]).ok();
            let streams = found.lines().filter(|line| line.contains("STREAM")).count();
            assert_eq!(streams, count, "{found}");
        }
        let found = run(&["/bin/nslookup", "3.example.com"]).ok();
        assert!(found.contains("Address: 192.0.2.2"), "{found}");
    });
}

#[test]
fn files_start_from_the_hosts_as_dockers_do() {
    let host = "# the host's\nnameserver 127.0.1.1 ; here\nsearch a.test\ndomain b.test\noptions edns0\noptions timeout:2\n";
    as_host(host, "127.0.0.1 localhost\n192.0.2.7 printer\n", move |berth| {
        let cat = |flags: &[&str], file: &str| {
            let arguments = [&["run", "--rm"], flags, &["busybox", "cat", file]].concat();
            berth.run(arguments).ok()
        };
        // With the host's network: the host's own, to the byte.
        let (hosts, resolv) = ("/etc/hosts", "/etc/resolv.conf");
        assert_eq!(cat(&["--network", "host"], resolv), host.trim_end());
        let theirs = "127.0.0.1 localhost\n192.0.2.7 printer";
        assert_eq!(cat(&["--network", "host"], hosts), theirs);
        let added = ["--network", "host", "--add-host", "printer:192.0.2.8"];
        assert_eq!(cat(&added, hosts), format!("192.0.2.8\tprinter\n{theirs}"));
        assert_eq!(
            cat(
                &["--network", "host", "--dns", "192.0.2.1", "--dns-search", "."],
                resolv
            ),
            "nameserver 192.0.2.1\noptions edns0 timeout:2"
        );
        // On a network: our name server, with what the host says besides.
        assert_eq!(
            cat(&[], resolv),
            "nameserver 127.0.0.11\nsearch b.test\noptions edns0 timeout:2 ndots:0"
        );
        assert_eq!(
            cat(&["--dns-search", "c.test", "--dns-opt", "ndots:2"], resolv),
            "nameserver 127.0.0.11\nsearch c.test\noptions ndots:2"
        );
        let flags = [
            "--name",
            "named",
            "--network-alias",
            "other",
            "--hostname",
            "web.example.com",
            "--add-host",
            "db:192.0.2.5",
            "--add-host",
            "up=host-gateway",
            "--add-host",
            "six:[2001:db8::1]",
        ];
        let text = cat(&flags, hosts);
        let own = lines(&text).split_off(6);
        assert_eq!(own[..3], ["192.0.2.5\tdb", "10.77.0.1\tup", "2001:db8::1\tsix"]);
        let (address, names) = own[3].split_once('\t').unwrap();
        assert!(address.parse::<IpAddr>().is_ok());
        assert_eq!((names, own.len()), ("web.example.com web", 4));
        // Whatever umask berth is started with, every user of the container reads them.
        let mut command = berth.command(["run", "--rm", "--user", "1000", "busybox", "cat", hosts, resolv]);
        // SAFETY: umask(2) is async-signal-safe and changes the child alone.
        unsafe {
            command.pre_exec(|| {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
                Ok(())
            });
        }
        let output = berth_tests::Output::from(command.output().unwrap());
        assert!(output.ok().contains("nameserver 127.0.0.11"));
    });
}

#[test]
fn a_network_joined_later_is_in_hosts_while_it_lasts() {
    as_host("", "", |berth| {
        let _ = berth
            .run(["network", "create", "--subnet", "10.99.0.0/24", "front"])
            .ok();
        let started = [
            "run",
            "-d",
            "--name",
            "web",
            "--hostname",
            "web.test",
            "busybox",
            "sleep",
            "600",
        ];
        let id = berth.run(started).ok();
        let hosts = || berth.run(["exec", "web", "cat", "/etc/hosts"]).ok();
        let before = hosts();
        let written = [
            "exec",
            "web",
            "sh",
            "-c",
            "printf '192.0.2.9\tmine' >> /etc/hosts",
        ];
        let _ = berth.run(written).ok();
        let _ = berth
            .run(["network", "connect", "--ip", "10.99.0.7", "front", "web"])
            .ok();
        // What the container wrote itself stays, and stays a line.
        let after = hosts();
        assert_eq!(
            after,
            format!("{before}\n192.0.2.9\tmine\n10.99.0.7\tweb.test web")
        );
        let _ = berth.run(["network", "disconnect", "front", "web"]).ok();
        assert_eq!(hosts(), format!("{before}\n192.0.2.9\tmine"));
        // A join that cannot be written down has not happened.
        let file = berth.state().join("containers").join(&id).join("hosts");
        let aside = file.with_file_name("aside");
        std::fs::rename(&file, &aside).unwrap();
        std::fs::create_dir(&file).unwrap();
        let refused = berth.run(["network", "connect", "front", "web"]);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("hosts"), "{}", refused.stderr);
        std::fs::remove_dir(&file).unwrap();
        std::fs::rename(&aside, &file).unwrap();
        let members = ["network", "inspect", "-f", "{{len .Containers}}", "front"];
        assert_eq!(berth.run(members).ok(), "0");
        let refused = berth.run(["network", "connect", "--alias", "a b", "front", "web"]);
        assert!(
            refused.code != 0 && refused.stderr.contains("a b"),
            "{}",
            refused.stderr
        );
    });
}

#[test]
fn words_that_would_break_a_line_are_refused() {
    as_host("", "", |berth| {
        for (flag, value) in [
            ("--add-host", "a\n1.2.3.4 evil:192.0.2.1"),
            ("--add-host", "a b:192.0.2.1"),
            ("--add-host", "a#:192.0.2.1"),
            ("--add-host", ":192.0.2.1"),
            ("--add-host", "a:[192.0.2.1"),
            ("--add-host", "a:[[::1]]"),
            ("--add-host", "a:gateway"),
            ("--dns-search", "a.test\nnameserver 192.0.2.66"),
            ("--dns-search", "a.test b.test"),
            ("--dns-search", ""),
            ("--dns-opt", "ndots:1\nnameserver 192.0.2.66"),
            ("--dns-option", "a\tb"),
            ("--hostname", "web\n192.0.2.66 bank"),
            ("--hostname", "web bank"),
            ("--domainname", "a\nb"),
            ("--network-alias", "a b"),
        ] {
            let output = berth.run(["create", flag, value, "busybox", "true"]);
            assert_eq!(output.code, 125, "{flag} {value:?}: {output:?}");
            let name = match flag {
                "--dns-opt" => "dns-option",
                other => other.trim_start_matches('-'),
            };
            assert!(
                output.stderr.contains(name),
                "{flag} {value:?}: {}",
                output.stderr
            );
            assert_eq!(output.stdout, "");
        }
        assert_eq!(berth.run(["ps", "--all", "--quiet"]).ok(), "");
    });
}

/// What a process has used of the processor, in ticks of a hundredth of a second.
fn ticks(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn descriptors(pid: Pid) -> Vec<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    numbers.collect()
}

#[test]
fn a_shim_without_descriptors_waits_for_them() {
    as_host("nameserver 127.0.1.1\n", "", |berth| {
        resolver([127, 0, 1, 1]);
        let id = berth
            .run(["run", "-d", "--name", "web", "busybox", "sleep", "600"])
            .ok();
        let shim = Pid::from_raw(Shim::of(berth, &id).pid).unwrap();
        let open = descriptors(shim);
        let is_free = |number: &u64| !open.contains(number);
        // As poll(2) takes no more descriptors than this, a few above those it is given.
        let limit = (24..).find(is_free).unwrap();
        let gaps = (0..limit).filter(is_free).count();
        let few = Rlimit {
            current: Some(limit),
            maximum: Some(20_000),
        };
        let usual = prlimit(Some(shim), Resource::Nofile, few).unwrap();
        let control = control_socket(berth, &id);
        let clients: Vec<UnixStream> = (0..gaps + 8).map(|_| connect_packets(&control)).collect();
        let until = Instant::now() + Duration::from_secs(10);
        while descriptors(shim).len() < open.len() + gaps {
            assert!(Instant::now() < until, "{gaps} clients are not taken in");
            std::thread::sleep(Duration::from_millis(10));
        }
        let question: Vec<u8> = [
            &[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3][..],
            b"web\0\0\x01\0\x01",
        ]
        .concat();
        let asked = question.clone();
        let mut streams = inside(berth, &id, move || {
            let mut streams: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(SERVER).unwrap()).collect();
            for stream in &mut streams {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                write_message(stream, &asked).unwrap();
            }
            streams
        });
        std::thread::sleep(Duration::from_millis(200));
        let before = ticks(shim);
        std::thread::sleep(Duration::from_secs(2));
        let used = ticks(shim) - before;
        let opened = descriptors(shim).len() - open.len() - gaps;
        // Before anything can fail: a shim without descriptors cannot be told to stop either.
        prlimit(Some(shim), Resource::Nofile, usual).unwrap();
        assert!(used < 40, "{used} hundredths of a second of doing nothing");
        assert_eq!(opened, 0);
        for stream in &mut streams {
            assert!(
                !read_message(stream).unwrap().is_empty(),
                "served once there are descriptors"
            );
        }
        drop(clients);
        let _ = berth.run(["stop", "--time", "0", "web"]).ok();
    });
}

fn control_socket(berth: &Berth, id: &str) -> std::path::PathBuf {
    berth.state().join("containers").join(id).join("shim.sock")
}

/// Connects as `berth attach` and `berth stop` do; the path is longer than an address may be, so by its directory.
fn connect_packets(path: &Path) -> UnixStream {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let directory = std::fs::File::open(path.parent().unwrap()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let name = path.file_name().unwrap().to_str().unwrap();
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{number}/{name}")).unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while let Err(errno) = connect(&socket, &address) {
        assert!(Instant::now() < until, "{errno}");
        std::thread::sleep(Duration::from_millis(10));
    }
    socket.into()
}
