//! Who asks: a resolver library inside a container.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::host::inside;

/// Where containers ask.
pub(crate) const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// Longer than any answer takes; reached only by a test that fails.
pub(crate) const AGES: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

pub(crate) const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    message
}

/// The same, from a resolver that takes UDP messages of `size` bytes (RFC 6891).
pub(crate) fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

/// Asks inside the container and returns the answer, which must have the question's id and the question.
#[track_caller]
pub(crate) fn ask(netns: &Path, transport: Transport, question: &Message) -> Message {
    ask_at(SERVER, netns, transport, question)
}

/// Asks somebody else.
#[track_caller]
pub(crate) fn ask_at(
    server: (Ipv4Addr, u16),
    netns: &Path,
    transport: Transport,
    question: &Message,
) -> Message {
    let bytes = ask_bytes_at(server, netns, transport, question.to_vec().unwrap());
    let answer = Message::from_vec(&bytes.unwrap()).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    assert_eq!(answer.queries, question.queries);
    answer
}

pub(crate) fn ask_bytes(netns: &Path, transport: Transport, question: Vec<u8>) -> io::Result<Vec<u8>> {
    ask_bytes_at(SERVER, netns, transport, question)
}

fn ask_bytes_at(
    server: (Ipv4Addr, u16),
    netns: &Path,
    transport: Transport,
    question: Vec<u8>,
) -> io::Result<Vec<u8>> {
    inside(netns, move || match transport {
        Transport::Udp => {
            let socket = udp_to(server);
            socket.send(&question)?;
            receive(&socket)
        }
        Transport::Tcp => {
            let mut stream = tcp_to(server);
            stream.write_all(&framed(&question))?;
            read_message(&mut stream)
        }
    })
}

/// A socket of the calling thread's namespace, connected to the name server.
pub(crate) fn udp() -> UdpSocket {
    udp_to(SERVER)
}

fn udp_to(server: (Ipv4Addr, u16)) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(AGES)).unwrap();
    socket
}

pub(crate) fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// A connection of the calling thread's namespace to the name server.
pub(crate) fn tcp() -> TcpStream {
    tcp_to(SERVER)
}

fn tcp_to(server: (Ipv4Addr, u16)) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(AGES)).unwrap();
    stream
}

/// A message as it stands in a TCP stream (RFC 1035 section 4.2.2).
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

pub(crate) fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// The addresses an answer gives, sorted.
pub(crate) fn addresses(answer: &Message) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(a.0.into()),
            RData::AAAA(aaaa) => Some(aaaa.0.into()),
            _ => None,
        })
        .collect();
    found.sort();
    found
}
