//! Snapshots of berth-vmm with a guest of 176 bytes, which runs on any KVM. `vm_vmm_snapshot.rs` has Debian's kernel.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use berth_tests::{Need, VmmApi, bare_guest, eventually, require};

/// Counts in a register, in an SSE register beside it and in memory, and writes to COM1 lines of a mark and the count in
/// hexadecimal. The mark is `-` until a byte is typed, then that byte, and `!` when the registers disagree.
///
/// ```text
///       mov rax, cr4; or eax, 0x600; mov cr4, rax; xor ebx, ebx; mov [0x300000], rbx; movups xmm7, [0x300000]; mov r8d, '-'
/// next: movups [0x300010], xmm7; cmp [0x300010], rbx; je same; mov r8d, '!'
/// same: inc rbx; mov [0x300000], rbx; movups xmm7, [0x300000]; mov eax, r8d; call put; mov rdi, [0x300000]; mov ecx, 28
/// digit: mov rax, rdi; shr rax, cl; and eax, 15; cmp al, 10; jb small; add al, 39
/// small: add al, 48; call put; sub ecx, 4; jns digit; mov al, 10; call put
///       mov edx, 0x3fd; in al, dx; test al, 1; jz wait; mov edx, 0x3f8; in al, dx; movzx r8d, al
/// wait: mov ecx, 3000
/// spin: pause; dec ecx; jnz spin; jmp next
/// put:  mov edx, 0x3f8; out dx, al; ret
/// ```
const COUNTER: &[u8] = b"\
    \x0f\x20\xe0\x0d\x00\x06\x00\x00\x0f\x22\xe0\x31\xdb\x48\x89\x1c\x25\x00\x00\x30\x00\x0f\x10\x3c\x25\x00\
    \x00\x30\x00\x41\xb8\x2d\x00\x00\x00\x0f\x11\x3c\x25\x10\x00\x30\x00\x48\x39\x1c\x25\x10\x00\x30\x00\x74\
    \x06\x41\xb8\x21\x00\x00\x00\x48\xff\xc3\x48\x89\x1c\x25\x00\x00\x30\x00\x0f\x10\x3c\x25\x00\x00\x30\x00\
    \x44\x89\xc0\xe8\x53\x00\x00\x00\x48\x8b\x3c\x25\x00\x00\x30\x00\xb9\x1c\x00\x00\x00\x48\x89\xf8\x48\xd3\
    \xe8\x83\xe0\x0f\x3c\x0a\x72\x02\x04\x27\x04\x30\xe8\x30\x00\x00\x00\x83\xe9\x04\x79\xe5\xb0\x0a\xe8\x24\
    \x00\x00\x00\xba\xfd\x03\x00\x00\xec\xa8\x01\x74\x0a\xba\xf8\x03\x00\x00\xec\x44\x0f\xb6\xc0\xb9\xb8\x0b\
    \x00\x00\xf3\x90\xff\xc9\x75\xfa\xe9\x7a\xff\xff\xff\xba\xf8\x03\x00\x00\xee\xc3";

/// A machine that counts, and a directory for its files.
struct Counter {
    vmm: VmmApi,
    flags: &'static [&'static str],
}

impl Counter {
    fn start(memory_mib: u32) -> Counter {
        Counter::start_with(&[], memory_mib)
    }

    /// One that stands, with its snapshot.
    fn saved(memory_mib: u32) -> Counter {
        let counter = Counter::start(memory_mib);
        counter.run();
        counter.set("Paused");
        counter.save();
        counter
    }

    fn begin(flags: &'static [&'static str]) -> Counter {
        let vmm = VmmApi::start(&berth_tests::binary("berth-vmm"), flags);
        Counter { vmm, flags }
    }

    fn start_with(flags: &'static [&'static str], memory_mib: u32) -> Counter {
        let counter = Counter::begin(flags);
        std::fs::write(counter.file("kernel"), bare_guest(COUNTER)).unwrap();
        let boot = format!(
            r#"{{"kernel_image_path": "{}"}}"#,
            counter.file("kernel").display()
        );
        counter.vmm.done("PUT", "/boot-source", &boot);
        let machine = format!(r#"{{"vcpu_count": 1, "mem_size_mib": {memory_mib}}}"#);
        counter.vmm.done("PUT", "/machine-config", &machine);
        counter
    }

    fn run(&self) {
        self.vmm
            .done("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#);
        self.reaches('-', 3);
    }

    /// A process that goes on from the snapshot, once it is told to.
    fn load(&self, more: &str) -> Counter {
        let counter = Counter::begin(self.flags);
        counter.vmm.done("PUT", "/snapshot/load", &self.loading(more));
        counter
    }

    fn loading(&self, more: &str) -> String {
        format!(
            r#"{{"snapshot_path": "{}", "mem_backend": {{"backend_type": "File", "backend_path": "{}"}}{more}}}"#,
            self.file("state").display(),
            self.file("memory").display()
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.vmm.directory.path().join(name)
    }

    fn set(&self, state: &str) {
        self.vmm
            .done("PATCH", "/vm", &format!(r#"{{"state": "{state}"}}"#));
    }

    fn saving(&self) -> String {
        format!(
            r#"{{"snapshot_path": "{}", "mem_file_path": "{}"}}"#,
            self.file("state").display(),
            self.file("memory").display()
        )
    }

    fn save(&self) {
        self.vmm.done("PUT", "/snapshot/create", &self.saving());
    }

    /// Mark and count of each line so far. What goes on from a snapshot begins with the rest of a line.
    fn lines(&self) -> Vec<(char, u64)> {
        let text = self.vmm.text("console");
        let mut lines: Vec<&str> = text.split('\n').collect();
        // Not whole yet.
        lines.pop();
        if lines.first().is_some_and(|first| first.len() < 9) {
            lines.remove(0);
        }
        let parsed = lines.into_iter().map(|line| {
            let (mark, count) = line.split_at_checked(1)?;
            Some((mark.chars().next()?, u64::from_str_radix(count, 16).ok()?))
        });
        parsed
            .map(|line| line.unwrap_or_else(|| panic!("no mark and count in\n{text}")))
            .collect()
    }

    fn last(&self) -> u64 {
        self.lines().last().expect("it counted").1
    }

    fn reaches(&self, mark: char, count: u64) {
        eventually("it counts", || {
            self.lines()
                .last()
                .is_some_and(|last| last.0 == mark && last.1 >= count)
        });
    }
}

fn has_kvm() -> bool {
    require(&[Need::Root, Need::Kvm])
}

#[test]
fn a_machine_goes_on_where_it_stood() {
    if !has_kvm() {
        return;
    }
    goes_on(&[]);
}

#[test]
fn a_machine_without_a_jail_goes_on_where_it_stood() {
    if !has_kvm() {
        return;
    }
    goes_on(&["--no-jail"]);
}

fn goes_on(flags: &'static [&'static str]) {
    let first = Counter::start_with(flags, 8);
    first.run();
    let early = first.vmm.refused("PUT", "/snapshot/create", &first.saving());
    assert!(early.contains("while it is paused"), "{early}");
    first.set("Paused");
    let diff = first.saving().replace('{', r#"{"snapshot_type": "Diff", "#);
    assert!(
        first
            .vmm
            .refused("PUT", "/snapshot/create", &diff)
            .contains("keep track of written pages")
    );
    first.save();
    let stood = first.last();
    for name in ["state", "memory"] {
        let mode = std::fs::metadata(first.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let memory = std::fs::metadata(first.file("memory")).unwrap();
    assert_eq!(memory.len(), 8 << 20);
    assert!(
        memory.blocks() * 512 < 1 << 20,
        "zeroes are holes: {}",
        memory.blocks()
    );

    let mut second = first.load("");
    assert_eq!(second.vmm.ask("GET", "/", "").1["state"], "Paused");
    let machine = second.vmm.ask("GET", "/vm/config", "").1["machine-config"].clone();
    assert_eq!(machine["mem_size_mib"], 8);
    // Saved before it ran: its processors have not left their first gate.
    second.vmm.done("PUT", "/snapshot/create", &second.saving());
    let third = second.load(r#", "resume_vm": true"#);
    third.reaches('-', stood + 3);
    second.set("Resumed");
    second.reaches('-', stood + 3);
    // The line it was writing when it stood, or the next.
    let begun = second.vmm.text("console");
    let next = second.lines()[0].1;
    assert!((stood + 1..=stood + 2).contains(&next), "{stood} then {begun}");
    second.vmm.type_at_console("x");
    second.reaches('x', stood);

    // The first is as it was, and goes on too.
    first.set("Resumed");
    first.reaches('-', stood + 3);
    let counts: Vec<u64> = first.lines().iter().map(|line| line.1).collect();
    assert!(
        counts.is_sorted_by(|one, next| one + 1 == *next),
        "none twice or never"
    );
}

#[test]
fn clones_keep_what_they_write_to_themselves() {
    if !has_kvm() {
        return;
    }
    let first = Counter::start(16);
    first.run();
    first.set("Paused");
    first.save();
    let memory = std::fs::read(first.file("memory")).unwrap();
    let mut clones: Vec<Counter> = (0..4).map(|_| first.load(r#", "resume_vm": true"#)).collect();
    for (clone, mark) in clones.iter_mut().zip(["a", "b", "c", "d"]) {
        clone.vmm.type_at_console(mark);
    }
    for (clone, mark) in clones.iter().zip(['a', 'b', 'c', 'd']) {
        clone.reaches(mark, first.last() + 5);
        let marks: String = clone.lines().iter().map(|line| line.0).collect();
        assert_eq!(marks.trim_start_matches('-').trim_matches(mark), "", "{marks}");
    }
    // A clone's snapshot takes the place of the file the others still have.
    let clone = &clones[0];
    clone.set("Paused");
    let over = format!(
        r#"{{"snapshot_path": "{}", "mem_file_path": "{}"}}"#,
        clone.file("state").display(),
        first.file("memory").display()
    );
    let before = std::fs::File::open(first.file("memory")).unwrap();
    clone.vmm.done("PUT", "/snapshot/create", &over);
    let mut unchanged = Vec::new();
    std::io::Read::read_to_end(&mut { before }, &mut unchanged).unwrap();
    assert!(unchanged == memory, "no clone writes to the file");
    clones[1].reaches('b', clones[1].last() + 3);
    // And the clone of a clone goes on as that.
    std::fs::copy(first.file("memory"), clone.file("memory")).unwrap();
    let grandchild = clone.load(r#", "resume_vm": true"#);
    grandchild.reaches('a', clone.last() + 2);
}

#[test]
fn files_that_are_none_are_refused_in_one_line() {
    if !has_kvm() {
        return;
    }
    let first = Counter::saved(4);
    let second = Counter::begin(&[]);
    let good = std::fs::read(first.file("state")).unwrap();
    let refuses = |bytes: &[u8], words: &str| {
        std::fs::write(first.file("state"), bytes).unwrap();
        let said = second.vmm.refused("PUT", "/snapshot/load", &first.loading(""));
        assert!(said.contains(words) && !said.contains('\n'), "{words}: {said}");
        assert_eq!(second.vmm.ask("GET", "/", "").1["state"], "Not started");
    };
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let describe = ["--describe-snapshot", first.file("state").to_str().unwrap()].map(String::from);
    let told = Command::new(berth_tests::binary("berth-vmm"))
        .args(describe)
        .output();
    assert_eq!(told.unwrap().stdout, b"2\n");
    refuses(b"", "does not begin as a state file");
    refuses(&changed(0, b'B'), "does not begin as a state file");
    refuses(
        &changed(8, 9),
        "its version is 9, and this monitor reads version 2",
    );
    refuses(&good[..good.len() - 1], "bytes follow its head");
    refuses(&[&good[..], b"x"].concat(), "bytes follow its head");
    refuses(&good[..30], "bytes follow its head");
    refuses(&changed(good.len() / 2, good[good.len() / 2] ^ 1), "checksum");
    refuses(&vec![0; 9 << 20], "more than 8388608 bytes");
    std::fs::write(first.file("state"), &good).unwrap();

    let memory = std::fs::OpenOptions::new()
        .write(true)
        .open(first.file("memory"))
        .unwrap();
    for length in [0, (4 << 20) - 1, (4 << 20) + 1] {
        memory.set_len(length).unwrap();
        let said = second.vmm.refused("PUT", "/snapshot/load", &first.loading(""));
        assert!(
            said.contains(&format!(
                "it has {length} bytes, and the machine's memory 4194304"
            )),
            "{said}"
        );
    }
    memory.set_len(4 << 20).unwrap();
    for (more, words) in [
        (
            r#", "track_dirty_pages": true"#,
            "not supported: snapshot/load with track_dirty_pages",
        ),
        (
            r#", "network_overrides": [{"iface_id": "n", "host_dev_name": "t"}]"#,
            "no interface called n",
        ),
        (r#", "vsock_override": {"uds_path": "/v"}"#, "no vsock device"),
    ] {
        let said = second.vmm.refused("PUT", "/snapshot/load", &first.loading(more));
        assert!(said.contains(words), "{said}");
    }
    let uffd = first.loading("").replace("\"File\"", "\"Uffd\"");
    assert!(
        second
            .vmm
            .refused("PUT", "/snapshot/load", &uffd)
            .contains("from a file alone")
    );
    let directory = first.loading("").replace("/state", "");
    assert!(
        second
            .vmm
            .refused("PUT", "/snapshot/load", &directory)
            .contains("no regular file")
    );

    // Nor is anything overwritten that is no file.
    let pipe = first.file("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let over = first.saving().replace("/memory", "/pipe");
    let said = first.vmm.refused("PUT", "/snapshot/create", &over);
    assert!(said.contains("no regular file"), "{said}");
    assert!(!std::fs::metadata(&pipe).unwrap().is_file());
    std::fs::remove_file(pipe).unwrap();

    second.vmm.done(
        "PUT",
        "/machine-config",
        r#"{"vcpu_count": 1, "mem_size_mib": 7}"#,
    );
    let said = second.vmm.refused("PUT", "/snapshot/load", &first.loading(""));
    assert!(said.contains("not allowed after configuring"), "{said}");
    assert_eq!(
        std::fs::read_dir(first.vmm.directory.path()).unwrap().count(),
        7,
        "nothing is left behind"
    );
}

#[test]
fn a_snapshot_that_cannot_be_leaves_the_one_before() {
    if !has_kvm() {
        return;
    }
    let first = Counter::saved(4);
    let (memory, state) = (first.file("memory"), first.file("state"));
    let both = || [&memory, &state].map(|file| std::fs::read(file).unwrap());
    let before = both();
    let directory = first.file("");
    let directory = directory.display();
    for (state, words) in [
        (format!("{directory}/nowhere/state"), "No such file or directory"),
        (format!("{directory}"), "it is no regular file"),
        (
            format!("{directory}/./memory"),
            "one file would replace the other",
        ),
    ] {
        let ask = format!(
            r#"{{"mem_file_path": "{}", "snapshot_path": "{state}"}}"#,
            memory.display()
        );
        let said = first.vmm.refused("PUT", "/snapshot/create", &ask);
        assert!(said.contains(words), "{words}: {said}");
        assert!(both() == before, "{words}: a file has changed");
    }
}
