//! Who is asked: a resolver at port 53 of an address of the test's host, which answers whatever a test wants.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::{RData, Record};

use super::asker::{AGES, Transport, framed, read_message};
use crate::host::Host;

/// The resolvers of the tests, all of the host's own addresses.
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 2);
pub(crate) const THIRD: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 3);

/// What arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) message: Vec<u8>,
    pub(crate) transport: Transport,
    pub(crate) from: SocketAddr,
}

#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Resolver {
    /// Answers each question with the messages `answer` returns, one datagram or frame each. Lives in the calling thread's
    /// namespace, with it.
    pub(crate) fn start(
        at: Ipv4Addr,
        answer: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let resolver = Self {
            asked: Arc::default(),
        };
        let answer = Arc::new(answer);
        let udp = UdpSocket::bind((at, 53)).unwrap();
        let (log, reply) = (resolver.asked.clone(), answer.clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_535];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).unwrap();
                let asked = Asked {
                    message: buffer[..length].to_vec(),
                    transport: Transport::Udp,
                    from,
                };
                log.lock().unwrap().push(asked.clone());
                for message in reply(&asked) {
                    udp.send_to(&message, from).unwrap();
                }
            }
        });
        let tcp = TcpListener::bind((at, 53)).unwrap();
        let log = resolver.asked.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let (log, answer) = (log.clone(), answer.clone());
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let from = stream.peer_addr().unwrap();
                    while let Ok(message) = read_message(&mut stream) {
                        let transport = Transport::Tcp;
                        let asked = Asked {
                            message,
                            transport,
                            from,
                        };
                        log.lock().unwrap().push(asked.clone());
                        for message in answer(&asked) {
                            let _ = stream.write_all(&framed(&message));
                        }
                    }
                });
            }
        });
        resolver
    }

    /// Says nothing.
    pub(crate) fn silent(at: Ipv4Addr) -> Self {
        Self::start(at, |_| Vec::new())
    }

    /// Answers with a code alone.
    pub(crate) fn failing(at: Ipv4Addr, code: ResponseCode) -> Self {
        Self::start(at, move |asked| {
            vec![reply(asked, |m| m.metadata.response_code = code)]
        })
    }

    /// Knows every name, at `address`.
    pub(crate) fn knowing(at: Ipv4Addr, address: [u8; 4]) -> Self {
        Self::start(at, move |asked| vec![known(asked, address)])
    }

    /// All that arrived so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until `count` questions arrived.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Asked> {
        let until = Instant::now() + AGES;
        while self.asked().len() < count {
            assert!(
                Instant::now() < until,
                "asked {} of {count} times",
                self.asked().len()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        self.asked()
    }
}

/// An answer to what was asked, changed.
pub(crate) fn reply(asked: &Asked, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let query = Message::from_vec(&asked.message).unwrap();
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    reply.queries = query.queries;
    change(&mut reply);
    reply.to_vec().unwrap()
}

/// The asked name at `address`.
pub(crate) fn known(asked: &Asked, address: [u8; 4]) -> Vec<u8> {
    reply(asked, |m| {
        let name = m.queries[0].name.clone();
        m.add_answer(Record::from_rdata(
            name,
            60,
            RData::A(Ipv4Addr::from(address).into()),
        ));
    })
}

/// Makes `/etc/resolv.conf` of the test's mount namespace say this.
pub(crate) fn resolv_conf(host: &Host, text: &str) {
    let file = host.paths.root.join("resolv.conf");
    let is_new = !file.exists();
    std::fs::write(&file, text).unwrap();
    if is_new {
        rustix::mount::mount_bind(&file, "/etc/resolv.conf").unwrap();
    }
}

/// The host asks these, in this order.
pub(crate) fn host_asks(host: &Host, servers: &[Ipv4Addr]) {
    let lines: String = servers.iter().map(|s| format!("nameserver {s}\n")).collect();
    resolv_conf(host, &lines);
}
