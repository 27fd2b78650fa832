//! How much fits: the asker's UDP size, and what is bounded.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::asker::*;
use super::forward::{large, text};
use super::resolver::*;
use super::shim::Shim;
use crate::host::*;

#[test]
fn neighbours_that_do_not_fit_are_told_as_truncated() {
    as_host(|host| {
        let a = host.attach("aaaa");
        // Three hundred containers of one alias, as far as the name server can see.
        let names = host.paths.state.join("networks/bridge/names/many");
        std::fs::create_dir_all(&names).unwrap();
        for n in 0..300 {
            std::fs::write(names.join(format!("10.77.{}.{}", 1 + n / 250, n % 250)), "").unwrap();
        }
        let _shim = Shim::serve(host, "aaaa");
        let many = || question("many", RecordType::A);
        let plain = ask(&a.netns, Transport::Udp, &many());
        assert!(plain.metadata.truncation);
        assert!(addresses(&plain).len() >= 28 && plain.to_vec().unwrap().len() <= 512);
        for (size, fits) in [(1232, false), (100, false), (8192, true)] {
            let question = with_edns(many(), size);
            let bytes = ask_bytes(&a.netns, Transport::Udp, question.to_vec().unwrap()).unwrap();
            assert!(
                bytes.len() <= usize::from(size.max(512)),
                "{size}: {}",
                bytes.len()
            );
            let answer = ask(&a.netns, Transport::Udp, &question);
            assert_eq!(answer.metadata.truncation, !fits, "{size}");
            assert_eq!(addresses(&answer).len() == 300, fits, "{size}");
            // RFC 6891 section 6.1.1: who shows that it knows EDNS is answered in kind.
            assert!(
                answer.edns.is_some_and(|edns| edns.max_payload() >= 512),
                "{size}"
            );
        }
        assert!(plain.edns.is_none());
        let whole = ask(&a.netns, Transport::Tcp, &many());
        assert!(!whole.metadata.truncation);
        assert_eq!(addresses(&whole).len(), 300);
        // Who comes first is another one each time, or one neighbour would have all the load.
        let first = || ask(&a.netns, Transport::Udp, &many()).answers[0].data.clone();
        let (one, mut others) = (first(), (0..20).map(|_| first()));
        assert!(others.any(|other| other != one));
    });
}

#[test]
fn resolvers_that_say_more_than_the_asker_takes_are_cut() {
    as_host(|host| {
        Resolver::start(FIRST, |asked| vec![large(asked, 20_000)]);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let _shim = Shim::serve(host, "aaaa");
        let question = || question("www.example.com", RecordType::TXT);
        for (question, size, whole) in [
            (question(), 512, false),
            (with_edns(question(), 1232), 1232, false),
            (with_edns(question(), 4096), 4096, false),
            (with_edns(question(), 65_000), 65_000, true),
        ] {
            let bytes = ask_bytes(&a.netns, Transport::Udp, question.to_vec().unwrap()).unwrap();
            assert!(bytes.len() <= size, "{size}: {}", bytes.len());
            let answer = ask(&a.netns, Transport::Udp, &question);
            assert_eq!(answer.metadata.truncation, !whole, "{size}");
            assert_eq!(text(&answer) == 20_000, whole, "{size}: {}", text(&answer));
            // As many whole records as there is room for: there are resolvers that never use TCP.
            assert!(
                text(&answer) + 300 > size.min(20_000),
                "{size}: {}",
                text(&answer)
            );
            assert_eq!(answer.edns.is_some(), !whole && size > 512, "{size}");
        }
        assert_eq!(text(&ask(&a.netns, Transport::Tcp, &question())), 20_000);
    });
}

#[test]
fn a_client_that_has_said_all_still_hears_all() {
    as_host(|host| {
        let upstream = Resolver::start(FIRST, |asked| {
            std::thread::sleep(Duration::from_millis(100));
            vec![large(asked, 50_000)]
        });
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        let rounds = inside(&a.netns, move || {
            let mut stream = tcp();
            for _ in 0..3 {
                let question = question("www.example.com", RecordType::TXT);
                stream.write_all(&framed(&question.to_vec().unwrap())).unwrap();
            }
            stream.shutdown(Shutdown::Write).unwrap();
            for _ in 0..3 {
                let answer = read_message(&mut stream).unwrap();
                assert!(answer.len() > 50_000);
            }
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "closed when all is said");
            shim.rounds()
        });
        assert_eq!(upstream.asked().len(), 3);
        // The end of a stream stays readable; it must be listened to once.
        assert!(rounds < 200, "{rounds} rounds");
    });
}

#[test]
fn a_client_that_trickles_is_closed() {
    as_host(|host| {
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        inside(&a.netns, move || {
            let message = framed(&question("name-aaaa", RecordType::A).to_vec().unwrap());
            let mut stream = tcp();
            stream.write_all(&message).unwrap();
            read_message(&mut stream).unwrap();
            // A byte from time to time is no reason to be kept for ever.
            for byte in &message[..20] {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                // Heard, then time passes.
                std::thread::sleep(Duration::from_millis(50));
                shim.skip(Duration::from_secs(6));
            }
            // Refused by a reset or an end, but not waited for.
            stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let heard = stream.read(&mut [0; 1]);
            assert!(
                heard.as_ref().is_ok_and(|length| *length == 0)
                    || heard
                        .as_ref()
                        .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
                "{heard:?}"
            );
        });
    });
}

#[test]
fn idle_clients_are_bounded_and_in_nobodys_way_for_long() {
    as_host(|host| {
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        inside(&a.netns, move || {
            let idle: Vec<_> = (0..60).map(|_| tcp()).collect();
            let mut late = tcp();
            let question = framed(&question("name-aaaa", RecordType::A).to_vec().unwrap());
            late.write_all(&question).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            let rounds = shim.rounds();
            assert!(rounds < 300, "{rounds} rounds of waiting");
            shim.hurry();
            read_message(&mut late).expect("served once the idle ones are gone");
            drop(idle);
        });
    });
}

#[test]
fn questions_under_way_are_bounded() {
    as_host(|host| {
        let upstream = Resolver::silent(FIRST);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        let refused = inside(&a.netns, || {
            let socket = udp();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let mut refused = 0;
            for _ in 0..30 {
                for n in 0..20 {
                    let name = format!("n{n}.example.com");
                    let question = question(&name, RecordType::A).to_vec().unwrap();
                    socket.send(&question).unwrap();
                }
                while let Ok(bytes) = receive(&socket) {
                    let answer = hickory_proto::op::Message::from_vec(&bytes).unwrap();
                    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
                    refused += 1;
                }
            }
            refused
        });
        let ids: std::collections::BTreeSet<_> =
            upstream.asked().iter().map(|a| a.message[..2].to_vec()).collect();
        assert!((32..=128).contains(&ids.len()), "{} questions at once", ids.len());
        assert!(refused >= 600 - 128, "{refused} refused");
        // Neighbours are found all the same.
        let answer = ask(&a.netns, Transport::Udp, &question("name-aaaa", RecordType::A));
        assert_eq!(addresses(&answer).len(), 1);
        drop(shim);
    });
}
