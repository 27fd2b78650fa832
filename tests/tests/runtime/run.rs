//! `run`: create, start, wait, delete in one.

use berth_tests::{Bundle, Need, require};

#[test]
fn the_exit_code_is_the_programs_and_nothing_is_left() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let ran = bundle.verb(&["run"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (7, "out\n", "err\n")
    );
    bundle.assert_clean();
}

#[test]
fn a_signal_of_the_program_is_128_and_its_number() {
    if !require(&[Need::Root]) {
        return;
    }
    // Init of a pid namespace does not die of its own signals, its child does.
    let bundle = Bundle::new(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    assert_eq!(bundle.verb(&["run"]).code, 137);
}

#[test]
fn the_container_has_namespaces_of_its_own() {
    if !require(&[Need::Root]) {
        return;
    }
    let script = "hostname; echo $$; cat /proc/net/dev | wc -l; for n in ipc mnt net pid uts cgroup; do readlink /proc/self/ns/$n; done";
    let bundle = Bundle::new(&["sh", "-c", script]);
    let text = bundle.verb(&["run"]).ok();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("box"));
    assert_eq!(lines.next(), Some("1"));
    assert_eq!(lines.next().map(str::trim), Some("3"), "a header and lo");
    for (line, name) in lines.zip(["ipc", "mnt", "net", "pid", "uts", "cgroup"]) {
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).expect("own namespace");
        assert_ne!(line, ours.display().to_string(), "{name}");
    }
}

#[test]
fn a_missing_program_is_named_in_the_words_engines_look_for() {
    if !require(&[Need::Root]) {
        return;
    }
    for (program, words) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", "exec: \"/nope\": stat /nope: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let bundle = Bundle::new(&[program]);
        let ran = bundle.verb(&["run"]);
        assert_eq!(ran.code, 1, "{program}");
        assert!(ran.stderr.contains(words), "{program}: {}", ran.stderr);
        bundle.assert_clean();
    }
}

#[test]
fn errors_reach_the_log_as_json() {
    if !require(&[Need::Root]) {
        return;
    }
    let bundle = Bundle::new(&["nope"]);
    let log = bundle.path().join("log");
    let name = log.display().to_string();
    let _ = bundle.output(&["--log", &name, "--log-format", "json", "run", &bundle.id]);
    let line: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&log).expect("log")).expect("json");
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"]
            .as_str()
            .is_some_and(|m| m.contains("executable file not found in $PATH")),
        "{line}"
    );
    assert!(line["time"].is_string());
}

#[test]
fn systemd_cgroups_are_refused_clearly() {
    let bundle = Bundle::new(&["true"]);
    let ran = bundle.output(&["--systemd-cgroup", "run", &bundle.id]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("not supported: --systemd-cgroup"),
        "{}",
        ran.stderr
    );
}

/// The short cut of `berth-sys`' `entry.rs` costs nothing but time when it is gone: no other test would tell.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_program_begins_where_it_seals_itself() {
    let program = std::fs::read(berth_tests::binary("berth-runtime")).expect("read the program");
    let word = |at: usize| u64::from_le_bytes(program[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u16::from_le_bytes(program[at..at + 2].try_into().expect("two bytes"));
    // ELF-64: e_entry, e_phoff, e_phentsize, e_phnum; of a segment p_offset, p_vaddr, p_filesz.
    let (entry, headers) = (word(24), usize::try_from(word(32)).expect("an offset"));
    let offset = (0..usize::from(half(56)))
        .map(|number| headers + number * usize::from(half(54)))
        .map(|header| (word(header + 8), word(header + 16), word(header + 32)))
        .find(|(_, address, size)| (*address..address + size).contains(&entry))
        .map(|(offset, address, _)| usize::try_from(entry - address + offset).expect("an offset"))
        .expect("a segment holds the entry point");
    // mov rbx, rdx; mov rbp, rsp
    assert_eq!(program[offset..offset + 6], [0x48, 0x89, 0xd3, 0x48, 0x89, 0xe5]);
}
