//! System calls that the standard library and rustix lack, one typed function per use.
//!
//! A wrapper takes borrowed descriptors and C strings, returns owned descriptors, keeps errno and adds nothing else;
//! what to do with the answer is decided by the crates above. Nearly all unsafe code of the workspace is here.
//!
//! * [`clone`]: `clone3(2)` with namespaces, a pidfd and a cgroup; [`pidfd`]: waiting on and identifying processes
//! * [`fdpass`]: descriptors over Unix sockets; [`fds`]: `close_range(2)` before foreign code
//! * [`reexec`]: the guard against CVE-2019-5736, and `entry`, its short cut; [`pty`]: terminals
//! * [`mount_attr`], [`open_beneath`]: the mount API and paths resolved beneath a descriptor; [`namespace`]: their kinds
//! * [`bpf`]: device filters of v2 cgroups; [`tap`]: Ethernet links that end in a descriptor
//! * [`netlink`], [`vsock`]: sockets that std has no type for; [`random`]: seeding the kernel's generator;
//!   [`tsc`]: time stamps
//! * [`credentials`]: ids, groups, capabilities, keyring, personality, priorities

pub mod bpf;
pub mod clone;
pub mod credentials;
mod entry;
pub mod fdpass;
pub mod fds;
pub mod mount_attr;
pub mod namespace;
pub mod netlink;
pub mod open_beneath;
pub mod pidfd;
pub mod pty;
pub mod random;
pub mod readiness;
pub mod reexec;
pub mod seccomp;
pub mod signals;
pub mod tap;
pub mod tsc;
pub mod vsock;
pub mod working_directory;
