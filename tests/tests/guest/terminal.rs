//! Processes at a terminal.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use berth_guest::protocol::{Exit, ProcessId, Request, Stream, Streams};
use serde_json::json;

use crate::fixture::{INIT, Microvm, OUTPUT, config, text};

#[test]
#[ignore = "runs in the test VM"]
fn a_person_at_a_terminal_is_obeyed() {
    let microvm = Microvm::set_up();
    let mut wanted = config(&["sh", "-c", "stty size; exec sh -i"]);
    // Streams and configuration are of one mind.
    assert_eq!(
        microvm.refused(&crate::fixture::create(&wanted, Streams::Terminal)),
        "config.json: field process.terminal: is not set, but a console socket is given"
    );
    wanted["process"]["terminal"] = json!(true);
    wanted["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    wanted["process"]["env"] = json!(["PATH=/bin", "PS1=prompt> "]);
    let why = microvm.refused(&crate::fixture::create(&wanted, OUTPUT));
    assert!(
        why.starts_with("config.json: field process.terminal: is set"),
        "{why}"
    );
    microvm.run(&wanted, Streams::Terminal);
    let mut terminal = Person(microvm.attach(INIT, Stream::Terminal));
    terminal.until("11 22");
    terminal.until("prompt> ");
    resize(&microvm, INIT, 33, 77);
    terminal.types("stty size\n");
    terminal.until("33 77");
    terminal.types("sh -c 'echo started; exec sleep 1000'\n");
    terminal.until("started\r\n");
    terminal.types("\x03");
    terminal.until("prompt> ");
    terminal.types("echo $?\n");
    terminal.until("130");

    // Leaving ends nothing: the shell is where it was.
    drop(terminal);
    let mut terminal = Person(microvm.attach(INIT, Stream::Terminal));
    terminal.types("echo back $((20 + 3))\n");
    terminal.until("back 23");

    let shell = microvm.exec(
        &["sh", "-c", "tty; read line; echo got $line; exit 3"],
        Streams::Terminal,
    );
    let mut second = Person(microvm.attach(shell, Stream::Terminal));
    second.until("/dev/pts/");
    second.types("something\n");
    second.until("got something");
    assert_eq!(microvm.wait(shell).exit, Exit::Code(3));
    assert_eq!(text(second.0).trim(), "");
    assert_eq!(
        microvm.refused(&Request::Resize {
            process: shell,
            rows: 1,
            columns: 1
        }),
        format!("terminal of process {}: it has none", shell.0)
    );

    terminal.types("exit 5\n");
    assert_eq!(microvm.wait(INIT).exit, Exit::Code(5));
    text(terminal.0);
}

fn resize(microvm: &Microvm, process: ProcessId, rows: u16, columns: u16) {
    microvm.order(&Request::Resize {
        process,
        rows,
        columns,
    });
}

struct Person(UnixStream);

impl Person {
    fn types(&mut self, what: &str) {
        self.0.write_all(what.as_bytes()).expect("it is taken");
    }

    /// Reads until these words have come.
    #[track_caller]
    fn until(&mut self, words: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(words) {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => seen.extend(byte),
                other => panic!("{other:?} before {words:?}: {:?}", String::from_utf8_lossy(&seen)),
            }
        }
    }
}
