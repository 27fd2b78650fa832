//! How much fits: the asker's UDP size, and what is bounded.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use berth_engine::network::DnsOptions;
use berth_engine::network::dns::Responder;
use hickory_proto::op::{Message, ResponseCode};
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
fn idle_clients_are_bounded_and_make_room() {
    as_host(|host| {
        let a = host.attach("aaaa");
        let mut responder = Responder::bind(&host.paths, "aaaa", &DnsOptions::default()).unwrap();
        let (mut idle, mut late) = inside(&a.netns, || {
            let idle: Vec<_> = (0..60).map(|_| tcp()).collect();
            let mut late = tcp();
            let question = question("name-aaaa", RecordType::A).to_vec().unwrap();
            late.write_all(&framed(&question)).unwrap();
            (idle, late)
        });
        for stream in idle.iter().chain([&late]) {
            stream.set_nonblocking(true).unwrap();
        }
        let is_open = |stream: &mut TcpStream| stream.read(&mut [0; 1]).is_err();
        let start = Instant::now();
        for seconds in 0..4 {
            let now = start + Duration::from_secs(seconds);
            assert!(is_open(&mut late), "heard before its turn, after {seconds} s");
            for _ in 0..4 {
                responder.ready(now);
            }
            // Nobody has to go who may be about to ask, and nothing is to be done until then.
            assert_eq!(is_open(&mut idle[0]), seconds == 0);
            assert_eq!(
                responder.deadline().filter(|_| seconds < 3),
                (seconds < 3).then(|| now + Duration::from_secs(1))
            );
        }
        late.set_nonblocking(false).unwrap();
        read_message(&mut late).expect("an answer");
        assert_eq!(idle.iter_mut().map(is_open).filter(|open| *open).count(), 15);
    });
}

#[test]
fn busy_clients_are_bounded_and_keep_their_place() {
    as_host(|host| {
        Resolver::silent(FIRST);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        inside(&a.netns, move || {
            let ask = |name: &str| {
                let mut stream = tcp();
                let question = question(name, RecordType::A).to_vec().unwrap();
                stream.write_all(&framed(&question)).unwrap();
                stream
            };
            let mut busy: Vec<_> = (0..16).map(|_| ask("www.example.com")).collect();
            std::thread::sleep(Duration::from_millis(300));
            let mut late = ask("name-aaaa");
            std::thread::sleep(Duration::from_millis(300));
            let rounds = shim.rounds();
            assert!(rounds < 300, "{rounds} rounds of waiting");
            late.set_nonblocking(true).unwrap();
            assert!(
                late.read(&mut [0; 1]).is_err(),
                "more connections than there should be"
            );
            late.set_nonblocking(false).unwrap();
            shim.hurry();
            for stream in &mut busy {
                read_message(stream).expect("the answer that there is none");
            }
            read_message(&mut late).expect("served once there is room");
        });
    });
}

#[test]
fn questions_under_way_are_bounded() {
    as_host(|host| {
        let upstream = Resolver::silent(FIRST);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let mut responder = Responder::bind(&host.paths, "aaaa", &DnsOptions::default()).unwrap();
        let socket = inside(&a.netns, udp);
        socket.set_nonblocking(true).unwrap();
        let now = Instant::now();
        let mut refused = 0;
        for round in 0..30 {
            for n in 0..20 {
                let name = format!("n{round}-{n}.example.com");
                let question = question(&name, RecordType::A).to_vec().unwrap();
                socket.send(&question).unwrap();
            }
            // No time passes, so none of them ends.
            responder.ready(now);
            while let Ok(bytes) = receive(&socket) {
                let answer = Message::from_vec(&bytes).unwrap();
                assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
                refused += 1;
            }
        }
        assert!((600 - 128..600).contains(&refused), "{refused} refused");
        assert_eq!(upstream.wait_for(600 - refused).len(), 600 - refused);
        // Neighbours are found all the same.
        let neighbour = question("name-aaaa", RecordType::A).to_vec().unwrap();
        socket.send(&neighbour).unwrap();
        responder.ready(now);
        let answer = Message::from_vec(&receive(&socket).unwrap()).unwrap();
        assert_eq!(addresses(&answer).len(), 1);
    });
}

/// The shim has other work: of a flood it takes a portion at a time.
#[test]
fn a_flood_comes_in_portions() {
    as_host(|host| {
        let a = host.attach("aaaa");
        let mut responder = Responder::bind(&host.paths, "aaaa", &DnsOptions::default()).unwrap();
        let question = question("name-aaaa", RecordType::A).to_vec().unwrap();
        let (socket, mut stream) = inside(&a.netns, move || {
            let (socket, mut stream) = (udp(), tcp());
            for _ in 0..200 {
                socket.send(&question).unwrap();
            }
            stream.write_all(&framed(&question).repeat(200)).unwrap();
            (socket, stream)
        });
        // The first takes the connection in, the second has its first portion.
        for _ in 0..2 {
            responder.ready(Instant::now());
        }
        socket.set_nonblocking(true).unwrap();
        let datagrams = std::iter::from_fn(|| receive(&socket).ok()).count();
        stream.set_nonblocking(true).unwrap();
        let mut answers = vec![0; 65_535];
        let bytes = stream.read(&mut answers).unwrap();
        let answers = bytes / (2 + usize::from(u16::from_be_bytes([answers[0], answers[1]])));
        assert!((1..=128).contains(&datagrams), "{datagrams} datagrams");
        assert!((1..=50).contains(&answers), "{answers} of a stream");
        for _ in 0..30 {
            responder.ready(Instant::now());
        }
        assert_eq!(
            datagrams + std::iter::from_fn(|| receive(&socket).ok()).count(),
            200
        );
    });
}

/// Nobody is left to hear the answer, and the kernel says so again and again.
#[test]
fn a_client_that_is_gone_is_forgotten() {
    as_host(|host| {
        let upstream = Resolver::silent(FIRST);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        let netns = a.netns.clone();
        inside(&netns, move || {
            let mut stream = tcp();
            let question = question("www.example.com", RecordType::A);
            stream.write_all(&framed(&question.to_vec().unwrap())).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            upstream.wait_for(1);
            let at_once = Some(Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(&stream, at_once).unwrap();
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(shim.rounds() < 50, "{} rounds", shim.rounds());
    });
}
