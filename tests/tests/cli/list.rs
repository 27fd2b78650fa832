//! `ps`, `top` and `stats`.

use serde_json::Value;

use crate::fixture::{berth, eventually, remove_all, sleeping};

#[test]
fn filters_choose_containers() {
    let Some(berth) = berth() else { return };
    let first = sleeping(
        &berth,
        "web-one",
        &["-l", "tier=front", "-p", "127.0.0.1:8080:80"],
    );
    sleeping(&berth, "web-two", &["-l", "tier=back", "-v", "data:/data"]);
    let _ = berth
        .run(["run", "--name", "done", "busybox", "sh", "-c", "exit 3"])
        .code;
    let _ = berth
        .run(["create", "--name", "made", "--network", "none", "busybox", "true"])
        .ok();
    let names = |flags: &[&str]| {
        let command = ["ps", "--format", "{{.Names}}"].iter().chain(flags);
        berth.run(command).ok().replace('\n', " ")
    };
    assert_eq!(names(&[]), "web-two web-one");
    assert_eq!(names(&["-a"]), "made done web-two web-one");
    for (filter, want) in [
        ("name=web", "web-two web-one"),
        ("name=^web-one$", "web-one"),
        ("name=^/web-one$", "web-one"),
        ("name=^one", ""),
        ("name=web-(one|none)", "web-one"),
        ("label=tier", "web-two web-one"),
        ("label=tier=front", "web-one"),
        ("status=exited", "done"),
        ("status=created", "made"),
        ("status=running", "web-two web-one"),
        ("exited=3", "done"),
        ("exited=0", ""),
        ("ancestor=busybox", "web-two web-one"),
        ("ancestor=other", ""),
        ("volume=data", "web-two"),
        ("volume=/data", "web-two"),
        ("publish=8080", "web-one"),
        ("network=bridge", "web-two web-one"),
    ] {
        assert_eq!(names(&["--filter", filter]), want, "{filter}");
    }
    assert_eq!(names(&["--filter", &format!("id={}", &first[..10])]), "web-one");
    assert_eq!(names(&["-a", "--filter", "before=web-two"]), "web-one");
    assert_eq!(names(&["-a", "--filter", "since=web-two"]), "made done");
    assert_eq!(names(&["-a", "--filter", "network=none"]), "made");
    assert_eq!(names(&["-l"]), "made");
    assert_eq!(names(&["-n", "2"]), "made done");
    for bad in ["nonsense=1", "name", "status=flying", "exited=x", "name=("] {
        let refused = berth.run(["ps", "--filter", bad]);
        assert_ne!(refused.code, 0, "{bad}");
        assert!(
            refused
                .stderr
                .contains(bad.split('=').next_back().expect("a word")),
            "{}",
            refused.stderr
        );
    }
    remove_all(&berth);
}

#[test]
fn columns_are_dockers() {
    let Some(berth) = berth() else { return };
    let id = sleeping(&berth, "box", &[]);
    let table = berth.run(["ps"]).ok();
    let mut lines = table.lines();
    let head: Vec<_> = lines
        .next()
        .expect("headings")
        .split("   ")
        .map(str::trim)
        .filter(|w| !w.is_empty())
        .collect();
    assert_eq!(
        head,
        [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "PORTS",
            "NAMES"
        ]
    );
    let row = lines.next().expect("a row");
    assert!(
        row.starts_with(&id[..12])
            && row.contains("\"sleep 600\"")
            && row.contains("Up ")
            && row.ends_with("box"),
        "{row}"
    );
    assert_eq!(berth.run(["ps", "-q"]).ok(), id[..12]);
    let json: Value = serde_json::from_str(&berth.run(["ps", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(
        (&json["Names"], &json["State"]),
        (&"box".into(), &"running".into())
    );
    assert_eq!(
        berth.run(["ps", "--format", "table {{.Names}}\t{{.Image}}"]).ok(),
        "NAMES     IMAGE\nbox       busybox"
    );
    let bad = berth.run(["ps", "--format", "{{.NoSuch}}"]);
    assert_eq!(bad.code, 1);
    assert!(bad.stderr.contains("NoSuch"), "{}", bad.stderr);
    remove_all(&berth);
}

#[test]
fn labels_mounts_and_sizes_are_columns_too() {
    let Some(berth) = berth() else { return };
    let host = berth.scratch().join("shared");
    std::fs::create_dir(&host).expect("make a directory");
    let bind = format!("{}:/b", host.display());
    let flags = ["--label", "com.x.tier=web", "-v", "data:/d", "-v", &bind];
    sleeping(&berth, "box", &flags);
    let _ = berth
        .run(["exec", "box", "dd", "if=/dev/zero", "of=/f", "bs=1M", "count=2"])
        .ok();
    let format = r#"{{.Label "com.x.tier"}}|{{.Label "none"}}|{{.LocalVolumes}}|{{.Mounts}}"#;
    let shown = berth.run(["ps", "--no-trunc", "--format", format]).ok();
    assert_eq!(shown, format!("web||1|data,{}", host.display()));
    let table = berth
        .run(["ps", "--format", r#"table {{.Names}}\t{{.Label "com.x.tier"}}"#])
        .ok();
    assert_eq!(table, "NAMES     TIER\nbox       web");
    assert!(!berth.run(["ps", "--format", "json"]).ok().contains("\"Label\""));
    let sized = berth.run(["ps", "-s"]).ok();
    assert!(
        sized.lines().next().is_some_and(|line| line.ends_with("SIZE")),
        "{sized}"
    );
    assert!(sized.contains("box       2.1"), "{sized}");
    let sizes = berth
        .run(["inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "box"])
        .ok();
    let (own, all) = sizes.split_once(' ').expect("two numbers");
    let (own, all): (u64, u64) = (own.parse().expect("bytes"), all.parse().expect("bytes"));
    assert!(own >= 2 << 20 && all > own, "{sizes}");
    let disk = berth.run(["system", "df", "-v"]).ok();
    for title in [
        "Images space usage:",
        "Containers space usage:",
        "Local Volumes space usage:",
    ] {
        assert!(disk.contains(title), "{disk}");
    }
    assert!(disk.lines().any(|line| line.starts_with("data ")), "{disk}");
    remove_all(&berth);
}

#[test]
fn top_shows_the_processes() {
    let Some(berth) = berth() else { return };
    let _ = berth
        .run([
            "run",
            "-d",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "sleep 501 & sleep 502; true",
        ])
        .ok();
    // Until a shell's child has executed its program it is one more shell.
    eventually("all three run", || {
        let top = berth.run(["top", "box"]).ok();
        let runs = |program: &str| top.lines().any(|line| line.ends_with(program));
        runs(" sleep 501") && runs(" sleep 502") && top.lines().count() == 4
    });
    let top = berth.run(["top", "box"]).ok();
    let heads: Vec<&str> = top.lines().next().expect("headings").split_whitespace().collect();
    assert_eq!(
        heads,
        ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
        "docker's"
    );
    for want in ["PID", "sleep 501", "sleep 502"] {
        assert!(top.contains(want), "no {want} in {top}");
    }
    let columns = berth.run(["top", "box", "-o", "pid,comm"]).ok();
    assert_eq!(
        columns
            .lines()
            .next()
            .map(|l| l.split_whitespace().collect::<Vec<_>>()),
        Some(vec!["PID", "COMMAND"])
    );
    let all = berth.run(["top", "box", "aux"]).ok();
    assert!(all.starts_with("USER ") && all.contains("%CPU"), "{all}");
    let user = berth.run(["top", "box", "-o", "user,stat,args"]).ok();
    assert!(
        user.lines()
            .any(|line| line.starts_with("root ") && line.ends_with("sleep 501")),
        "{user}"
    );
    assert_eq!(berth.run(["top", "box", "-o", "colour"]).code, 1);
    let _ = berth.run(["stop", "-t", "0", "box"]).ok();
    let stopped = berth.run(["top", "box"]);
    assert_eq!(stopped.code, 1);
    assert!(stopped.stderr.contains("box"), "{}", stopped.stderr);
}

#[test]
fn stats_measure_the_container() {
    let Some(berth) = berth() else { return };
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; while :; do :; done";
    let _ = berth
        .run([
            "run", "-d", "--name", "busy", "-m", "64m", "--cpus", "0.5", "busybox", "sh", "-c", script,
        ])
        .ok();
    let _ = berth.run(["create", "--name", "idle", "busybox", "true"]).ok();
    let stat = |field: &str| {
        berth
            .run([
                "stats",
                "--no-stream",
                "--format",
                &format!("{{{{.{field}}}}}"),
                "busy",
            ])
            .ok()
    };
    eventually("its memory shows", || {
        let usage = stat("MemUsage");
        let used = usage.split("MiB").next().and_then(|n| n.parse::<f64>().ok());
        usage.ends_with(" / 64MiB") && used.is_some_and(|used| used > 8.0)
    });
    let cpu: f64 = stat("CPUPerc").trim_end_matches('%').parse().expect("a number");
    assert!(cpu > 1.0, "{cpu} % of a processor");
    assert_eq!(stat("PIDs"), "1");
    assert_eq!(
        berth.run(["stats", "--no-stream", "--format", "{{.Name}}"]).ok(),
        "busy"
    );
    let all = berth
        .run(["stats", "--no-stream", "-a", "--format", "{{.Name}} {{.PIDs}}"])
        .ok();
    assert!(all.contains("idle --"), "{all}");
    let missing = berth.run(["stats", "--no-stream", "no-such"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("no-such"), "{}", missing.stderr);
    remove_all(&berth);
}
