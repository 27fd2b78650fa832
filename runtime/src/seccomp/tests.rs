//! Filters loaded for real. Without TSYNC a filter holds the thread that loads it, so each test gives one to a thread.
#![allow(unsafe_code)] // calls made raw, because the answer of the kernel to their very numbers is the subject

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use super::*;

fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).expect("profile")
}

fn confined<T: std::marker::Send>(
    filter: &Filter,
    body: impl FnOnce(Option<OwnedFd>) -> T + std::marker::Send,
) -> T {
    let run = || {
        rustix::thread::set_no_new_privs(true).expect("no_new_privs");
        body(filter.load().expect("load"))
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("thread"))
}

/// The errno of a raw call, 0 if it succeeds.
fn errno(number: libc::c_long, args: [u64; 3]) -> i32 {
    // SAFETY: the tests pass numbers and null pointers only; the kernel answers EFAULT rather than write through them.
    let rc = unsafe { libc::syscall(number, args[0], args[1], args[2]) };
    if rc < 0 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}

fn compile(value: Value) -> Filter {
    Filter::compile(&profile(value), None).expect("compile")
}

fn refusal(value: Value) -> String {
    Filter::compile(&profile(value), None)
        .expect_err("must be refused")
        .to_string()
}

#[test]
fn actions_and_their_numbers_arrive() {
    let filter = compile(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
            {"names": ["getsid", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["getpgid"], "action": "SCMP_ACT_LOG"}]}),
    );
    confined(&filter, |notify| {
        assert!(notify.is_none());
        assert_eq!(errno(libc::SYS_getppid, [0; 3]), 77);
        assert_eq!(errno(libc::SYS_getsid, [0; 3]), libc::EPERM);
        assert_eq!(errno(libc::SYS_getpgid, [0; 3]), 0);
    });
}

#[test]
fn every_operator_compares() {
    // alarm(0) changes nothing and takes any number only for a moment; getpriority's first argument is free to vary.
    for (op, value, two, hit, miss) in [
        ("SCMP_CMP_NE", 5, None, 6, 5),
        ("SCMP_CMP_LT", 5, None, 4, 5),
        ("SCMP_CMP_LE", 5, None, 5, 6),
        ("SCMP_CMP_EQ", 5, None, 5, 6),
        ("SCMP_CMP_GE", 5, None, 5, 4),
        ("SCMP_CMP_GT", 5, None, 6, 5),
        ("SCMP_CMP_MASKED_EQ", 0xf0, Some(0x10), 0x1f, 0x2f),
    ] {
        let filter = compile(
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getpriority"],
            "action": "SCMP_ACT_ERRNO", "errnoRet": 99,
            "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}]}]}),
        );
        confined(&filter, |_| {
            assert_eq!(errno(libc::SYS_getpriority, [hit, 0, 0]), 99, "{op} {hit}");
            assert_ne!(errno(libc::SYS_getpriority, [miss, 0, 0]), 99, "{op} {miss}");
        });
    }
}

#[test]
fn one_argument_compared_twice_means_either() {
    let arg = |value: u64| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
    let filter = compile(
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getpriority"],
        "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": [arg(7), arg(9)]}]}),
    );
    confined(&filter, |_| {
        assert_eq!(errno(libc::SYS_getpriority, [7, 0, 0]), 99);
        assert_eq!(errno(libc::SYS_getpriority, [9, 0, 0]), 99);
        assert_ne!(errno(libc::SYS_getpriority, [8, 0, 0]), 99);
    });
}

#[test]
fn calls_newer_than_the_profile_are_absent_not_forbidden() {
    let deny = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]});
    confined(&compile(deny), |_| assert_eq!(errno(452, [0; 3]), 77));

    // A default that forbids, with what a thread needs to end.
    let strict = compile(
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": [
        {"names": ["exit", "exit_group", "futex", "munmap", "mmap", "madvise", "sigaltstack", "rt_sigprocmask", "write",
            "brk", "mprotect", "set_robust_list", "openat2", "cachestat"], "action": "SCMP_ACT_ALLOW"}]}),
    );
    let (known, allowed, newer, negative) = confined(&strict, |_| {
        (
            errno(libc::SYS_getppid, [0; 3]),
            errno(451, [u64::MAX, 0, 0]),
            errno(1000, [0; 3]),
            errno(425, [0; 3]),
        )
    });
    assert_eq!(known, 13, "the default");
    assert!(
        ![13, libc::ENOSYS].contains(&allowed),
        "reached the kernel: {allowed}"
    );
    assert_eq!(newer, libc::ENOSYS);
    assert_eq!(negative, 13, "below the newest that is named, the default holds");
}

#[test]
fn a_notification_and_its_state_reach_the_listener() {
    for held in [
        vec!["getppid"],
        vec!["getppid", "sendmsg"],
        vec!["getppid", "sendmmsg", "write", "close"],
    ] {
        let filter = compile(
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x", "listenerMetadata": "m",
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls": [{"names": held, "action": "SCMP_ACT_NOTIFY"}]}),
        );
        assert!(filter.notifies());
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let answered = std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                rustix::thread::set_no_new_privs(true).unwrap();
                let notify = filter.load().unwrap().expect("a listener");
                filter
                    .send_listener(theirs.as_fd(), b"{\"pid\":1}", notify.as_fd())
                    .unwrap();
                std::mem::forget(notify); // close may be held
                errno(libc::SYS_getppid, [0; 3])
            });
            let mut text = [0; 64];
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let got = recvmsg(
                &ours,
                &mut [IoSliceMut::new(&mut text)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
            .unwrap();
            assert_eq!(&text[..got.bytes], b"{\"pid\":1}");
            let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else {
                panic!("no descriptor")
            };
            let listener = fds.next().unwrap();
            let request = libseccomp::ScmpNotifReq::receive(listener.as_raw_fd()).unwrap();
            assert_eq!(
                request.data.syscall.as_raw_syscall(),
                i32::try_from(libc::SYS_getppid).unwrap()
            );
            libseccomp::ScmpNotifResp::new_error(request.id, -88, libseccomp::ScmpNotifRespFlags::empty())
                .respond(listener.as_raw_fd())
                .unwrap();
            // What the thread still calls at its end is let through.
            let end = scope.spawn(move || {
                while let Ok(r) = libseccomp::ScmpNotifReq::receive(listener.as_raw_fd()) {
                    let _ = libseccomp::ScmpNotifResp::new_continue(
                        r.id,
                        libseccomp::ScmpNotifRespFlags::empty(),
                    )
                    .respond(listener.as_raw_fd());
                }
            });
            let answered = confined.join().unwrap();
            drop(end);
            answered
        });
        assert_eq!(answered, 88);
    }
}

#[test]
fn a_profile_that_would_wait_for_itself_is_refused() {
    let both = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x",
        "syscalls": [{"names": ["sendmsg", "sendmmsg"], "action": "SCMP_ACT_NOTIFY"}]});
    assert!(refusal(both).contains("no call to hand the listener over"));
    assert!(
        refusal(json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"})).contains("defaultAction")
    );
    let nobody = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]});
    assert!(refusal(nobody).contains("listenerPath"));
}

#[test]
fn mistakes_are_named() {
    let syscall = |more: Value| {
        let mut entry = json!({"names": ["read"], "action": "SCMP_ACT_ERRNO"});
        entry
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        refusal(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]}))
    };
    assert!(syscall(json!({"names": []})).contains("syscalls[0].names"));
    assert!(syscall(json!({"errnoRet": 5000})).contains("syscalls[0].errnoRet"));
    assert!(syscall(json!({"action": "SCMP_ACT_KILL_PROCESS", "errnoRet": 5})).contains("has no number"));
    assert!(
        syscall(json!({"args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}))
            .contains("syscalls[0].args")
    );
}

#[test]
fn an_equal_profile_is_compiled_once_and_a_changed_file_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("seccomp");
    let seccomp = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]}));
    let first = Filter::compile(&seccomp, Some(&dir)).unwrap();
    assert_eq!(
        std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let key = cache::key(&seccomp).unwrap();
    let read = |dir: &Path, key: &str| cache::read(dir, key, Some(&compile::compiler().unwrap()));
    let file = dir.join(format!("{key}.bpf"));
    let whole = std::fs::read(&file).unwrap();
    let encoded = |f: &Filter| keep::encode(&f.program);
    let from_cache = Filter::compile(&seccomp, Some(&dir)).unwrap();
    assert_eq!(encoded(&first), encoded(&from_cache));
    assert!(read(&dir, &key).is_some());

    let set = |bytes: &[u8], mode: u32| {
        std::fs::write(&file, bytes).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    };
    for at in [0, 20, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        set(&changed, 0o600);
        assert!(read(&dir, &key).is_none(), "byte {at} changed");
    }
    set(&whole[..whole.len() - 8], 0o600);
    assert!(read(&dir, &key).is_none(), "torn");
    set(&whole, 0o620);
    assert!(read(&dir, &key).is_none(), "writable by others");
    set(&whole, 0o600);
    assert!(
        cache::read(&dir, &key, Some("libseccomp 2.5.3")).is_none(),
        "another compiler's"
    );
    assert!(
        cache::read(&dir, &key, None).is_some(),
        "whose compiler does not matter"
    );
    std::fs::remove_file(&file).unwrap();
    std::fs::write(dir.join("elsewhere"), &whole).unwrap();
    std::os::unix::fs::symlink("elsewhere", &file).unwrap();
    assert!(read(&dir, &key).is_none(), "a link");

    // Another profile's whole file under this name.
    let other = profile(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    Filter::compile(&other, Some(&dir)).unwrap();
    let other = cache::key(&other).unwrap();
    std::fs::rename(dir.join(format!("{other}.bpf")), &file).unwrap();
    assert!(read(&dir, &key).is_none(), "another's");
    let again = Filter::compile(&seccomp, Some(&dir)).unwrap();
    assert_eq!(encoded(&first), encoded(&again));
    let left: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        !left.iter().any(|n| n.to_string_lossy().starts_with('.')),
        "{left:?}"
    );
}

#[test]
fn a_filter_compiled_for_elsewhere_is_what_the_cache_would_hold() {
    let dir = tempfile::tempdir().unwrap();
    let seccomp = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]}));
    let (name, bytes) = compiled(&seccomp, None).unwrap();
    Filter::compile(&seccomp, Some(dir.path())).unwrap();
    assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), bytes);
}

proptest::proptest! {
    #[test]
    fn decoding_any_bytes_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        if let Some(program) = bytes::decode(&bytes) {
            proptest::prop_assert_eq!(keep::encode(&program), bytes);
        }
    }
}
