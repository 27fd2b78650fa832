//! What flows between a process and its host, and what does not when one of them stands still.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use berth_guest::protocol::{Exit, ProcessId, Request, Stream, Streams};
use berth_tests::eventually;

use crate::fixture::{Microvm, OUTPUT, first, idle, text};

const BOTH_WAYS: Streams = Streams::Pipes {
    stdin: true,
    stdout: true,
    stderr: false,
};

#[test]
#[ignore = "runs in the test VM"]
fn streams_are_whole_bounded_and_survive_their_connection() {
    let microvm = Microvm::set_up();
    microvm.run(&idle(), OUTPUT);
    input_ends_where_the_host_ends_it(&microvm);
    what_goes_in_comes_out(&microvm);
    a_flood_nobody_reads_stands_still(&microvm);
    a_broken_connection_leaves_the_stream(&microvm);
    the_second_to_attach_takes_the_stream(&microvm);
    a_stream_ends_with_its_process(&microvm);
    input_nobody_reads_any_more_goes_nowhere(&microvm);
    assert_eq!(
        microvm.refused(&Request::Attach {
            process: ProcessId::INIT,
            stream: Stream::Stderr
        }),
        "Stderr of process 0: the process has no such stream, or it has ended"
    );
    assert_eq!(
        microvm.refused(&Request::Wait {
            process: ProcessId(9999)
        }),
        "process 9999: there is none of this number"
    );
}

fn input_ends_where_the_host_ends_it(microvm: &Microvm) {
    let process = microvm.exec(&["sh", "-c", "wc -c; echo done"], BOTH_WAYS);
    let mut input = microvm.attach(process, Stream::Stdin);
    input.write_all(&vec![b'x'; 300_000]).expect("it is taken");
    input.shutdown(Shutdown::Write).expect("an end");
    // The guest closes once the process has it all.
    assert_eq!(text(input), "");
    assert_eq!(microvm.all(process, Stream::Stdout), "300000\ndone\n");
    assert_eq!(microvm.wait(process).exit, Exit::Code(0));
}

fn what_goes_in_comes_out(microvm: &Microvm) {
    // More than all the buffers on the way.
    let sent: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let process = microvm.exec(&["cat"], BOTH_WAYS);
    let mut input = microvm.attach(process, Stream::Stdin);
    let mut output = microvm.attach(process, Stream::Stdout);
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            input.write_all(&sent).expect("it is taken");
            input.shutdown(Shutdown::Write).expect("an end");
        });
        output.read_to_end(&mut got).expect("it ends");
    });
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(microvm.wait(process).exit, Exit::Code(0));
}

/// 2000 blocks of 4 KiB; `/tmp/n` says how many are written.
const FLOOD: &str =
    "n=0; while [ $n -lt 2000 ]; do head -c 4096 /dev/zero; n=$((n+1)); echo $n >/tmp/n; done";

fn a_flood_nobody_reads_stands_still(microvm: &Microvm) {
    let written = || -> u32 { microvm.output(&["cat", "/tmp/n"]).trim().parse().unwrap_or(0) };
    let settled = || {
        let mut last = u32::MAX;
        eventually("the flood stands still", || {
            std::thread::sleep(std::time::Duration::from_secs(2));
            let now = written();
            std::mem::replace(&mut last, now) == now
        });
        last
    };
    let process = microvm.exec(&["sh", "-c", FLOOD], OUTPUT);
    // Nobody is attached: a pipe of 64 KiB, and not a byte in the guest.
    assert_eq!(settled(), 16);
    // Attached, and nothing is taken: what guest, vsock, monitor and socket hold, which is far from eight million.
    let output = microvm.attach(process, Stream::Stdout);
    let held = settled();
    assert!(held < 500, "{held} blocks are held somewhere");
    let mut output = std::io::BufReader::new(output);
    let mut count = 0;
    let mut block = vec![0; 1 << 16];
    loop {
        match output.read(&mut block).expect("it goes on") {
            0 => break,
            n => count += n,
        }
    }
    assert_eq!(count, 2000 * 4096);
    assert_eq!(microvm.wait(process).exit, Exit::Code(0));
}

fn a_broken_connection_leaves_the_stream(microvm: &Microvm) {
    let process = microvm.exec(&["seq", "200000"], OUTPUT);
    let mut output = microvm.attach(process, Stream::Stdout);
    assert_eq!(first(&mut output, 4), "1\n2\n");
    drop(output);
    let rest = microvm.all(process, Stream::Stdout);
    assert!(rest.ends_with("\n199999\n200000\n"), "{}", rest.len());
    assert_eq!(microvm.wait(process).exit, Exit::Code(0));
}

fn the_second_to_attach_takes_the_stream(microvm: &Microvm) {
    let process = microvm.exec(&["sh", "-c", "read line; echo $line"], BOTH_WAYS);
    let before = microvm.attach(process, Stream::Stdout);
    let after = microvm.attach(process, Stream::Stdout);
    assert_eq!(text(before), "");
    let mut input = microvm.attach(process, Stream::Stdin);
    input.write_all(b"to the second\n").expect("it is taken");
    assert_eq!(text(after), "to the second\n");
    assert_eq!(microvm.wait(process).exit, Exit::Code(0));
}

fn a_stream_ends_with_its_process(microvm: &Microvm) {
    // The sleep has the pipe open, and lives on.
    let process = microvm.exec(&["sh", "-c", "sleep 1000 & echo said"], OUTPUT);
    let stream = microvm.attach(process, Stream::Stdout);
    assert_eq!(microvm.wait(process).exit, Exit::Code(0));
    assert_eq!(text(stream), "said\n");
    // Attached to only after the end, what it said is still there.
    let process = microvm.exec(&["sh", "-c", "echo $$ >/tmp/pid; sleep 1000 & echo said"], OUTPUT);
    let lives = "kill -0 $(cat /tmp/pid) 2>/dev/null && echo lives || echo ended";
    eventually("the process ends", || {
        microvm.output(&["sh", "-c", lives]) == "ended\n"
    });
    assert_eq!(microvm.all(process, Stream::Stdout), "said\n");
    assert_eq!(microvm.wait(process).exit, Exit::Code(0));
}

fn input_nobody_reads_any_more_goes_nowhere(microvm: &Microvm) {
    let process = microvm.exec(&["sh", "-c", "exec <&-; echo closed; exec sleep 1000"], BOTH_WAYS);
    let mut output = microvm.attach(process, Stream::Stdout);
    assert_eq!(first(&mut output, 7), "closed\n");
    let mut input: UnixStream = microvm.attach(process, Stream::Stdin);
    let _ = input.write_all(b"nobody reads this");
    assert_eq!(text(input), "");
    microvm.order(&Request::Kill { process, signal: 15 });
    assert_eq!(microvm.wait(process).exit, Exit::Signal(15));
    assert_eq!(text(output), "");
}
