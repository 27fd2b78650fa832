//! Names that are nobody's here: the host's resolvers are asked, however they behave.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_engine::network::DnsOptions;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record, RecordType};

use super::asker::*;
use super::resolver::*;
use super::shim::Shim;
use crate::host::*;

/// How long the C library waits for a first answer before it asks again.
const STUB: Duration = Duration::from_secs(5);

fn world() -> Message {
    question("www.example.com", RecordType::A)
}

#[track_caller]
fn assert_is(answer: &Message, address: [u8; 4]) {
    assert_eq!(addresses(answer), [IpAddr::from(address)], "{answer}");
}

#[test]
fn answers_pass_through_as_they_are() {
    as_host(|host| {
        let upstream = Resolver::start(FIRST, |asked| {
            let name = Message::from_vec(&asked.message).unwrap().queries[0].name.clone();
            vec![if name.to_string().starts_with("www") {
                let mut bytes = known(asked, [192, 0, 2, 80]);
                // A bit nobody has defined yet, and bytes after the end: not ours to drop.
                bytes[3] |= 0x40;
                bytes.extend_from_slice(b"end");
                bytes
            } else {
                reply(asked, |m| m.metadata.response_code = ResponseCode::NXDomain)
            }]
        });
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let _shim = Shim::serve(host, "aaaa");
        for transport in BOTH {
            let question = world().to_vec().unwrap();
            let answer = ask_bytes(&a.netns, transport, question.clone()).unwrap();
            assert_eq!(answer[..2], question[..2]);
            assert!(answer[3] & 0x40 != 0 && answer.ends_with(b"end"));
            let asked = upstream.asked().pop().unwrap();
            assert_eq!(asked.transport, transport);
            assert_eq!(asked.message[2..], question[2..]);
            let nobody = super::asker::question("nobody.example.com", RecordType::A);
            let answer = ask(&a.netns, transport, &nobody);
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        }
        // The next resolver is not asked for what this one knows does not exist.
        assert_eq!(upstream.asked().len(), 4);
    });
}

#[test]
fn only_the_answer_of_who_was_asked_to_what_was_asked_counts() {
    as_host(|host| {
        Resolver::start(FIRST, |asked| {
            let forged = |change: fn(&mut Message)| {
                let mut message = Message::from_vec(&known(asked, [203, 0, 113, 66])).unwrap();
                change(&mut message);
                message.to_vec().unwrap()
            };
            // Right in all but where it comes from.
            for port in [0, 5353] {
                let elsewhere = UdpSocket::bind((SECOND, port)).unwrap();
                elsewhere.send_to(&forged(|_| {}), asked.from).unwrap();
            }
            let mut question = asked.message.clone();
            question[2] &= 0x7f;
            vec![
                forged(|m| m.metadata.id = m.metadata.id.wrapping_add(1)),
                forged(|m| m.queries[0].name = "www.example.org.".parse().unwrap()),
                forged(|m| m.queries[0].query_type = RecordType::AAAA),
                forged(|m| m.queries.clear()),
                question,
                Vec::new(),
                vec![0; 3],
                known(asked, [192, 0, 2, 80]),
            ]
        });
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let _shim = Shim::serve(host, "aaaa");
        assert_is(&ask(&a.netns, Transport::Udp, &world()), [192, 0, 2, 80]);
    });
}

#[test]
fn over_tcp_a_wrong_answer_is_the_end_of_that_resolver() {
    as_host(|host| {
        Resolver::start(FIRST, |asked| {
            vec![reply(asked, |m| {
                m.queries[0].name = "www.example.org.".parse().unwrap()
            })]
        });
        Resolver::knowing(SECOND, [192, 0, 2, 80]);
        host_asks(host, &[FIRST, SECOND]);
        let a = host.attach("aaaa");
        let _shim = Shim::serve(host, "aaaa");
        assert_is(&ask(&a.netns, Transport::Tcp, &world()), [192, 0, 2, 80]);
    });
}

#[test]
fn ids_and_ports_cannot_be_guessed() {
    as_host(|host| {
        let upstream = Resolver::knowing(FIRST, [192, 0, 2, 80]);
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let _shim = Shim::serve(host, "aaaa");
        let mut question = world();
        question.metadata.id = 7;
        for _ in 0..64 {
            ask(&a.netns, Transport::Udp, &question);
        }
        let asked = upstream.asked();
        let ids: BTreeSet<u16> = asked
            .iter()
            .map(|a| u16::from_be_bytes([a.message[0], a.message[1]]))
            .collect();
        let ports: BTreeSet<u16> = asked.iter().map(|a| a.from.port()).collect();
        // Of 64 out of 65536 and 28232, three equal ones are a miracle; neighbours in order would be no chance either.
        assert!(ids.len() > 60 && ports.len() > 60, "{ids:?} {ports:?}");
        let steps = |all: Vec<u16>| all.windows(2).filter(|w| w[1].abs_diff(w[0]) < 16).count();
        assert!(
            steps(asked.iter().map(|a| a.from.port()).collect()) < 8,
            "{ports:?}"
        );
        assert!(
            ids.range(0..0x4000).count() > 2 && ids.range(0xc000..).count() > 2,
            "{ids:?}"
        );
    });
}

#[test]
fn who_fails_is_followed_by_the_next() {
    as_host(|host| {
        let failing = [
            ResponseCode::ServFail,
            ResponseCode::Refused,
            ResponseCode::NotImp,
        ];
        for (at, code) in [FIRST, SECOND, THIRD].into_iter().zip(failing) {
            Resolver::failing(at, code);
        }
        let last = Resolver::knowing([127, 0, 1, 4].into(), [192, 0, 2, 80]);
        let a = host.attach("aaaa");
        for at in [FIRST, SECOND, THIRD] {
            host_asks(host, &[at, [127, 0, 1, 4].into()]);
            let _shim = Shim::serve(host, "aaaa");
            for transport in BOTH {
                assert_is(&ask(&a.netns, transport, &world()), [192, 0, 2, 80]);
            }
        }
        assert_eq!(last.asked().len(), 6);
        // Nobody listens there: the kernel says so and the next one is asked at once.
        host_asks(host, &[[127, 0, 1, 9].into(), [127, 0, 1, 4].into()]);
        let shim = Shim::serve(host, "aaaa");
        for transport in BOTH {
            assert_is(&ask(&a.netns, transport, &world()), [192, 0, 2, 80]);
        }
        assert_eq!(shim.skipped(), Duration::ZERO);
    });
}

#[test]
fn when_all_fail_the_asker_hears_it_once_and_from_them() {
    as_host(|host| {
        let first = Resolver::failing(FIRST, ResponseCode::Refused);
        let second = Resolver::failing(SECOND, ResponseCode::ServFail);
        host_asks(host, &[FIRST, SECOND]);
        let a = host.attach("aaaa");
        let _shim = Shim::serve(host, "aaaa");
        for transport in BOTH {
            let answer = ask(&a.netns, transport, &world());
            assert!(
                [ResponseCode::Refused, ResponseCode::ServFail].contains(&answer.metadata.response_code),
                "{answer}"
            );
        }
        // No answer is worth a second question to the same server.
        assert_eq!((first.asked().len(), second.asked().len()), (2, 2));
    });
}

#[test]
fn silence_ends_before_the_asker_gives_up() {
    as_host(|host| {
        let silent = [FIRST, SECOND, THIRD].map(Resolver::silent);
        let a = host.attach("aaaa");
        for count in 1..=3 {
            host_asks(host, &[FIRST, SECOND, THIRD][..count]);
            for transport in BOTH {
                let before: Vec<usize> = silent.iter().map(|s| s.asked().len()).collect();
                let shim = Shim::serve(host, "aaaa");
                shim.hurry();
                let answer = ask(&a.netns, transport, &world());
                assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
                assert!(
                    shim.skipped() < STUB,
                    "{count} over {transport:?}: {:?}",
                    shim.skipped()
                );
                for (n, resolver) in silent.iter().enumerate() {
                    // A datagram may be lost, a segment is sent again by the kernel.
                    let times = match transport {
                        Transport::Udp => 2,
                        Transport::Tcp => 1,
                    };
                    let asked = resolver.asked().len() - before[n];
                    assert_eq!(
                        asked,
                        if n < count { times } else { 0 },
                        "{count} over {transport:?}"
                    );
                }
            }
        }
    });
}

#[test]
fn a_lost_datagram_is_sent_again_by_the_same_port_and_id() {
    as_host(|host| {
        let seen = AtomicUsize::new(0);
        let upstream = Resolver::start(FIRST, move |asked| {
            if seen.fetch_add(1, Ordering::SeqCst) == 0 {
                return Vec::new();
            }
            vec![known(asked, [192, 0, 2, 80])]
        });
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                upstream.wait_for(1);
                shim.skip(Duration::from_secs(2));
            });
            assert_is(&ask(&a.netns, Transport::Udp, &world()), [192, 0, 2, 80]);
        });
        let asked = upstream.asked();
        assert_eq!(asked[0].message, asked[1].message);
        assert_eq!(asked[0].from, asked[1].from);
    });
}

#[test]
fn who_is_slow_is_heard_after_the_next_was_asked() {
    as_host(|host| {
        let _a = host.attach("aaaa");
        for transport in BOTH {
            let (at, other) = match transport {
                Transport::Udp => (FIRST, SECOND),
                Transport::Tcp => (THIRD, [127, 0, 1, 4].into()),
            };
            let second = Resolver::silent(other);
            let patient = second.clone();
            let first = Resolver::start(at, move |asked| {
                patient.wait_for(1);
                vec![known(asked, [192, 0, 2, 80])]
            });
            host_asks(host, &[at, other]);
            let shim = Shim::serve(host, "aaaa");
            let netns = host.paths.netns("aaaa");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    first.wait_for(1);
                    shim.skip(Duration::from_secs(2));
                });
                assert_is(&ask(&netns, transport, &world()), [192, 0, 2, 80]);
            });
        }
    });
}

#[test]
fn a_truncated_answer_leads_to_tcp() {
    as_host(|host| {
        let upstream = Resolver::start(FIRST, |asked| {
            vec![match asked.transport {
                Transport::Udp => reply(asked, |m| m.metadata.truncation = true),
                Transport::Tcp => large(asked, 50_000),
            }]
        });
        host_asks(host, &[FIRST]);
        let a = host.attach("aaaa");
        let _shim = Shim::serve(host, "aaaa");
        let question = question("www.example.com", RecordType::TXT);
        let answer = ask(&a.netns, Transport::Udp, &question);
        assert!(answer.metadata.truncation && answer.answers.is_empty());
        let answer = ask(&a.netns, Transport::Tcp, &question);
        assert_eq!(text(&answer), 50_000);
        assert_eq!(upstream.asked().len(), 2);
    });
}

#[test]
fn resolvers_come_from_the_flags_or_the_host_as_it_is_now() {
    as_host(|host| {
        Resolver::knowing(FIRST, [192, 0, 2, 1]);
        Resolver::knowing(SECOND, [192, 0, 2, 2]);
        let local = Resolver::knowing([127, 0, 0, 1].into(), [192, 0, 2, 3]);
        let a = host.attach("aaaa");
        let shim = Shim::serve(host, "aaaa");
        let heard = || addresses(&ask(&a.netns, Transport::Udp, &world()));
        for (text, address) in [
            ("nameserver 127.0.1.1\n", [192, 0, 2, 1]),
            ("nameserver 127.0.1.2 # the new one\n", [192, 0, 2, 2]),
            (
                ";nameserver 127.0.1.1\n#nameserver 127.0.1.1\nnameserver\t127.0.1.2;x\n",
                [192, 0, 2, 2],
            ),
            ("nameserver nonsense\nnameserver 127.0.1.1\n", [192, 0, 2, 1]),
            // resolv.conf(5): no nameserver is the one on the local machine, the host's here.
            ("search example.com\n", [192, 0, 2, 3]),
            ("", [192, 0, 2, 3]),
        ] {
            resolv_conf(host, text);
            assert_eq!(heard(), [IpAddr::from(address)], "{text:?}");
        }
        assert_eq!(local.asked().len(), 2);
        drop(shim);
        // What a flag names is asked instead, from the host.
        sh("ip addr add 198.51.100.53/32 dev lo");
        Resolver::knowing([198, 51, 100, 53].into(), [192, 0, 2, 4]);
        let options = DnsOptions {
            servers: vec![[198, 51, 100, 53].into()],
            ..DnsOptions::default()
        };
        host_asks(host, &[FIRST]);
        let _shim = Shim::serve_with(host, "aaaa", &options);
        assert_eq!(heard(), [IpAddr::from([192, 0, 2, 4])]);
    });
}

/// As docker has it: a loopback address of a flag is the container's, one of the host's file the host's.
#[test]
fn a_loopback_of_a_flag_is_the_containers() {
    as_host(|host| {
        let outside = Resolver::knowing(FIRST, [192, 0, 2, 1]);
        let a = host.attach("aaaa");
        let own = inside(&a.netns, || Resolver::knowing(FIRST, [192, 0, 2, 2]));
        let options = |servers: &[std::net::Ipv4Addr]| DnsOptions {
            servers: servers.iter().copied().map(IpAddr::from).collect(),
            ..DnsOptions::default()
        };
        let shim = Shim::serve_with(host, "aaaa", &options(&[FIRST]));
        for transport in BOTH {
            assert_is(&ask(&a.netns, transport, &world()), [192, 0, 2, 2]);
        }
        drop(shim);
        // Itself is nobody to ask.
        let shim = Shim::serve_with(host, "aaaa", &options(&[SERVER.0]));
        for transport in BOTH {
            let answer = ask(&a.netns, transport, &world());
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        }
        assert_eq!(shim.skipped(), Duration::ZERO);
        assert!(shim.rounds() < 10, "{} rounds", shim.rounds());
        drop(shim);
        assert!(outside.asked().is_empty());
        host_asks(host, &[FIRST]);
        let _shim = Shim::serve(host, "aaaa");
        assert_is(&ask(&a.netns, Transport::Udp, &world()), [192, 0, 2, 1]);
        assert_eq!(own.asked().len(), 2);
    });
}

/// Routers announce themselves by their link-local address, which means nothing without the link.
#[test]
fn a_resolver_may_be_known_by_its_link() {
    as_host(|host| {
        sh("ip link add up0 type bridge && ip link set up0 up && ip addr add fe80::53/64 dev up0 nodad");
        let link = sh("ip -o link show up0 | cut -d: -f1").trim().parse().unwrap();
        let at = std::net::SocketAddrV6::new("fe80::53".parse().unwrap(), 53, 0, link);
        let socket = UdpSocket::bind(at).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let asked = Asked {
                message: buffer[..length].to_vec(),
                transport: Transport::Udp,
                from,
            };
            socket.send_to(&known(&asked, [192, 0, 2, 80]), from).unwrap();
        });
        resolv_conf(host, "nameserver fe80::53%up0\n");
        let a = host.attach("aaaa");
        let _shim = Shim::serve(host, "aaaa");
        assert_is(&ask(&a.netns, Transport::Udp, &world()), [192, 0, 2, 80]);
    });
}

#[test]
fn without_a_way_out_or_a_resolver_the_answer_is_no() {
    as_host(|host| {
        let upstream = Resolver::knowing(FIRST, [192, 0, 2, 80]);
        host.create("inner", true, None);
        let inner = host.join(&host.request("aaaa", &["inner"]));
        let outer = host.attach("bbbb");
        for (text, netns, id) in [
            ("nameserver 127.0.1.1\n", inner.netns, "aaaa"),
            ("", outer.netns, "bbbb"),
        ] {
            resolv_conf(host, text);
            let shim = Shim::serve(host, id);
            for transport in BOTH {
                let answer = ask(&netns, transport, &world());
                assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "{id}");
            }
            assert_eq!(shim.skipped(), Duration::ZERO, "at once");
        }
        assert!(upstream.asked().is_empty(), "an internal network's names left it");
    });
}

/// TXT records of `size` bytes of text together.
pub(super) fn large(asked: &Asked, size: usize) -> Vec<u8> {
    reply(asked, |m| {
        let name = m.queries[0].name.clone();
        for _ in 0..size / 200 {
            let data = RData::TXT(TXT::new(vec!["x".repeat(200)]));
            m.add_answer(Record::from_rdata(name.clone(), 60, data));
        }
    })
}

/// How much text an answer has.
pub(super) fn text(answer: &Message) -> usize {
    let texts = answer.answers.iter().filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(txt.txt_data.iter().map(|part| part.len()).sum::<usize>()),
        _ => None,
    });
    texts.sum()
}
