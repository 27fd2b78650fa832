//! A guest that plays its side of vsock, against real Unix sockets.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::connection::BUFFER;
use super::packet::{DATA_MAX, HEADER_LEN, Header, NO_RECEIVE, NO_SEND, Operation, STREAM};
use super::{CONNECTIONS_MAX, HOST_CID, HOST_PORTS, Peers, RX, SocketFile, TX, Vsock};
use crate::devices::virtio::driver::{BUFFERS, Driver};

const CID: u32 = 3;
const OUT: u64 = BUFFERS;
const IN: u64 = BUFFERS + 0x2_0000;

struct Guest {
    driver: Driver,
    /// Packets read so far.
    read: u16,
    /// A buffer waits in the RX queue.
    offered: bool,
    path: PathBuf,
    file: Option<SocketFile>,
    _directory: tempfile::TempDir,
}

impl Guest {
    fn new() -> Guest {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock");
        let (device, file) = Vsock::new(CID, &path, Peers::At(path.clone())).unwrap();
        Guest {
            driver: Driver::start(device),
            file: Some(file),
            read: 0,
            offered: false,
            path,
            _directory: directory,
        }
    }

    fn header(operation: Operation, guest_port: u32, host_port: u32) -> Header {
        Header {
            source_cid: CID.into(),
            destination_cid: HOST_CID,
            source_port: guest_port,
            destination_port: host_port,
            length: 0,
            kind: STREAM,
            operation: Some(operation),
            flags: 0,
            buffer: 1 << 20,
            forwarded: 0,
        }
    }

    fn send(&mut self, header: &Header, data: &[u8]) {
        self.driver
            .memory
            .write_slice(&header.encode(), GuestAddress(OUT))
            .unwrap();
        self.driver
            .memory
            .write_slice(data, GuestAddress(OUT + 64))
            .unwrap();
        let length = u32::try_from(data.len()).unwrap();
        let header_length = u32::try_from(HEADER_LEN).unwrap();
        let mut parts = vec![(OUT, header_length, false)];
        if length > 0 {
            parts.push((OUT + 64, length, false));
        }
        self.driver.send(u32::try_from(TX).unwrap(), &parts);
    }

    fn data(&mut self, guest_port: u32, host_port: u32, data: &[u8]) {
        let header = Header {
            length: u32::try_from(data.len()).unwrap(),
            ..Self::header(Operation::Data, guest_port, host_port)
        };
        self.send(&header, data);
    }

    /// The next packet for the guest, if there is one now.
    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        let queue = u32::try_from(RX).unwrap();
        if !self.offered {
            let length = u32::try_from(HEADER_LEN + DATA_MAX).unwrap();
            self.offered = true;
            self.driver.send(queue, &[(IN, length, true)]);
        } else {
            self.driver.shared.serve_all();
        }
        let (count, length) = self.driver.used(queue);
        if count == self.read {
            return None;
        }
        (self.read, self.offered) = (count, false);
        let bytes = self.driver.bytes(IN, usize::try_from(length).unwrap());
        let header = Header::decode(bytes[..HEADER_LEN].try_into().unwrap());
        Some((header, bytes[HEADER_LEN..].to_vec()))
    }

    fn expect(&mut self, operation: Operation) -> (Header, Vec<u8>) {
        let (header, data) = self.next().unwrap_or_else(|| panic!("no {operation:?}"));
        assert_eq!(header.operation, Some(operation));
        assert_eq!(
            (header.source_cid, header.destination_cid),
            (HOST_CID, u64::from(CID))
        );
        (header, data)
    }

    /// A connection the guest asked for, and the host's program at its end.
    fn connected(&mut self, guest_port: u32, host_port: u32) -> UnixStream {
        let listener = UnixListener::bind(format!("{}_{host_port}", self.path.display())).unwrap();
        self.send(&Self::header(Operation::Request, guest_port, host_port), &[]);
        self.expect(Operation::Response);
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

fn read(mut stream: &UnixStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_guest_reaches_a_program_of_the_hosts() {
    let mut guest = Guest::new();
    let mut program = guest.connected(1000, 52);
    guest.data(1000, 52, b"question");
    assert_eq!(read(&program, 8), b"question");
    program.write_all(b"answer").unwrap();
    let (header, data) = guest.expect(Operation::Data);
    assert_eq!((header.source_port, header.destination_port), (52, 1000));
    assert_eq!(
        (&*data, header.buffer, header.forwarded),
        (&b"answer"[..], BUFFER, 8)
    );
    assert_eq!(guest.next(), None);
}

#[test]
fn a_program_of_the_hosts_reaches_the_guest() {
    let mut guest = Guest::new();
    let mut program = UnixStream::connect(&guest.path).unwrap();
    // The line comes in two parts, with the first words for the guest behind it.
    program.write_all(b"CONN").unwrap();
    assert_eq!(guest.next(), None);
    program.write_all(b"ECT 1024\nfirst words").unwrap();
    let (header, _) = guest.expect(Operation::Request);
    assert_eq!((header.source_port, header.destination_port), (HOST_PORTS, 1024));
    assert_eq!(guest.next(), None, "no data before the guest accepted");
    guest.send(&Guest::header(Operation::Response, 1024, HOST_PORTS), &[]);
    assert_eq!(read(&program, 14), b"OK 1073741824\n");
    assert_eq!(guest.expect(Operation::Data).1, b"first words");
}

#[test]
fn where_nobody_listens_connections_are_reset() {
    let mut guest = Guest::new();
    guest.send(&Guest::header(Operation::Request, 1000, 53), &[]);
    guest.expect(Operation::Reset);
    // The guest says no to the host: its program sees an end.
    let mut program = UnixStream::connect(&guest.path).unwrap();
    program.write_all(b"CONNECT 7\n").unwrap();
    guest.expect(Operation::Request);
    guest.send(&Guest::header(Operation::Reset, 7, HOST_PORTS), &[]);
    assert_eq!(program.read(&mut [0; 8]).unwrap(), 0);
    // What is no greeting is not for the guest.
    let mut program = UnixStream::connect(&guest.path).unwrap();
    program.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(guest.next(), None);
    assert!(matches!(program.read(&mut [0; 8]), Ok(0) | Err(_)));
}

#[test]
fn either_side_closes_one_direction_or_both() {
    let mut guest = Guest::new();
    let mut program = guest.connected(1000, 52);
    // The host's program has said everything and still listens.
    program.write_all(b"last words").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.expect(Operation::Data).1, b"last words");
    assert_eq!(guest.expect(Operation::Shutdown).0.flags, NO_SEND);
    guest.data(1000, 52, b"reply");
    assert_eq!(read(&program, 5), b"reply");
    // So has the guest: its end arrives behind its data, and nothing is left.
    let mut end = Guest::header(Operation::Shutdown, 1000, 52);
    end.flags = NO_SEND | NO_RECEIVE;
    guest.send(&end, &[]);
    assert_eq!(program.read(&mut [0; 8]).unwrap(), 0);
    guest.expect(Operation::Reset);
    guest.data(1000, 52, b"from the grave");
    guest.expect(Operation::Reset);

    let program = guest.connected(1001, 54);
    drop(program);
    assert_eq!(guest.expect(Operation::Shutdown).0.flags, NO_SEND | NO_RECEIVE);
    guest.send(&Guest::header(Operation::Reset, 1001, 54), &[]);
    assert_eq!(guest.next(), None);
}

#[test]
fn what_the_guest_sent_before_its_end_arrives_however_slow_the_reader() {
    let mut guest = Guest::new();
    let program = guest.connected(1000, 52);
    let data: Vec<u8> = (0..BUFFER).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for part in data.chunks(DATA_MAX) {
        guest.data(1000, 52, part);
    }
    let mut end = Guest::header(Operation::Shutdown, 1000, 52);
    end.flags = NO_SEND;
    guest.send(&end, &[]);
    // The guest loses patience.
    guest.send(&Guest::header(Operation::Reset, 1000, 52), &[]);
    let mut got: Vec<u8> = Vec::new();
    let mut buffer = [0; 10_000];
    while let count @ 1.. = (&program).read(&mut buffer).unwrap() {
        got.extend(&buffer[..count]);
        guest.driver.shared.serve_all();
    }
    assert_eq!(got, data);
}

#[test]
fn a_guest_that_ignores_its_credit_loses_the_connection() {
    let mut guest = Guest::new();
    let program = guest.connected(1000, 52);
    // The host's program reads nothing: its socket takes some, the rest is ours to hold.
    let part = vec![1; DATA_MAX];
    let mut sent = 0;
    let reset = loop {
        guest.data(1000, 52, &part);
        sent += part.len();
        match guest.next() {
            Some((header, _)) if header.operation == Some(Operation::Reset) => break true,
            _ if sent > 16 << 20 => break false,
            _ => {}
        }
    };
    assert!(reset, "{sent} bytes are held");
    drop(program);
}

#[test]
fn no_more_is_sent_than_the_guest_has_room_for() {
    let mut guest = Guest::new();
    let mut program = guest.connected(1000, 52);
    let mut credit = Guest::header(Operation::CreditUpdate, 1000, 52);
    credit.buffer = 10;
    guest.send(&credit, &[]);
    program.write_all(b"more than ten bytes").unwrap();
    assert_eq!(guest.expect(Operation::Data).1, b"more than ");
    assert_eq!(guest.next(), None);
    credit.forwarded = 10;
    guest.send(&credit, &[]);
    assert_eq!(guest.expect(Operation::Data).1, b"ten bytes");
    // Credit taken back is no credit, not a lot of it.
    credit.buffer = 0;
    guest.send(&credit, &[]);
    program.write_all(b"more").unwrap();
    assert_eq!(guest.next(), None);
}

#[test]
fn packets_with_lying_headers_are_dropped_or_stop_the_device() {
    let mut guest = Guest::new();
    let mut header = Guest::header(Operation::Request, 1000, 53);
    header.destination_cid = 7;
    guest.send(&header, &[]);
    header = Guest::header(Operation::Request, 1000, 53);
    header.source_cid = 4;
    guest.send(&header, &[]);
    assert_eq!(guest.next(), None, "not for the host, or not from this guest");
    header = Guest::header(Operation::Request, 1000, 53);
    header.kind = 2;
    guest.send(&header, &[]);
    guest.expect(Operation::Reset);
    header = Guest::header(Operation::Data, 1000, 52);
    header.length = 100;
    guest.send(&header, b"less");
    assert!(guest.driver.is_broken(), "a length past its buffers");

    let mut guest = Guest::new();
    let program = guest.connected(1000, 52);
    guest.send(&Guest::header(Operation::Request, 1000, 52), &[]);
    guest.expect(Operation::Reset);
    drop(program);
}

#[test]
fn answers_to_nobody_are_bounded() {
    let mut guest = Guest::new();
    for port in 0..1000 {
        guest.data(port, 52, b"");
    }
    let mut resets = 0;
    while guest.next().is_some() {
        resets += 1;
    }
    assert_eq!(resets, super::STRAYS_MAX);
}

#[test]
fn connections_are_bounded() {
    let mut guest = Guest::new();
    let _listener = UnixListener::bind(format!("{}_52", guest.path.display())).unwrap();
    let mut accepted = 0;
    let mut held = Vec::new();
    _listener.set_nonblocking(true).unwrap();
    for port in 0..u32::try_from(CONNECTIONS_MAX).unwrap() + 10 {
        guest.send(&Guest::header(Operation::Request, port, 52), &[]);
        accepted += usize::from(guest.next().unwrap().0.operation == Some(Operation::Response));
        held.extend(_listener.accept());
    }
    assert_eq!(accepted, CONNECTIONS_MAX);
}

#[test]
fn a_reset_ends_connections_and_the_next_driver_starts_anew() {
    let mut guest = Guest::new();
    let mut program = guest.connected(1000, 52);
    guest.driver.restart();
    (guest.read, guest.offered) = (0, false);
    assert_eq!(program.read(&mut [0; 8]).unwrap(), 0);
    let mut program = UnixStream::connect(&guest.path).unwrap();
    program.write_all(b"CONNECT 9\n").unwrap();
    guest.expect(Operation::Request);
}

#[test]
fn the_socket_is_not_taken_from_another_and_goes_with_the_device() {
    let mut guest = Guest::new();
    let error = Vsock::new(CID, &guest.path, Peers::At(guest.path.clone()))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    guest.file = None;
    assert!(!guest.path.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever headers say, in whatever order.
    #[test]
    fn no_header_breaks_the_device(
        packets in prop::collection::vec(
            (0_u16..10, 0_u32..4, 51_u32..54, any::<u32>(), any::<u32>(), any::<u32>(), 0_usize..200),
            0..60,
        ),
    ) {
        let mut guest = Guest::new();
        let listener = UnixListener::bind(format!("{}_52", guest.path.display())).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut held = Vec::new();
        for (operation, guest_port, host_port, flags, buffer, forwarded, length) in packets {
            let mut header = Header {
                flags,
                buffer,
                forwarded,
                length: u32::try_from(length).unwrap(),
                ..Guest::header(Operation::Data, guest_port, host_port)
            };
            let mut bytes = header.encode();
            bytes[30..32].copy_from_slice(&operation.to_le_bytes());
            header = Header::decode(&bytes);
            guest.send(&header, &vec![7; length]);
            held.extend(listener.accept());
            guest.next();
        }
        prop_assert!(!guest.driver.is_broken());
        guest.driver.restart();
        (guest.read, guest.offered) = (0, false);
        drop(listener);
        let _program = guest.connected(9, 60);
    }
}
