//! Containers from create to rm through the library, against the real kernel. Needs root and Debian's busybox-static.

use std::collections::BTreeMap;

use berth_engine::config::ImageOrigin;
use berth_engine::flags::{RestartPolicy, Signal};
use berth_engine::stop::WaitCondition;
use berth_engine::{
    CreateRequest, Error, ExecRequest, ListOptions, RemoveOptions, StartOptions, Status, StopOptions,
};
use berth_images::config::RunConfig;
use host::host;

mod host;

#[test]
fn runs_logs_waits_and_is_removed() {
    let Some(host) = host() else { return };
    let id = host.create(&["sh", "-c", "echo hello; echo oops >&2; exit 7"], |_| {});
    host.start(&id);
    assert_eq!(host.engine.wait(&id, WaitCondition::NotRunning).unwrap(), 7);
    let mut lines: Vec<_> = host.logs(&id).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["hello", "oops"]);
    let state = host.engine.state(&id).unwrap();
    assert_eq!((state.status, state.exit_code, state.pid), (Status::Exited, 7, 0));
    host.engine.remove(&id, RemoveOptions::default()).unwrap();
    assert!(matches!(host.engine.state(&id), Err(Error::NoSuchContainer(_))));
    assert_eq!(host.left(), Vec::<String>::new());
}

#[test]
fn a_missing_program_and_one_that_cannot_run_are_told_apart() {
    let Some(host) = host() else { return };
    for (program, code) in [("/bin/nonesuch", 127), ("/etc/notes", 126)] {
        let id = host.create(&[program], |_| {});
        let e = host.engine.start(&id, &StartOptions::default()).unwrap_err();
        assert_eq!(e.exit_code(), code, "{}", e.chain());
        assert_eq!(host.engine.status(&id).unwrap(), Status::Created);
    }
    assert_eq!(host.left(), Vec::<String>::new());
}

#[test]
fn stop_kills_what_ignores_its_signal_and_a_restarting_one_stays_down() {
    let Some(host) = host() else { return };
    let id = host.create(&["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], |r| {
        r.host.restart = RestartPolicy::Always;
    });
    host.start(&id);
    host.engine
        .stop(
            &id,
            &StopOptions {
                signal: None,
                timeout: Some(0),
            },
        )
        .unwrap();
    let state = host.engine.state(&id).unwrap();
    assert_eq!((state.status, state.exit_code), (Status::Exited, 137));
}

#[test]
fn on_failure_restarts_as_often_as_said() {
    let Some(host) = host() else { return };
    let id = host.create(&["sh", "-c", "echo run; exit 3"], |r| {
        r.host.restart = RestartPolicy::OnFailure { max: 2 }
    });
    host.start(&id);
    assert_eq!(host.engine.wait(&id, WaitCondition::NotRunning).unwrap(), 3);
    assert_eq!(host.engine.state(&id).unwrap().restart_count, 2);
    assert_eq!(host.logs(&id), "run\n".repeat(3));
}

#[test]
fn rm_takes_everything_with_it_and_the_name_is_free_again() {
    let Some(host) = host() else { return };
    for _ in 0..2 {
        let id = host.create(&["true"], |r| {
            r.host.auto_remove = true;
            r.name = Some("again".parse().unwrap());
        });
        host.start(&id);
        let _ = host.engine.wait(&id, WaitCondition::Removed);
        while host.engine.find("again").is_ok() {
            std::thread::yield_now();
        }
        assert!(!host.engine.paths().run_dir(&id).exists());
    }
}

#[test]
fn a_taken_name_names_its_holder() {
    let Some(host) = host() else { return };
    let id = host.create(&["true"], |r| r.name = Some("mine".parse().unwrap()));
    let request = CreateRequest {
        name: Some("mine".parse().unwrap()),
        command: vec!["x".into()],
        ..Default::default()
    };
    let origin = ImageOrigin {
        name: "b".into(),
        id: "sha256:0".into(),
        layers: vec![],
    };
    let e = host
        .engine
        .create_from(&request, origin, &RunConfig::default())
        .unwrap_err();
    assert!(
        matches!(&e, Error::NameTaken { holder, .. } if *holder == id.to_string()),
        "{e}"
    );
    assert_eq!(
        host.engine
            .list(&ListOptions {
                all: true,
                ..Default::default()
            })
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_killed_shim_is_noticed_and_its_container_cleaned_up() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |_| {});
    host.start(&id);
    let state = host.engine.state(&id).unwrap();
    let init = berth_sys::pidfd::open_same(state.pid, state.pid_start)
        .unwrap()
        .expect("init runs");
    let shim = rustix::process::Pid::from_raw(state.shim_pid).unwrap();
    let fd = rustix::process::pidfd_open(shim, rustix::process::PidfdFlags::empty()).unwrap();
    berth_sys::pidfd::send_signal(&fd, Signal::KILL.number()).unwrap();
    berth_sys::pidfd::ended_within(&fd, None).unwrap();
    let state = host.engine.state(&id).unwrap();
    assert_eq!((state.status, state.exit_code), (Status::Exited, 255));
    assert!(berth_sys::pidfd::ended_within(&init, None).unwrap());
    host.start(&id);
    host.engine
        .remove(
            &id,
            RemoveOptions {
                force: true,
                volumes: false,
            },
        )
        .unwrap();
    assert_eq!(host.left(), Vec::<String>::new());
}

#[test]
fn pause_freezes_and_a_stop_of_a_frozen_one_ends_it() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |r| {
        r.labels = BTreeMap::from([("a".into(), "b".into())])
    });
    host.start(&id);
    host.engine.pause(&id).unwrap();
    assert_eq!(host.engine.status(&id).unwrap(), Status::Paused);
    assert!(host.engine.pause(&id).is_err());
    host.engine.unpause(&id).unwrap();
    host.engine.pause(&id).unwrap();
    host.engine
        .stop(
            &id,
            &StopOptions {
                signal: Some(Signal::KILL),
                timeout: Some(1),
            },
        )
        .unwrap();
    assert_eq!(host.engine.status(&id).unwrap(), Status::Exited);
}

/// This test's own program is such a one. Were it executed again instead, this process would not be there to assert.
#[test]
fn exec_from_a_program_that_is_not_sealed_is_refused() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |_| {});
    host.start(&id);
    let request = ExecRequest {
        command: vec!["true".into()],
        ..ExecRequest::default()
    };
    let e = host.engine.exec(&id, &request).unwrap_err();
    let Error::Runtime { source, .. } = &e else {
        panic!("{}", e.chain())
    };
    assert!(
        matches!(**source, berth_runtime::Error::NotSealed) && e.chain().contains("reexec::seal"),
        "{}",
        e.chain()
    );
    assert_eq!(host.engine.status(&id).unwrap(), Status::Running);
}

#[test]
fn a_kill_of_a_frozen_one_ends_it_and_another_signal_leaves_it_frozen() {
    let Some(host) = host() else { return };
    let id = host.create(&["sleep", "1000"], |_| {});
    host.start(&id);
    host.engine.pause(&id).unwrap();
    host.engine.kill(&id, "HUP".parse().unwrap()).unwrap();
    assert_eq!(host.engine.status(&id).unwrap(), Status::Paused);
    host.engine.kill(&id, Signal::KILL).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while host.engine.status(&id).unwrap() != Status::Exited {
        assert!(std::time::Instant::now() < deadline, "it does not end");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
