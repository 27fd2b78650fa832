//! `bpf(2)` for programs that guard a v2 cgroup's devices: load, attach, replace, find. Nothing else of BPF.
#![allow(unsafe_code)] // bpf(2) has no wrapper in std or rustix; its argument is a union chosen by the command.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;
const OBJ_NAME_LEN: usize = 16;

/// `struct bpf_insn`: one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Source register in the upper four bits, destination in the lower.
    pub registers: u8,
    /// Jump distance or displacement.
    pub offset: i16,
    /// Constant.
    pub immediate: i32,
}

#[derive(Default)]
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; OBJ_NAME_LEN],
}

#[derive(Default)]
#[repr(C)]
struct ProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[derive(Default)]
#[repr(C)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[derive(Default)]
#[repr(C)]
struct GetId {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[derive(Default)]
#[repr(C)]
struct ObjInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`, up to the name.
#[derive(Default)]
#[repr(C)]
struct ProgInfo {
    prog_type: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; OBJ_NAME_LEN],
}

/// Length of the head of `bpf_prog_info` asked for: offsets of linux/bpf.h.
const PROG_INFO_LEN: u32 = 80;
const _: () = assert!(size_of::<ProgInfo>() == PROG_INFO_LEN as usize);

/// Loads a `BPF_PROG_TYPE_CGROUP_DEVICE` program. `name` is cut at 15 bytes. On a verifier's refusal the errno is all
/// that is returned.
pub fn load_cgroup_device(program: &[Insn], name: &CStr) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: program.as_ptr() as u64,
        // The verifier wants one; the program calls no GPL-only helper.
        license: c"Apache-2.0".as_ptr() as u64,
        ..ProgLoad::default()
    };
    for (to, from) in attr.prog_name[..OBJ_NAME_LEN - 1].iter_mut().zip(name.to_bytes()) {
        *to = *from;
    }
    // SAFETY: `insns` points to `insn_cnt` instructions and `license` to a C string; both outlive the call, which only
    // reads them. `ProgLoad` is the head of the kernel's union for this command.
    owned(unsafe { bpf(BPF_PROG_LOAD, &mut attr) }?)
}

/// Attaches `program` to the cgroup at `cgroup`, in place of `replaced` if given. Other programs there stay.
pub fn attach_cgroup_device(
    cgroup: BorrowedFd<'_>,
    program: &impl AsFd,
    replaced: Option<&OwnedFd>,
) -> io::Result<()> {
    let mut attr = ProgAttach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program.as_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    if let Some(replaced) = replaced {
        attr.attach_flags |= BPF_F_REPLACE;
        attr.replace_bpf_fd = number(replaced.as_fd());
    }
    // SAFETY: the structure holds no pointer and is the head of the kernel's union for this command.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }?;
    Ok(())
}

/// Ids of the device programs attached to the cgroup itself. More than 64 (the kernel's own limit) is an error.
pub fn query_cgroup_device(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; 64];
    let mut attr = ProgQuery {
        target_fd: number(cgroup),
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        ..ProgQuery::default()
    };
    // SAFETY: `prog_ids` points to room for `prog_cnt` ids that lives until the call returns; the kernel writes no more.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// The program with this id.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = GetId {
        id,
        ..GetId::default()
    };
    // SAFETY: the structure holds no pointer and is the head of the kernel's union for this command.
    owned(unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) }?)
}

/// The name a program was loaded under.
pub fn program_name(program: &impl AsFd) -> io::Result<CString> {
    let mut info = ProgInfo::default();
    let mut attr = ObjInfo {
        bpf_fd: number(program.as_fd()),
        info_len: PROG_INFO_LEN,
        info: &raw mut info as u64,
    };
    // SAFETY: `info` points to `info_len` writable bytes, zeroed as the kernel demands, that outlive the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let name: Vec<u8> = info.name.into_iter().take_while(|byte| *byte != 0).collect();
    CString::new(name).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// # Safety
/// `attr` is the structure of `command`, and every pointer in it is valid for what the command does with it. There is
/// no safe way: which fields are pointers depends on the command.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the size is that of `attr`, so the kernel stays within it; its pointers are the caller's duty.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: bpf(2) has just returned this descriptor (always close-on-exec) and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}
