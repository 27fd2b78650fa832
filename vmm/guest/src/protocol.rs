//! What the host and the guest say to each other. No I/O: [`crate::frame`] carries it, [`crate::client`] speaks it.
//!
//! A connection to port [`PORT`] of the guest is one conversation. The host asks, the guest answers each request with one
//! reply, in order; the host may hold as many conversations as it likes, say one that waits and one that kills.
//!
//! ```text
//! host                                    guest
//!                        ◄────────────────  Ready         once, on a connection to port READY_PORT of the host, which is then closed
//!   Setup ─────────────►  ◄───────────────  Done          once
//!   Create ────────────►  ◄───────────────  Created       init exists and waits
//!   Attach{0, Stdout} ─►  ◄───────────────  Done          then this connection is bytes, no frames, until it ends
//!   Start ─────────────►  ◄───────────────  Done          the program runs
//!   Exec ──────────────►  ◄───────────────  Execed{n}     one more runs
//!   Kill{0, 15} ───────►  ◄───────────────  Done
//!   Wait{0} ───────────►  ◄───────────────  Ended         when it has ended, however long that takes
//!   Delete ────────────►  ◄───────────────  Done          and Create is possible again
//!   Shutdown ──────────►  ◄───────────────  Done          perhaps: the power goes off right behind it
//! ```
//!
//! Any request may be answered by [`Reply::Failed`]. What breaks the framing closes the connection instead.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_cgroups::Stats;
use berth_runtime::ps::Observed;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Counts changes of this file that an older side would misread.
pub const VERSION: u32 = 1;
/// The guest's vsock port.
pub const PORT: u32 = 1024;
/// The host's vsock port for [`Ready`]; a monitor with Firecracker's convention takes it to the Unix socket `<uds>_1025`.
pub const READY_PORT: u32 = 1025;

/// The guest's only word unasked: it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The guest's [`VERSION`].
    pub version: u32,
}

/// What the host may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Mount, configure the network, write files. Once in a guest's life; a failure is final.
    Setup(Box<Setup>),
    /// Make the container, its program not yet running.
    Create(Create),
    /// Run its program.
    Start,
    /// Run one more process in the running container.
    Exec(Exec),
    /// Make this connection one stream of a process.
    Attach {
        /// Whose.
        process: ProcessId,
        /// Which.
        stream: Stream,
    },
    /// The size of a process's terminal, in characters.
    Resize {
        /// Whose.
        process: ProcessId,
        /// Height.
        rows: u16,
        /// Width.
        columns: u16,
    },
    /// Send a signal to one process; SIGKILL to one of exec is its process group's, too.
    Kill {
        /// Whom.
        process: ProcessId,
        /// By number, real-time signals too.
        signal: i32,
    },
    /// Send a signal to every process of the container.
    KillAll {
        /// By number.
        signal: i32,
    },
    /// Carry files out of or into the container, by a process of the guest's that is not one of the container's. It is answered
    /// like [`Request::Exec`]: the archive goes over its standard output or input, what went wrong over its standard error.
    Copy(Copy),
    /// What is at this path of the running container, symlinks followed.
    Look {
        /// As its init would name it.
        path: String,
    },
    /// Answer once this process has ended. The end of a process of exec is told once and then forgotten.
    Wait {
        /// Which.
        process: ProcessId,
    },
    /// Freeze every process of the container.
    Pause,
    /// Let them go on.
    Resume,
    /// Change the container's limits.
    Update {
        /// `linux.resources` of the runtime specification.
        resources: Box<RawValue>,
    },
    /// What the guest knows: for a host that comes back.
    State,
    /// What the container has used.
    Stats,
    /// What the guest's kernel says of the container's processes.
    Processes,
    /// Forget the container, which has ended.
    Delete,
    /// Set the wall clock, which stood still while the guest was a snapshot.
    SyncClock {
        /// Nanoseconds since 1970.
        realtime_ns: u64,
    },
    /// Stir these bytes into the kernel's random numbers and draw new keys at once: two guests restored from one snapshot
    /// would draw the same. At most 4096 bytes, all counted as random.
    Reseed {
        /// From the host's own generator.
        seed: Vec<u8>,
    },
    /// End everything, write everything back, power off.
    Shutdown,
}

/// What the guest answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The container is made.
    Created {
        /// What of the configuration was left out, and why.
        warnings: Vec<String>,
    },
    /// The process runs.
    Execed {
        /// What it is called from now on.
        process: ProcessId,
        /// What of the configuration was left out, and why.
        warnings: Vec<String>,
    },
    /// The process has ended.
    Ended(Ended),
    /// Answers [`Request::Look`].
    Found(Found),
    /// Answers [`Request::State`].
    State(State),
    /// Answers [`Request::Stats`].
    Stats(Box<Stats>),
    /// Answers [`Request::Processes`].
    Processes(Observed),
    /// It is not done.
    Failed(Failure),
}

/// Names a process of the container. Never used twice in a guest's life, but for [`ProcessId::INIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessId(pub u32);

impl ProcessId {
    /// The container's own.
    pub const INIT: ProcessId = ProcessId(0);
}

/// A way bytes go between a process and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// To the process; the host ends it by shutting down its side of the connection.
    Stdin,
    /// From the process.
    Stdout,
    /// From the process.
    Stderr,
    /// Both ways: the master of its terminal.
    Terminal,
}

/// What a process has for standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Streams {
    /// A terminal; `terminal` of the process says so too, or it is refused.
    Terminal,
    /// A pipe to attach to for each that is true, `/dev/null` for the others. What has a pipe and is never attached to
    /// makes the process wait once it is full.
    Pipes {
        /// Standard input.
        stdin: bool,
        /// Standard output.
        stdout: bool,
        /// Standard error.
        stderr: bool,
    },
}

/// What [`Request::Setup`] asks for. The paths a configuration may name afterwards are in [`crate::layout`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// The guest's own host name; the container has its own in its configuration.
    pub hostname: Option<String>,
    /// Drives of EROFS images, the lowest layer first, by the serial number the monitor gave them.
    pub layers: Vec<String>,
    /// What the container writes to.
    pub scratch: Scratch,
    /// Directories of the host, by virtio-fs tag.
    pub shares: Vec<Share>,
    /// Network interfaces. Loopback comes up by itself.
    pub interfaces: Vec<Interface>,
    /// Routes beyond those the addresses bring, in order.
    pub routes: Vec<Route>,
    /// Files to bind into the container, by file name.
    pub files: BTreeMap<String, String>,
    /// Sysctls of the guest, as `net.ipv4.ip_forward`.
    pub sysctls: BTreeMap<String, String>,
}

/// Where the uppermost layer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scratch {
    /// In the guest's memory.
    Memory {
        /// At most so many bytes; none leaves the kernel's default, half of the memory.
        size: Option<u64>,
    },
    /// On the drive with this serial number, an ext4 file system.
    Drive(String),
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::Memory { size: None }
    }
}

/// A directory of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The device's tag; also the name of the mount point.
    pub tag: String,
    /// Mount it read-only.
    pub read_only: bool,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Which device it is: its hardware address as `02:00:ac:11:00:02`.
    pub mac: String,
    /// What it is to be called, `eth0`.
    pub name: String,
    /// None leaves the device's own.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits that are the network's; 0 to 32, or 128.
    pub prefix: u8,
}

/// A route through a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to; prefix 0 is the default route.
    pub to: Address,
    /// The next hop, on a network an interface is on.
    pub via: IpAddr,
}

/// What [`Request::Create`] asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Create {
    /// The container's id.
    pub id: String,
    /// `config.json` of the runtime specification.
    pub config: Box<RawValue>,
    /// Its standard streams.
    pub streams: Streams,
    /// The seccomp filter of the configuration, compiled by the host (`berth_runtime::seccomp::compiled`): file name and bytes.
    /// The guest has no compiler, and would need longer for it than for all else.
    #[serde(default)]
    pub filters: BTreeMap<String, Vec<u8>>,
}

/// What [`Request::Exec`] asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// `process` of the runtime specification.
    pub process: Box<RawValue>,
    /// Its standard streams.
    pub streams: Streams,
}

/// What [`Request::Copy`] asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// What to read, or the directory to unpack into.
    pub path: String,
    /// In which direction.
    pub way: Way,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// A tar of what is there as the container sees it, under its last name.
    Out {
        /// Follow a symlink that the path itself is.
        follow: bool,
    },
    /// The same of the container's own root, without what is mounted on it.
    OutOfRoot,
    /// A tar is unpacked there.
    Into {
        /// Keep the owners it names; otherwise everything is root's.
        owners: bool,
    },
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// A directory.
    Directory,
    /// Anything else.
    Other,
    /// Nothing.
    Nothing,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// Whether the container had by then lost a process for lack of memory.
    pub oom_killed: bool,
}

/// What the guest knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Whether Setup has been done.
    pub set_up: bool,
    /// The container, from Create to Delete.
    pub container: Option<ContainerState>,
    /// The processes whose end was not yet told, the container's own among them.
    pub processes: Vec<ProcessId>,
}

/// The container as `runc state` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Its id.
    pub id: String,
    /// `created`, `running`, `paused` or `stopped`.
    pub status: String,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The program cannot be executed.
    Exec {
        /// As it was asked for.
        program: String,
        /// What execve(2) said; `ENOENT` for what is not there.
        errno: i32,
    },
    /// Anything else: operation, object and cause.
    Other {
        /// On one line.
        why: String,
    },
}
