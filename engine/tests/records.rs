//! What a container tells about itself: inspect, health, waiting, logs, update, rename. Needs root and busybox.

use std::time::Duration;

use berth_engine::flags::{Healthcheck, MemorySize};
use berth_engine::stop::WaitCondition;
use berth_engine::update::UpdateRequest;
use berth_engine::{LogConfig, LogOptions, RemoveOptions, Resources, Status, StopOptions};
use host::{Host, host};

mod host;

fn check(line: &str, retries: u32) -> Healthcheck {
    Healthcheck {
        test: vec!["CMD-SHELL".into(), line.into()],
        interval: Some(Duration::from_millis(20)),
        timeout: Some(Duration::from_secs(60)),
        start_period: None,
        start_interval: None,
        retries: Some(retries),
    }
}

/// Waits until the health record fits; the test's own timeout is the harness's.
fn until(
    host: &Host,
    id: &berth_engine::ContainerId,
    fits: impl Fn(&berth_engine::container::Health) -> bool,
) {
    loop {
        let state = host.engine.state(id).unwrap();
        assert_eq!(state.status, Status::Running);
        if state.health.as_ref().is_some_and(&fits) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn inspect_has_dockers_shape() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |r| {
        r.name = Some("shape".parse().unwrap());
        r.host.resources.memory = Some(MemorySize(64 << 20));
        r.env = vec!["A=b".into()];
        r.working_dir = Some("/tmp".into());
    });
    let before = host.engine.inspect(&id).unwrap();
    assert_eq!(before["State"]["Status"], "created");
    assert_eq!(before["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    host.start(&id);
    let v = host.engine.inspect(&id).unwrap();
    assert_eq!(v["Name"], "/shape");
    assert_eq!(
        (v["Path"].as_str(), v["Args"][0].as_str()),
        (Some("sleep"), Some("1000"))
    );
    assert_eq!(v["State"]["Running"], true);
    assert!(v["State"]["Pid"].as_i64().unwrap() > 0);
    assert_eq!(v["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(v["HostConfig"]["MemorySwap"], 128 << 20);
    assert_eq!(v["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(v["Config"]["Cmd"][0], "sleep");
    assert_eq!(v["Config"]["WorkingDir"], "/tmp");
    assert!(v["Config"]["Env"].as_array().unwrap().contains(&"A=b".into()));
    assert!(v["NetworkSettings"]["Networks"]["none"].is_object());
    assert!(v["State"].get("Health").is_none());
}

#[test]
fn health_goes_from_starting_to_healthy_and_unhealthy_and_back() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |r| {
        r.healthcheck = Some(check("echo looked; cat /tmp/well", 2));
    });
    host.start(&id);
    until(&host, &id, |h| h.status == "unhealthy" && h.failing_streak >= 2);
    let log = host.engine.state(&id).unwrap().health.unwrap().log;
    assert_eq!(log.last().unwrap().exit_code, 1);
    assert!(log.last().unwrap().output.starts_with("looked"), "{log:?}");
    let root = host.root_of(&id);
    std::fs::write(root.join("tmp/well"), "").unwrap();
    until(&host, &id, |h| h.status == "healthy" && h.failing_streak == 0);
    assert_eq!(
        host.engine.inspect(&id).unwrap()["State"]["Health"]["Status"],
        "healthy"
    );
}

#[test]
fn a_check_that_hangs_is_killed_with_its_children() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |r| {
        let mut c = check("sleep 12345 & sleep 12345", 1);
        c.timeout = Some(Duration::from_millis(50));
        c.interval = Some(Duration::from_secs(3600));
        c.start_period = Some(Duration::from_millis(1));
        c.start_interval = Some(Duration::from_millis(1));
        r.healthcheck = Some(c);
    });
    host.start(&id);
    until(&host, &id, |h| h.log.iter().any(|r| r.exit_code == -1));
    // In its PID namespace only its own processes are to be seen, also from out here.
    let root = host.root_of(&id);
    let processes = std::fs::read_dir(root.join("proc")).unwrap().flatten();
    for process in processes {
        let command = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        assert!(!command.contains("12345"), "{command}");
    }
}

#[test]
fn a_check_that_writes_without_end_is_bounded() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |r| {
        r.healthcheck = Some(check("seq 1 100000", 1));
    });
    host.start(&id);
    until(&host, &id, |h| !h.log.is_empty());
    for result in host.engine.state(&id).unwrap().health.unwrap().log {
        assert!(result.output.len() <= 4096);
        assert_eq!(result.exit_code, 0);
    }
}

#[test]
fn wait_for_removal_outlasts_the_end() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |_| {});
    host.start(&id);
    let (engine, waited) = (host.engine.clone(), id.clone());
    let thread = std::thread::spawn(move || engine.wait(&waited, WaitCondition::Removed));
    let now = StopOptions {
        signal: None,
        timeout: Some(0),
    };
    host.engine.stop(&id, &now).unwrap();
    assert_eq!(host.engine.status(&id).unwrap(), Status::Exited);
    assert!(!thread.is_finished());
    host.engine.remove(&id, RemoveOptions::default()).unwrap();
    assert!(matches!(
        thread.join().unwrap(),
        Ok(_) | Err(berth_engine::Error::NoSuchContainer(_))
    ));
}

#[test]
fn everybody_who_waits_gets_the_exit_code() {
    let Some(host) = host() else { return };
    let id = host.create(&["sh", "-c", "read x; exit 9"], |r| r.open_stdin = true);
    host.start(&id);
    let threads: Vec<_> = (0..48)
        .map(|_| {
            let (engine, id) = (host.engine.clone(), id.clone());
            std::thread::spawn(move || engine.wait(&id, WaitCondition::NotRunning))
        })
        .collect();
    host.engine.kill(&id, berth_engine::flags::Signal::KILL).unwrap();
    for thread in threads {
        assert_eq!(thread.join().unwrap().unwrap(), 137);
    }
}

#[test]
fn looking_while_it_starts_harms_nothing() {
    let Some(host) = host() else { return };
    let id = host.create(&["true"], |_| {});
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (engine, id, stop) = (host.engine.clone(), id.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    engine.state(&id).unwrap();
                }
            })
        })
        .collect();
    for _ in 0..20 {
        host.start(&id);
        assert_eq!(host.engine.wait(&id, WaitCondition::NotRunning).unwrap(), 0);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn an_init_collects_orphans_passes_signals_and_keeps_the_code() {
    let Some(host) = host() else { return };
    let run = |line: &str| {
        let id = host.create(&["sh", "-c", line], |r| r.host.init = true);
        host.start(&id);
        id
    };
    let id = run("cat /proc/1/comm; exit 5");
    assert_eq!(host.engine.wait(&id, WaitCondition::NotRunning).unwrap(), 5);
    assert_eq!(host.logs(&id), "docker-init\n");
    let id = run("trap 'exit 33' TERM; echo ready; while :; do sleep 0.1; done");
    while host.logs(&id) != "ready\n" {
        std::thread::sleep(Duration::from_millis(2));
    }
    host.engine
        .stop(
            &id,
            &StopOptions {
                signal: None,
                timeout: Some(-1),
            },
        )
        .unwrap();
    assert_eq!(host.engine.state(&id).unwrap().exit_code, 33);
    // sh leaves its grandchild to init at once; collected, it is nowhere to be seen.
    let id = run("(sleep 0.1 &) ; sleep 0.6; ps");
    host.engine.wait(&id, WaitCondition::NotRunning).unwrap();
    let text = host.logs(&id);
    assert!(!text.contains("[sleep]"), "{text}");
    let missing = host.create(&["/bin/nonesuch"], |r| r.host.init = true);
    host.start(&missing);
    assert_eq!(
        host.engine.wait(&missing, WaitCondition::NotRunning).unwrap(),
        127
    );
}

#[test]
fn flags_that_cannot_hold_are_refused_with_the_reason() {
    let Some(host) = host() else { return };
    let refused = |change: &dyn Fn(&mut berth_engine::CreateRequest), word: &str| {
        let mut request = berth_engine::CreateRequest {
            command: vec!["true".into()],
            ..Default::default()
        };
        change(&mut request);
        let origin = berth_engine::config::ImageOrigin {
            name: "b".into(),
            id: "sha256:0".into(),
            layers: vec![],
        };
        let e = host
            .engine
            .create_from(&request, origin, &Default::default())
            .unwrap_err();
        assert!(e.chain().contains(word), "{}", e.chain());
    };
    refused(&|r| r.host.oom_kill_disable = true, "memory limit");
    refused(&|r| r.host.log.max_file = 3, "max-size");
    refused(&|r| r.host.log.max_file = 0, "at least 1");
    refused(
        &|r| {
            r.host.init = true;
            r.host.pid = "host".parse().unwrap();
        },
        "PID 1",
    );
}

/// What a power cut leaves when the file's name reached the disk and its bytes did not.
#[test]
fn a_creation_whose_record_is_empty_never_was() {
    let Some(host) = host() else { return };
    let make = || host.create(&["true"], |r| r.name = Some("torn".parse().unwrap()));
    let id = make();
    std::fs::write(host.engine.paths().config(&id), "").unwrap();
    let all = berth_engine::ListOptions {
        all: true,
        ..Default::default()
    };
    assert!(host.engine.list(&all).unwrap().is_empty());
    assert!(!host.engine.paths().container(&id).exists(), "swept");
    let again = make();
    assert_eq!(host.engine.find("torn").unwrap(), again);
}

#[test]
fn the_oom_killer_is_off_where_asked() {
    let Some(host) = host() else { return };
    if !std::path::Path::new("/sys/fs/cgroup/memory/memory.oom_control").exists() {
        eprintln!("skipped: no memory controller of cgroup v1");
        return;
    }
    let id = host.create(&["sleep", "1000"], |r| {
        r.host.resources.memory = Some(MemorySize(32 << 20));
        r.host.oom_kill_disable = true;
    });
    host.start(&id);
    let cgroup = host.engine.config(&id).unwrap().cgroup();
    let text = std::fs::read_to_string(format!("/sys/fs/cgroup/memory{cgroup}/memory.oom_control")).unwrap();
    assert!(text.contains("oom_kill_disable 1"), "{text}");
}

#[test]
fn logs_rotate_and_tail_reads_over_the_seam() {
    let Some(host) = host() else { return };
    let id = host.create(&["seq", "1", "200"], |r| {
        r.host.log = LogConfig {
            max_size: Some(MemorySize(4096)),
            max_file: 3,
            disabled: false,
        };
    });
    host.start(&id);
    host.engine.wait(&id, WaitCondition::NotRunning).unwrap();
    let path = host.engine.paths().log(&id);
    assert!(path.with_extension("log.1").exists() && !path.with_extension("log.3").exists());
    let mut lines = Vec::new();
    let options = LogOptions {
        tail: Some(80),
        ..LogOptions::default()
    };
    host.engine
        .logs(&id, &options, &mut |e| {
            lines.push(e.text.trim().to_owned());
            Ok(())
        })
        .unwrap();
    let expected: Vec<String> = (121..=200).map(|n| n.to_string()).collect();
    assert_eq!(lines, expected);
}

#[test]
fn a_follower_hears_everything_until_the_end() {
    let Some(host) = host() else { return };
    let id = host.create(
        &["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.05; done"],
        |_| {},
    );
    host.start(&id);
    let mut text = String::new();
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    host.engine
        .logs(&id, &options, &mut |e| {
            text.push_str(&e.text);
            Ok(())
        })
        .unwrap();
    assert_eq!(text, "1\n2\n3\n");
}

#[test]
fn update_reaches_the_cgroup_and_rename_frees_the_name() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |r| r.name = Some("old".parse().unwrap()));
    host.start(&id);
    let request = UpdateRequest {
        resources: Resources {
            pids_limit: Some(17),
            ..Resources::default()
        },
        restart: None,
    };
    host.engine.update(&id, &request).unwrap();
    assert_eq!(host.engine.inspect(&id).unwrap()["HostConfig"]["PidsLimit"], 17);
    host.engine.rename(&id, &"new".parse().unwrap()).unwrap();
    assert_eq!(host.engine.find("new").unwrap(), id);
    assert!(host.engine.find("old").is_err());
    let other = host.create(&["true"], |r| r.name = Some("old".parse().unwrap()));
    assert!(host.engine.rename(&other, &"new".parse().unwrap()).is_err());
}
