//! Processes that attach at the same time, and processes killed in the middle.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use berth_engine::network::{self, Networks, Paths};

use crate::host::*;

const STATE: &str = "BERTH_TEST_NETWORK_STATE";
const IDS: &str = "BERTH_TEST_NETWORK_IDS";

/// Not a test of its own: what the processes of the others run. Attaches each id once a line comes in.
#[test]
fn attach_when_told() {
    let (Ok(state), Ok(ids)) = (std::env::var(STATE), std::env::var(IDS)) else {
        return;
    };
    let state = std::path::PathBuf::from(state);
    let host = Host {
        paths: Paths::new(state.with_file_name("root"), state),
    };
    // Past the test harness, which holds back what is printed.
    std::io::stdout().write_all(b"\nready\n").unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for id in ids.split(',') {
        let mut request = host.request(id, &["bridge"]);
        if id.starts_with("vm") {
            request = in_vm(request);
        }
        request.ports = vec![publish([0; 4], 0, 80)];
        host.join(&request);
        if id.starts_with("passing") {
            network::detach(&host.paths, id).unwrap();
        }
    }
}

/// A process in the host's namespaces, ready to attach.
struct Attacher(Child);

impl Attacher {
    fn start(host: &Host, ids: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::attach_when_told", "--test-threads=1"])
            .env(STATE, &host.paths.state)
            .env(IDS, ids)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while lines.next().unwrap().unwrap() != "ready" {}
        // The harness goes on printing.
        std::thread::spawn(move || lines.count());
        Self(child)
    }

    fn go(&mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Attacher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_kill_at_any_point_leaves_nothing_that_detach_does_not_find() {
    as_host(|host| {
        for round in 0..80 {
            let id = ["aaaa", "vm"][round % 2];
            let mut attacher = Attacher::start(host, id);
            attacher.go();
            std::thread::sleep(Duration::from_micros(round as u64 / 2 * 150));
            drop(attacher);
            network::detach(&host.paths, id).unwrap();
            // The rules stay after a kill between them and the first lease; what nobody uses goes with a prune.
            Networks::open(&host.paths).unwrap().prune(&|_| true).unwrap();
            host.assert_clean();
        }
    });
}

#[test]
fn processes_attach_at_once() {
    as_host(|host| {
        let mut attachers: Vec<_> = (0..6)
            .map(|n| Attacher::start(host, &format!("passing{n},staying{n},passing{n}")))
            .collect();
        attachers.iter_mut().for_each(Attacher::go);
        for attacher in &mut attachers {
            assert!(attacher.0.wait().unwrap().success());
        }
        let containers = Networks::open(&host.paths).unwrap().containers("bridge").unwrap();
        let mut ids: Vec<_> = containers.iter().map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(
            ids,
            [
                "staying0", "staying1", "staying2", "staying3", "staying4", "staying5"
            ]
        );
        for (id, _) in &containers {
            network::detach(&host.paths, id).unwrap();
        }
        host.assert_clean();
    });
}
