//! The timer of a PC in berth-vmm, which is there for guests that ask for it. The guest is some hundred bytes long, so that any KVM
//! runs it.

use std::path::Path;

use berth_tests::{Need, VmmApi, bare_guest, eventually, require};

/// The third counter is to count once, both bytes: `mov al, 0xb0; out 0x43, al`.
const CONTROL: &[u8] = b"\xb0\xb0\xe6\x43";
/// Opens its gate, as Linux does: `in al, 0x61; and al, ~2; or al, 1; out 0x61, al`.
const GATE: &[u8] = b"\xe4\x61\x24\xfd\x0c\x01\xe6\x61";
/// The same without a look: `mov al, 1; out 0x61, al`.
const OPEN: &[u8] = b"\xb0\x01\xe6\x61";

/// Counts from 0x4040, and writes a line to COM1 whenever the counter's output says that it is over: `+` when the count went down
/// meanwhile, `=` when it was not seen to, and `!` when the gate is shut or the
/// counter's state is not as it was told.
///
/// ```text
/// round: mov al, 0x40; out 0x42, al; out 0x42, al; mov r8d, '='
/// again: call count; mov ebx, eax; mov ecx, 3000
/// spin:  pause; dec ecx; jnz spin; call count; cmp ebx, eax; jbe same; mov r8d, '+'
/// same:  in al, 0x61; test al, 0x20; jz again; test al, 1; jz wrong
///        mov al, 0xe8; out 0x43, al; in al, 0x42; and al, 0x3f; cmp al, 0x30; je tell
/// wrong: mov r8d, '!'
/// tell:  mov edx, 0x3f8; mov eax, r8d; out dx, al; mov al, 10; out dx, al; jmp round
/// count: mov al, 0x80; out 0x43, al; in al, 0x42; movzx edi, al; in al, 0x42; movzx eax, al; shl eax, 8; or eax, edi; ret
/// ```
const ROUNDS: &[u8] = b"\
    \xb0\x40\xe6\x42\xe6\x42\x41\xb8\x3d\x00\x00\x00\xe8\x46\x00\x00\x00\x89\xc3\xb9\xb8\x0b\x00\x00\xf3\x90\
    \xff\xc9\x75\xfa\xe8\x34\x00\x00\x00\x39\xc3\x76\x06\x41\xb8\x2b\x00\x00\x00\xe4\x61\xa8\x20\x74\xd9\xa8\
    \x01\x74\x0c\xb0\xe8\xe6\x43\xe4\x42\x24\x3f\x3c\x30\x74\x06\x41\xb8\x21\x00\x00\x00\xba\xf8\x03\x00\x00\
    \x44\x89\xc0\xee\xb0\x0a\xee\xeb\xa9\xb0\x80\xe6\x43\xe4\x42\x0f\xb6\xf8\xe4\x42\x0f\xb6\xc0\xc1\xe0\x08\
    \x09\xf8\xc3";
/// Writes a line, and goes on when a byte was typed.
///
/// ```text
/// mov edx, 0x3f8; mov al, '+'; out dx, al; mov al, 10; out dx, al; mov edx, 0x3fd
/// wait: in al, dx; test al, 1; jz wait
/// ```
const WHEN_TOLD: &[u8] =
    b"\xba\xf8\x03\x00\x00\xb0\x2b\xee\xb0\x0a\xee\xba\xfd\x03\x00\x00\xec\xa8\x01\x74\xfb";

/// Without a jail: the kernel names its thread after the process's number in its own namespace.
fn monitor() -> VmmApi {
    VmmApi::start(&berth_tests::binary("berth-vmm"), &["--no-jail"])
}

/// A monitor with a guest that has written a line.
fn running(code: &[u8]) -> VmmApi {
    let vmm = monitor();
    let kernel = vmm.directory.path().join("kernel");
    std::fs::write(&kernel, bare_guest(code)).unwrap();
    let boot = format!(r#"{{"kernel_image_path": "{}"}}"#, kernel.display());
    vmm.done("PUT", "/boot-source", &boot);
    vmm.done(
        "PUT",
        "/machine-config",
        r#"{"vcpu_count": 1, "mem_size_mib": 8}"#,
    );
    vmm.done("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#);
    wrote(&vmm, 1);
    vmm
}

/// Waits until its guest has written so many lines that say that the counter counts. Others say that the guest was kept from looking.
fn wrote(vmm: &VmmApi, lines: usize) {
    eventually("the counter counts", || counted(vmm) >= lines);
    let text = vmm.text("console");
    assert!(!text.contains('!'), "{text}");
}

fn counted(vmm: &VmmApi) -> usize {
    vmm.text("console").lines().filter(|line| *line == "+").count()
}

/// A monitor that goes on where `vmm` is; both run afterwards.
fn clone(vmm: &VmmApi) -> VmmApi {
    let at = |name: &str| vmm.directory.path().join(name).display().to_string();
    let (state, memory) = (at("state"), at("memory"));
    vmm.done("PATCH", "/vm", r#"{"state": "Paused"}"#);
    let save = format!(r#"{{"snapshot_path": "{state}", "mem_file_path": "{memory}"}}"#);
    vmm.done("PUT", "/snapshot/create", &save);
    vmm.done("PATCH", "/vm", r#"{"state": "Resumed"}"#);
    let clone = monitor();
    let load = format!(
        r#"{{"snapshot_path": "{state}", "mem_backend": {{"backend_type": "File", "backend_path": "{memory}"}}, "resume_vm": true}}"#
    );
    clone.done("PUT", "/snapshot/load", &load);
    clone
}

/// Whether KVM keeps a timer for this monitor: a thread of the kernel's, which is called after the process.
fn has_timer(vmm: &VmmApi) -> bool {
    let name = format!("kvm-pit/{}", vmm.process.id());
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .any(|comm| comm.trim() == name)
}

#[test]
fn a_guest_that_asks_for_a_timer_has_one() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    // Whatever it does first happens to the timer.
    for first in [[CONTROL, GATE], [GATE, CONTROL], [OPEN, CONTROL]] {
        let vmm = running(&[&first.concat(), ROUNDS].concat());
        wrote(&vmm, 5);
        assert!(has_timer(&vmm) || !tells_threads());
    }
}

#[test]
fn a_snapshot_s_guest_goes_on_with_its_timer() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = running(&[CONTROL, GATE, ROUNDS].concat());
    let clone = clone(&vmm);
    wrote(&clone, 5);
    assert!(has_timer(&clone) || !tells_threads());
    wrote(&vmm, counted(&vmm) + 5);
}

#[test]
fn who_does_not_ask_has_none_and_may_ask_later() {
    if !require(&[Need::Root, Need::Kvm]) {
        return;
    }
    let vmm = running(&[WHEN_TOLD, CONTROL, GATE, ROUNDS].concat());
    let mut clone = clone(&vmm);
    assert!(!has_timer(&vmm) && !has_timer(&clone));
    clone.type_at_console("x");
    wrote(&clone, 5);
    assert!(has_timer(&clone) || !tells_threads());
    assert!(!has_timer(&vmm));
}

/// Whether this process sees the kernel's threads: not in a pid namespace of its own.
fn tells_threads() -> bool {
    std::fs::read_to_string(Path::new("/proc/2/comm")).is_ok_and(|comm| comm.trim() == "kthreadd")
}
