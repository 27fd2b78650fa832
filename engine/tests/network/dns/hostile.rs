//! A container that means harm: nothing it sends makes the shim panic, stall or answer it for ever.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::asker::*;
use super::resolver::*;
use super::shim::Shim;
use crate::host::*;

fn neighbour() -> Message {
    question("name-aaaa", RecordType::A)
}

#[track_caller]
fn still_answers(netns: &Path, shim: &Shim) {
    assert!(shim.is_alive());
    for transport in BOTH {
        assert_eq!(addresses(&ask(netns, transport, &neighbour())).len(), 1);
    }
}

/// A header that asks, with these counts, and what follows it.
fn message(counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0];
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes.extend_from_slice(rest);
    bytes
}

#[test]
fn malformed_questions_are_answered_as_such_and_responses_never() {
    as_host(|host| {
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        let mut plain = neighbour();
        plain.metadata.id = 0x1234;
        let plain = plain.to_vec().unwrap();
        let huge: Vec<u8> = [&[63][..], &[b'x'; 63]].concat().repeat(5);
        // Enough of it that a pointer read as a length has something to lead over.
        let rest = [0; 250];
        for (what, bytes) in [
            (
                "a pointer to itself",
                message([1, 0, 0, 0], &[&[0xc0, 12, 0, 1, 0, 1], &rest[..]].concat()),
            ),
            (
                "pointers in a circle",
                message([1, 0, 0, 0], &[&[0xc0, 14, 0xc0, 12, 0, 1], &rest[..]].concat()),
            ),
            (
                "a name over 255 bytes",
                message([1, 0, 0, 0], &[&huge[..], &[0, 0, 1, 0, 1]].concat()),
            ),
            ("a name without end", message([1, 0, 0, 0], b"\x05name")),
            (
                "a reserved label",
                message([1, 0, 0, 0], &[&[0x41], &rest[..]].concat()),
            ),
            ("no question", message([0, 0, 0, 0], &[])),
            ("two questions", message([2, 0, 0, 0], &plain[12..])),
            ("65535 questions", message([u16::MAX; 4], &plain[12..])),
            ("half a question", plain[..plain.len() - 3].to_vec()),
        ] {
            for transport in BOTH {
                let answer = ask_bytes(&a.netns, transport, bytes.clone()).expect(what);
                let answer = Message::from_vec(&answer).expect(what);
                assert_eq!(answer.metadata.id, 0x1234, "{what}");
                assert_eq!(answer.metadata.response_code, ResponseCode::FormErr, "{what}");
            }
        }
        let mut update = plain.clone();
        update[2] |= 5 << 3;
        let answer = Message::from_vec(&ask_bytes(&a.netns, Transport::Udp, update).unwrap()).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
        // Two name servers that answer answers would go on for ever.
        let mut response = plain.clone();
        response[..2].copy_from_slice(&[0x56, 0x78]);
        response[2] |= 0x80;
        inside(&a.netns, move || {
            let socket = udp();
            for silent in [&response[..], &[], &[1, 2, 3]] {
                socket.send(silent).unwrap();
            }
            socket.send(&plain).unwrap();
            let first = receive(&socket).unwrap();
            assert_eq!(first[..2], plain[..2], "only the question is answered");
            assert!(Message::from_vec(&first).unwrap().answers.len() == 1);
        });
        still_answers(&a.netns, &shim);
    });
}

#[test]
fn nothing_sent_keeps_the_next_question_from_its_answer() {
    as_host(|host| {
        // Whatever of it is a question goes on to a resolver.
        Resolver::silent(FIRST);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        let netns = a.netns.clone();
        let plain = neighbour().to_vec().unwrap();
        let damaged = (
            prop::collection::vec((0..plain.len(), any::<u8>()), 0..6),
            0..plain.len(),
            prop::collection::vec(any::<u8>(), 0..40),
        )
            .prop_map(move |(changes, cut, more)| {
                let mut bytes = plain.clone();
                for (at, byte) in changes {
                    bytes[at] = byte;
                }
                bytes.truncate(bytes.len() - cut);
                bytes.extend(more);
                bytes
            });
        let bytes = prop_oneof![
            3 => damaged,
            1 => prop::collection::vec(any::<u8>(), 0..4200),
        ];
        // Datagrams, then a stream: framed, with a wrong length, or not at all.
        let all = prop::collection::vec((bytes, 0..3_u8), 1..12);
        inside(&netns, move || {
            let mut runner = TestRunner::new(Config {
                cases: 150,
                failure_persistence: None,
                ..Config::default()
            });
            let outcome = runner.run(&all, |all| {
                let socket = udp();
                let mut stream = tcp();
                for (bytes, framing) in &all {
                    let _ = socket.send(bytes);
                    let _ = match framing {
                        0 => stream.write_all(&framed(bytes)),
                        1 => stream.write_all(bytes),
                        _ => stream.write_all(&[&[0xff, 0xff], &bytes[..]].concat()),
                    };
                }
                drop(stream);
                prop_assert!(shim.is_alive());
                let socket = udp();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket.send(&neighbour().to_vec().unwrap()).unwrap();
                let answer = receive(&socket).expect("an answer");
                prop_assert_eq!(addresses(&Message::from_vec(&answer).unwrap()).len(), 1);
                Ok(())
            });
            outcome.unwrap();
        });
    });
}

#[test]
fn a_stream_of_nothing_is_closed() {
    as_host(|host| {
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        let netns = a.netns.clone();
        inside(&netns, || {
            // Frames of no length, of less than a header, of more than any question.
            for frame in [&[0, 0][..], &[0, 3, 1, 2, 3], &[0xff, 0xff]] {
                let mut stream = tcp();
                let flood = frame.repeat(10_000);
                stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                let end = (0..1000).find_map(|_| stream.write_all(&flood).err());
                let kind = end.map(|error| error.kind());
                assert!(
                    matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)),
                    "{frame:?} is taken for ever: {kind:?}"
                );
            }
        });
        still_answers(&a.netns, &shim);
    });
}

#[test]
fn a_question_of_any_length_is_not_kept() {
    as_host(|host| {
        let upstream = Resolver::knowing(FIRST, [192, 0, 2, 80]);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        // A question with much behind it, which is passed on as it is.
        let mut long = question("www.example.com", RecordType::A).to_vec().unwrap();
        long.resize(4096, 0);
        for transport in BOTH {
            ask_bytes(&a.netns, transport, long.clone()).expect("as long as may be");
        }
        long.push(0);
        let netns = a.netns.clone();
        inside(&netns, move || {
            let mut stream = tcp();
            stream.write_all(&framed(&long)).unwrap();
            read_message(&mut stream).expect_err("one byte too many");
            let socket = udp();
            socket.send(&long).unwrap();
            socket.send(&neighbour().to_vec().unwrap()).unwrap();
            let first = Message::from_vec(&receive(&socket).unwrap()).unwrap();
            assert_eq!(first.queries, neighbour().queries);
        });
        assert_eq!(upstream.asked().len(), 2);
        still_answers(&a.netns, &shim);
    });
}

#[test]
fn what_follows_an_answer_on_a_connection_is_not_asked() {
    as_host(|host| {
        let upstream = Resolver::knowing(FIRST, [192, 0, 2, 80]);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        let netns = a.netns.clone();
        inside(&netns, || {
            let question = question("www.example.com", RecordType::A).to_vec().unwrap();
            let mut response = question.clone();
            response[2] |= 0x80;
            let mut stream = tcp();
            stream
                .write_all(&[framed(&response), framed(&question)].concat())
                .unwrap();
            read_message(&mut stream).expect_err("closed");
        });
        still_answers(&a.netns, &shim);
        assert!(upstream.asked().is_empty());
    });
}

#[test]
fn who_never_reads_is_closed() {
    as_host(|host| {
        Resolver::start(FIRST, |asked| vec![super::forward::large(asked, 50_000)]);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        let netns = a.netns.clone();
        inside(&netns, || {
            let mut stream = tcp();
            stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            let question = question("www.example.com", RecordType::TXT).to_vec().unwrap();
            // Answers of 50 kB to questions of 50 bytes: somebody must stop.
            let refused = (0..2000).any(|n| {
                if n % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                stream.write_all(&framed(&question)).is_err()
            });
            assert!(refused);
        });
        still_answers(&a.netns, &shim);
    });
}
