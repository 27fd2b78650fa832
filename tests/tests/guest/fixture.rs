//! A microVM with berth-guest in it.
//!
//! In the test VM: `/t/berth-vmm`, `/t/vmlinuz`, `/t/guest.initrd`, the layers `/t/base.erofs` and `/t/top.erofs`, and the scratch
//! drive `/t/scratch.ext4` to copy.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use berth_guest::client::{Client, Error};
use berth_guest::frame;
use berth_guest::protocol::{
    Create, Ended, Exec, Exit, Failure, ProcessId, Ready, Reply, Request, Scratch, Setup, Stream, Streams,
    VERSION,
};
use berth_tests::{HANG, VmmApi};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

/// Emulation below emulation: four seconds on an idle host, and another world on a busy one.
const BOOT_MAX: Duration = Duration::from_secs(300);

pub const INIT: ProcessId = ProcessId::INIT;

/// All three pipes.
pub const PIPES: Streams = Streams::Pipes {
    stdin: true,
    stdout: true,
    stderr: true,
};

/// Only standard output.
pub const OUTPUT: Streams = Streams::Pipes {
    stdin: false,
    stdout: true,
    stderr: false,
};

pub type Host = Client<UnixStream>;

/// A running microVM. Dropped, it is killed.
pub struct Microvm {
    vmm: VmmApi,
    /// Of its vsock and its drives.
    dir: tempfile::TempDir,
}

impl Microvm {
    /// Boots one and waits for its word. Its scratch drive is a fresh copy.
    pub fn boot() -> Microvm {
        Microvm::boot_with(|_| {})
    }

    /// The same with something changed in its configuration.
    pub fn boot_with(change: impl FnOnce(&mut Value)) -> Microvm {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::copy("/t/scratch.ext4", at("scratch")).expect("copy the scratch drive");
        let drive = |id: &str, path: &Path, read_only: bool| json!({"drive_id": id, "path_on_host": path, "is_root_device": false, "is_read_only": read_only});
        let mut config = json!({
            "boot-source": {"kernel_image_path": "/t/vmlinuz", "initrd_path": "/t/guest.initrd",
                "boot_args": "console=ttyS0 panic=-1 quiet"},
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 256},
            "drives": [drive("scratch", &at("scratch"), false), drive("top", Path::new("/t/top.erofs"), true),
                drive("base", Path::new("/t/base.erofs"), true)],
            "vsock": {"guest_cid": 3, "uds_path": at("vsock")},
        });
        change(&mut config);
        std::fs::write(at("vm.json"), config.to_string()).expect("write the configuration");
        let door = UnixListener::bind(at("vsock_1025")).expect("listen");
        door.set_nonblocking(true).expect("a listener");
        let file = at("vm.json").display().to_string();
        let vmm = VmmApi::start(Path::new("/t/berth-vmm"), &["--config-file", &file]);
        let mut microvm = Microvm { vmm, dir };
        let deadline = Instant::now() + BOOT_MAX;
        let mut socket = loop {
            if let Ok((socket, _)) = door.accept() {
                break socket;
            }
            let ended = microvm.vmm.process.try_wait().expect("a child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no word from the guest ({ended:?}); its console:\n{}",
                microvm.console()
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        socket.set_nonblocking(false).expect("a socket");
        let word: Ready = frame::receive(&mut socket).expect("a frame").expect("a word");
        assert_eq!(word.version, VERSION);
        microvm
    }

    /// The same, set up with both layers and a scratch in memory.
    pub fn set_up() -> Microvm {
        let microvm = Microvm::boot();
        microvm.order(&Request::Setup(Box::new(setup())));
        microvm
    }

    /// Writes it to two files of this directory, `state` and `memory`. It stands from then on.
    pub fn snapshot(&self, to: &Path) {
        self.vmm.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
        let files = json!({"snapshot_path": to.join("state"), "mem_file_path": to.join("memory")});
        self.vmm.done("PUT", "/snapshot/create", &files.to_string());
    }

    /// Another one that goes on from such files.
    pub fn restored(from: &Path) -> Microvm {
        let dir = tempfile::tempdir().expect("a directory");
        let vmm = VmmApi::start(Path::new("/t/berth-vmm"), &[]);
        let load = json!({
            "snapshot_path": from.join("state"),
            "mem_backend": {"backend_type": "File", "backend_path": from.join("memory")},
            "vsock_override": {"uds_path": dir.path().join("vsock")},
            "resume_vm": true,
        });
        vmm.done("PUT", "/snapshot/load", &load.to_string());
        Microvm { vmm, dir }
    }

    /// Everything the guest and its monitor have written.
    pub fn console(&self) -> String {
        self.vmm.text("console")
    }

    /// A connection to the guest's port, nothing said yet.
    pub fn connect(&self) -> UnixStream {
        let mut socket = UnixStream::connect(self.dir.path().join("vsock")).expect("connect to the vsock");
        socket.set_read_timeout(Some(HANG)).expect("a timeout");
        socket.set_write_timeout(Some(HANG)).expect("a timeout");
        socket.write_all(b"CONNECT 1024\n").expect("ask for the port");
        let mut answer = Vec::new();
        while answer.last() != Some(&b'\n') {
            let mut byte = [0];
            socket
                .read_exact(&mut byte)
                .unwrap_or_else(|e| panic!("{e}: {answer:?}\n{}", self.console()));
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"OK "), "{answer:?}");
        socket
    }

    /// A conversation.
    pub fn host(&self) -> Host {
        Client::new(self.connect())
    }

    /// Says one thing that has to be done.
    #[track_caller]
    pub fn order(&self, request: &Request) {
        if let Err(e) = self.host().order(request) {
            panic!("{request:?}: {e}\n{}", self.console());
        }
    }

    /// Says one thing that is refused; why.
    #[track_caller]
    pub fn refused(&self, request: &Request) -> String {
        match self.host().call(request) {
            Err(Error::Refused(Failure::Other { why })) => why,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// Makes the container and lets it run.
    #[track_caller]
    pub fn run(&self, config: &Value, streams: Streams) {
        self.create(config, streams);
        self.order(&Request::Start);
    }

    /// Makes the container.
    #[track_caller]
    pub fn create(&self, config: &Value, streams: Streams) {
        match self.host().call(&create(config, streams)) {
            Ok(Reply::Created { .. }) => {}
            other => panic!("{other:?}\n{}", self.console()),
        }
    }

    /// Runs one more process.
    #[track_caller]
    pub fn exec(&self, args: &[&str], streams: Streams) -> ProcessId {
        let terminal = streams == Streams::Terminal;
        match self.host().call(&exec(&process(args, terminal), streams)) {
            Ok(Reply::Execed { process, .. }) => process,
            other => panic!("{other:?}\n{}", self.console()),
        }
    }

    /// One stream of a process.
    #[track_caller]
    pub fn attach(&self, process: ProcessId, stream: Stream) -> UnixStream {
        self.host().attach(process, stream).expect("a stream")
    }

    /// All that comes from a stream until it ends.
    #[track_caller]
    pub fn all(&self, process: ProcessId, stream: Stream) -> String {
        text(self.attach(process, stream))
    }

    /// Waits for a process's end.
    #[track_caller]
    pub fn wait(&self, process: ProcessId) -> Ended {
        self.host()
            .wait(process)
            .unwrap_or_else(|e| panic!("{e}\n{}", self.console()))
    }

    /// Runs one more process; what it writes to standard output, when it ends well.
    #[track_caller]
    pub fn output(&self, args: &[&str]) -> String {
        let process = self.exec(args, OUTPUT);
        let said = self.all(process, Stream::Stdout);
        assert_eq!(self.wait(process).exit, Exit::Code(0), "{args:?}: {said}");
        said
    }

    /// Ends it in order.
    #[track_caller]
    pub fn shut_down(&mut self) {
        self.host().shut_down().expect("it is taken");
        assert_eq!(self.vmm.wait(), 0, "{}", self.console());
    }

    /// Presses Ctrl+Alt+Del, and waits for its end.
    #[track_caller]
    pub fn press_keys(&mut self) {
        self.vmm
            .done("PUT", "/actions", r#"{"action_type": "SendCtrlAltDel"}"#);
        assert_eq!(self.vmm.wait(), 0, "{}", self.console());
    }
}

impl Drop for Microvm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the guest's console:\n{}", self.console());
        }
    }
}

/// All that comes until the other side ends.
#[track_caller]
pub fn text(mut from: UnixStream) -> String {
    let mut said = Vec::new();
    from.read_to_end(&mut said).expect("it ends");
    String::from_utf8_lossy(&said).into_owned()
}

/// The first bytes that come, so many.
#[track_caller]
pub fn first(from: &mut UnixStream, bytes: usize) -> String {
    let mut got = Vec::new();
    while got.len() < bytes {
        let mut byte = [0];
        match from.read(&mut byte) {
            Ok(1) => got.extend(byte),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&got)),
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// Both layers, a scratch in memory.
pub fn setup() -> Setup {
    Setup {
        layers: vec!["base".into(), "top".into()],
        scratch: Scratch::Memory { size: Some(64 << 20) },
        ..Setup::default()
    }
}

pub fn create(config: &Value, streams: Streams) -> Request {
    Request::Create(Create {
        id: "box".into(),
        config: raw(config),
        streams,
        filters: [].into(),
    })
}

pub fn exec(process: &Value, streams: Streams) -> Request {
    Request::Exec(Exec {
        process: raw(process),
        streams,
    })
}

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("it is JSON")
}

/// `process` of the specification.
pub fn process(args: &[&str], terminal: bool) -> Value {
    let caps = json!([
        "CAP_KILL",
        "CAP_CHOWN",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SYS_TIME"
    ]);
    json!({
        "terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/",
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps}, "noNewPrivileges": true
    })
}

/// `config.json` of a container that runs `args`, as the engine makes it for a guest: without a network namespace.
pub fn config(args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": process(args, false),
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "cgroupsPath": "/berth/box",
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]
        }
    })
}

/// A shell that waits for ever: what exec tests run in.
pub fn idle() -> Value {
    config(&[
        "sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done",
    ])
}
