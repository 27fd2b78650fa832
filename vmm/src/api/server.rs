//! The socket and its clients, behind one descriptor.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use super::connection::Connection;
use super::http::{Request, Response};
use crate::error::{Error, Result};
use crate::socket_file::SocketFile;

/// The largest body, unless `--http-api-max-payload-size` says otherwise. Firecracker's.
pub const BODY_MAX: usize = 51200;

/// Clients at one time, as in Firecracker. The next is told so and sent away.
const CLIENTS_MAX: usize = 10;
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 16;
/// What one read brings at most.
const CHUNK: usize = 16 << 10;
/// The listening socket among the events; clients count from 1.
const LISTENER: u64 = 0;

/// Serves the API on a Unix socket. Readable, as a descriptor, when [`Server::on_event`] has something to do.
#[derive(Debug)]
pub struct Server {
    epoll: OwnedFd,
    listener: OwnedFd,
    file: SocketFile,
    body_max: usize,
    clients: BTreeMap<u64, Client>,
    next: u64,
    /// Given up for a moment when the process has no descriptor left, to accept a client and send it away: left waiting, it
    /// would make the listener readable for ever.
    spare: Option<OwnedFd>,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    connection: Connection,
    /// What it is listened to for.
    interest: EventFlags,
}

impl Server {
    /// Listens at `path`, for this user alone. Bodies may have `body_max` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Api`], when the path is taken, say. A socket that a dead process left behind is not removed: it cannot be told
    /// from one that is busy.
    pub fn bind(path: &Path, body_max: usize) -> Result<Server> {
        let fail = |e: Errno| Error::Api {
            path: path.into(),
            source: e.into(),
        };
        let address = SocketAddrUnix::new(path).map_err(fail)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(fail)?;
        // The file gets the socket's mode (unix(7)): it is never open to others, not even for a moment.
        rustix::fs::fchmod(&listener, Mode::RUSR | Mode::WUSR).map_err(fail)?;
        rustix::net::bind(&listener, &address).map_err(fail)?;
        let file = SocketFile::of(path);
        rustix::net::listen(&listener, BACKLOG).map_err(fail)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(fail)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).map_err(fail)?;
        Ok(Server {
            epoll,
            listener,
            file,
            body_max,
            clients: BTreeMap::new(),
            next: LISTENER + 1,
            spare: spare(),
        })
    }

    /// Does what there is to do, and hands complete requests to `handle`, one after the other. Does not block but in `handle`.
    ///
    /// # Errors
    ///
    /// [`Error::Api`] when the host refuses to tell of events; a client's failure ends that client alone.
    pub fn on_event(&mut self, handle: &mut dyn FnMut(&Request) -> Response) -> Result<()> {
        let mut events = Vec::with_capacity(CLIENTS_MAX + 1);
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(self.fail(e)),
        }
        let mut comes = false;
        for event in events {
            match event.data.u64() {
                LISTENER => comes = true,
                token => self.talk(token, handle),
            }
        }
        // Last, whatever the kernel's order: those who have gone make room for those who come.
        if comes {
            self.accept();
        }
        Ok(())
    }

    fn fail(&self, e: Errno) -> Error {
        Error::Api {
            path: self.file.path().into(),
            source: e.into(),
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..BACKLOG {
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) if self.clients.len() >= CLIENTS_MAX => {
                    // A fresh socket has room for this; the client that does not read it has its answer all the same.
                    let _ = rustix::net::send(&socket, &Response::full().encode(true), SendFlags::NOSIGNAL);
                }
                Ok(socket) => self.admit(socket),
                Err(Errno::MFILE | Errno::NFILE) => {
                    drop(self.spare.take());
                    drop(rustix::net::accept_with(&self.listener, flags));
                    self.spare = spare();
                    return;
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return,
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) {
        let interest = EventFlags::IN;
        // Without it the client is deaf and mute: closed at once it knows.
        if epoll::add(&self.epoll, &socket, EventData::new_u64(self.next), interest).is_ok() {
            let connection = Connection::new(self.body_max);
            self.clients.insert(
                self.next,
                Client {
                    socket,
                    connection,
                    interest,
                },
            );
            self.next += 1;
        }
    }

    fn talk(&mut self, token: u64, handle: &mut dyn FnMut(&Request) -> Response) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        let alive = client.exchange(handle).is_ok()
            && !client.connection.is_over()
            && client.listen(&self.epoll, token).is_ok();
        if !alive {
            self.clients.remove(&token);
        }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Client {
    /// Reads, answers and writes until the socket has nothing more or takes nothing more.
    fn exchange(&mut self, handle: &mut dyn FnMut(&Request) -> Response) -> Result<(), Errno> {
        if self.interest.contains(EventFlags::IN) {
            self.read()?;
        }
        loop {
            self.write()?;
            let Some(request) = self.connection.next() else {
                // It may have put something: that the client may go on, or why it is refused.
                self.write()?;
                if self.connection.is_lingering() {
                    rustix::net::shutdown(&self.socket, Shutdown::Write)?;
                }
                return Ok(());
            };
            self.connection.answer(&handle(&request));
        }
    }

    fn read(&mut self) -> Result<(), Errno> {
        let mut chunk = [0; CHUNK];
        loop {
            let most = self.connection.room().min(CHUNK);
            if most == 0 {
                return Ok(());
            }
            match rustix::net::recv(&self.socket, &mut chunk[..most], RecvFlags::empty()) {
                Ok((count, _)) => {
                    self.connection.receive(&chunk[..count]);
                    if count == 0 {
                        return Ok(());
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn write(&mut self) -> Result<(), Errno> {
        while !self.connection.pending().is_empty() {
            match rustix::net::send(&self.socket, self.connection.pending(), SendFlags::NOSIGNAL) {
                Ok(count) => self.connection.sent(count),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// One that does not take its answer is not read from until it does.
    fn listen(&mut self, epoll: &OwnedFd, token: u64) -> Result<(), Errno> {
        let interest = if self.connection.pending().is_empty() {
            EventFlags::IN
        } else {
            EventFlags::OUT
        };
        if interest != self.interest {
            epoll::modify(epoll, &self.socket, EventData::new_u64(token), interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}

fn spare() -> Option<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A server in a directory of its own that answers with the length of the body, and with much for `/much`.
    struct Fixture {
        server: Server,
        directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let server = Server::bind(&directory.path().join("api"), 1000).unwrap();
            Fixture { server, directory }
        }

        fn client(&self) -> UnixStream {
            UnixStream::connect(self.directory.path().join("api")).unwrap()
        }

        /// Serves until there is nothing to do.
        fn serve(&mut self) {
            let mut handle = |request: &Request| match request.path.as_str() {
                "/much" => Response::json(&"x".repeat(1 << 20)),
                _ => Response::json(&request.body.len()),
            };
            let ready = |server: &Server| {
                let mut fds = [rustix::event::PollFd::new(server, rustix::event::PollFlags::IN)];
                let now = rustix::event::Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                rustix::event::poll(&mut fds, Some(&now)).unwrap() == 1
            };
            for _ in 0..1000 {
                if !ready(&self.server) {
                    return;
                }
                self.server.on_event(&mut handle).unwrap();
            }
            panic!("it is never done");
        }

        fn ask(&mut self, client: &mut UnixStream, request: &str) -> String {
            client.write_all(request.as_bytes()).unwrap();
            self.serve();
            let mut answer = vec![0; 4096];
            let count = client.read(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[..count]).into_owned()
        }
    }

    const GET: &str = "GET / HTTP/1.1\r\n\r\n";

    #[test]
    fn the_socket_is_this_users_alone_and_goes_with_the_server() {
        let fixture = Fixture::new();
        let path = fixture.directory.path().join("api");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = Server::bind(&path, 1000).unwrap_err();
        assert_eq!(
            std::error::Error::source(&taken).unwrap().to_string(),
            "Address already in use (os error 98)"
        );
        assert!(path.exists(), "a second server takes nothing from the first");
        drop(fixture.server);
        assert!(!path.exists());
    }

    #[test]
    fn clients_are_answered_again_and_again() {
        let mut fixture = Fixture::new();
        let (mut one, mut two) = (fixture.client(), fixture.client());
        for _ in 0..3 {
            assert!(fixture.ask(&mut one, GET).ends_with("\r\n\r\n0"));
            let put = "PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
            assert!(fixture.ask(&mut two, put).ends_with("\r\n\r\n4"));
        }
        drop(one);
        fixture.serve();
        assert_eq!(fixture.server.clients.len(), 1);
    }

    #[test]
    fn the_client_too_many_is_told_so() {
        let mut fixture = Fixture::new();
        let mut clients: Vec<UnixStream> = (0..CLIENTS_MAX).map(|_| fixture.client()).collect();
        fixture.serve();
        let answer = fixture.ask(&mut fixture.client(), GET);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        clients.pop();
        fixture.serve();
        assert!(
            fixture
                .ask(&mut fixture.client(), GET)
                .starts_with("HTTP/1.1 200 ")
        );
    }

    #[test]
    fn those_who_have_gone_make_room_for_those_who_come() {
        let mut fixture = Fixture::new();
        let mut handle = |_: &Request| Response::json(&0);
        let clients: Vec<UnixStream> = (0..CLIENTS_MAX).map(|_| fixture.client()).collect();
        // Once: the kernel looks at the listener first when it is next asked, as it does not know yet that it is served.
        fixture.server.on_event(&mut handle).unwrap();
        drop(clients);
        let mut client = fixture.client();
        client.write_all(GET.as_bytes()).unwrap();
        fixture.server.on_event(&mut handle).unwrap();
        fixture.serve();
        let mut answer = [0; 13];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 200 ");
    }

    #[test]
    fn a_client_that_does_not_read_waits_alone() {
        let mut fixture = Fixture::new();
        let (mut slow, mut quick) = (fixture.client(), fixture.client());
        let many = "GET /much HTTP/1.1\r\n\r\n".repeat(20);
        slow.write_all(many.as_bytes()).unwrap();
        fixture.serve();
        let held: usize = fixture
            .server
            .clients
            .values()
            .map(|client| client.connection.pending().len())
            .sum();
        assert!(
            (1..2 << 20).contains(&held),
            "one answer at a time is held, not {held} bytes"
        );
        assert!(fixture.ask(&mut quick, GET).starts_with("HTTP/1.1 200 "));
        let mut got = 0;
        slow.set_nonblocking(true).unwrap();
        while got < 20 << 20 {
            let mut buffer = vec![0; 1 << 20];
            match slow.read(&mut buffer) {
                Ok(count) => got += count,
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
            fixture.serve();
        }
    }

    #[test]
    fn a_body_that_is_too_large_gets_its_answer_and_the_end() {
        let mut fixture = Fixture::new();
        let mut client = fixture.client();
        let head = "PUT / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
        let answer = fixture.ask(&mut client, head);
        assert!(answer.contains("larger than the limit of 1000"), "{answer}");
        client.write_all(&[b'x'; 100_000]).unwrap();
        fixture.serve();
        let mut rest = Vec::new();
        assert_eq!(client.read_to_end(&mut rest).unwrap(), 0, "the server has ended");
        drop(client);
        fixture.serve();
        assert!(fixture.server.clients.is_empty());
    }
}
