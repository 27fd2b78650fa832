//! A person at a terminal: `run -it`, `exec -it`, resizing, and leaving by keys.

use berth_tests::Terminal;

use crate::fixture::{berth, eventually, field, remove_all, sleeping};

#[test]
fn run_is_a_session_at_our_terminal() {
    let Some(berth) = berth() else { return };
    let run = berth.command(["run", "-it", "--name", "shell", "busybox", "sh"]);
    let mut terminal = Terminal::start(&run, 31, 97);
    terminal.wait_for("# ");
    terminal.enter("tty; stty size\r");
    terminal.wait_for("/dev/pts/0");
    terminal.wait_for("31 97");
    terminal.resize(17, 53);
    // The size is the container's once its program could see it.
    eventually("the new size has arrived", || {
        terminal.enter("stty size\r");
        terminal.wait_for("stty size");
        terminal.wait_for("# ");
        terminal.screen.contains("17 53")
    });
    // Keys are the container's: ctrl-c ends its foreground process and neither its shell nor berth.
    terminal.enter("sleep 500; echo interrupted $?\r");
    terminal.wait_for("\n");
    eventually("it sleeps", || {
        berth.run(["top", "shell"]).stdout.contains("sleep 500")
    });
    terminal.enter("\x03");
    terminal.wait_for("# ");
    terminal.enter("exit 7\r");
    assert_eq!(terminal.end(), 7);
    remove_all(&berth);
}

#[test]
fn exec_is_one_too() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &[]);
    let exec = berth.command(["exec", "-it", "box", "sh"]);
    let mut terminal = Terminal::start(&exec, 20, 60);
    terminal.wait_for("# ");
    terminal.enter("stty size; echo $TERM\r");
    terminal.wait_for("20 60");
    terminal.wait_for("xterm");
    terminal.resize(44, 132);
    eventually("the new size has arrived", || {
        terminal.enter("stty size\r");
        terminal.wait_for("stty size");
        terminal.wait_for("# ");
        terminal.screen.contains("44 132")
    });
    terminal.enter("exit 5\r");
    assert_eq!(terminal.end(), 5);
    // By keys it is left, and goes on.
    let exec = berth.command([
        "exec",
        "-it",
        "--detach-keys",
        "ctrl-x,q",
        "box",
        "sh",
        "-c",
        "echo here; sleep 700",
    ]);
    let mut terminal = Terminal::start(&exec, 20, 60);
    terminal.wait_for("here");
    terminal.enter("\x18q");
    assert_eq!(terminal.end(), 0, "{}", terminal.screen);
    assert!(berth.run(["top", "box"]).ok().contains("sleep 700"));
    remove_all(&berth);
}

#[test]
fn keys_leave_it_running_and_attach_comes_back() {
    let Some(berth) = berth() else { return };
    let run = berth.command(["run", "-it", "--name", "shell", "busybox", "sh"]);
    let mut terminal = Terminal::start(&run, 24, 80);
    terminal.wait_for("# ");
    terminal.enter("word=kept\r");
    terminal.wait_for("# ");
    terminal.enter("\x10\x11");
    assert_eq!(terminal.end(), 0);
    assert_eq!(field(&berth, "shell", "/State/Status"), "running");
    let mut terminal = Terminal::start(&berth.command(["attach", "shell"]), 25, 81);
    terminal.enter("echo it is $word; stty size\r");
    terminal.wait_for("it is kept");
    terminal.wait_for("25 81");
    terminal.enter("exit 3\r");
    assert_eq!(terminal.end(), 3);
    remove_all(&berth);
}

#[test]
fn our_terminal_is_as_before() {
    let Some(berth) = berth() else { return };
    let program = berth.command(["run", "--rm", "-it", "busybox", "true"]);
    let words: Vec<_> = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(|word| word.to_str().expect("UTF-8"))
        .collect();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("stty -g; {}; stty -g", words.join(" "))]);
    let mut terminal = Terminal::start(&shell, 24, 80);
    assert_eq!(terminal.end(), 0);
    let lines: Vec<_> = terminal.screen.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], lines[1]);
}

#[test]
fn a_terminal_without_a_terminal_is_refused() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "box", &[]);
    for command in [
        &["run", "--rm", "-it", "busybox", "true"][..],
        &["exec", "-it", "box", "true"],
    ] {
        let refused = berth.run(command);
        assert_eq!(refused.code, 1, "{command:?}: {}", refused.stderr);
        assert!(
            refused.stderr.contains("terminal") && refused.stderr.contains("-t"),
            "{}",
            refused.stderr
        );
    }
    assert_eq!(berth.run(["ps", "-aq"]).ok().lines().count(), 1);
    // Without input it may have one all the same: its output is that of a terminal.
    let shown = berth.run([
        "run",
        "--rm",
        "-t",
        "busybox",
        "sh",
        "-c",
        "tty; [ -t 1 ] && echo yes",
    ]);
    assert_eq!(shown.stdout, "/dev/pts/0\r\nyes\r\n");
    assert_eq!(berth.run(["exec", "-t", "box", "tty"]).stdout, "/dev/pts/0\r\n");
    remove_all(&berth);
}
