//! One client's conversation, without its socket: bytes in, requests out; answers in, bytes out.
//!
//! ```text
//! bytes ─ receive ─► input ─ next ─► Request ─► answer ─► output ─ sent ─► bytes
//!                    bounded          one at a time: none before the last answer is sent
//! ```
//!
//! A client may send many requests at once, and gets the answers in order. One that is not understood gets an answer that
//! says why, and nothing after it.

use super::http::{self, Bad, CONTINUE, HEAD_MAX, Head, Request, Response};

/// Bytes that are still read from a client that was refused, so that it gets to read why: a Unix socket closed with bytes
/// unread makes its peer's next write fail.
const LINGER: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Connection {
    body_max: usize,
    input: Vec<u8>,
    /// The client sends nothing more.
    ended: bool,
    /// Of the request whose body is not all here.
    head: Option<Head>,
    output: Vec<u8>,
    /// Bytes of `output` that the client has.
    sent: usize,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Talking,
    /// The next answer is the last.
    Closing,
    /// The answer in `output` is the last. What the client sends goes nowhere, for so many bytes yet.
    Lingering(usize),
    Over,
}

impl Connection {
    /// Bodies may have `body_max` bytes.
    pub(crate) fn new(body_max: usize) -> Connection {
        Connection {
            body_max,
            input: Vec::new(),
            ended: false,
            head: None,
            output: Vec::new(),
            sent: 0,
            phase: Phase::Talking,
        }
    }

    /// How many bytes it takes now.
    pub(crate) fn room(&self) -> usize {
        match self.phase {
            Phase::Lingering(rest) => rest,
            Phase::Talking | Phase::Closing if !self.ended => HEAD_MAX + self.body_max - self.input.len(),
            _ => 0,
        }
    }

    /// Takes what the client sent, at most [`Connection::room`] bytes; none at its end.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.ended |= bytes.is_empty();
        match self.phase {
            Phase::Lingering(rest) if self.ended || bytes.len() >= rest => self.phase = Phase::Over,
            Phase::Lingering(rest) => self.phase = Phase::Lingering(rest - bytes.len()),
            Phase::Talking | Phase::Closing => self.input.extend_from_slice(bytes),
            Phase::Over => {}
        }
    }

    /// The next request; `None` while one is not all here, or the last answer is not all sent.
    pub(crate) fn next(&mut self) -> Option<Request> {
        if !self.pending().is_empty() || !matches!(self.phase, Phase::Talking) {
            return None;
        }
        match self.complete() {
            Ok(Some(request)) => Some(request),
            Ok(None) => {
                if self.ended {
                    self.phase = Phase::Over;
                }
                None
            }
            Err(bad) => {
                self.phase = Phase::Closing;
                self.answer(&Response::fault(&bad.to_string()));
                None
            }
        }
    }

    fn complete(&mut self) -> Result<Option<Request>, Bad> {
        if self.head.is_none() {
            let Some((head, length)) = http::head(&self.input, self.body_max)? else {
                return Ok(None);
            };
            self.input.drain(..length);
            if head.expects && self.input.len() < head.length {
                self.output.extend_from_slice(CONTINUE);
            }
            self.head = Some(head);
        }
        let Some(head) = self.head.take_if(|head| self.input.len() >= head.length) else {
            return Ok(None);
        };
        if head.last {
            self.phase = Phase::Closing;
        }
        Ok(Some(Request {
            method: head.method,
            path: head.path,
            body: self.input.drain(..head.length).collect(),
        }))
    }

    /// The answer to the last request.
    pub(crate) fn answer(&mut self, response: &Response) {
        let last = matches!(self.phase, Phase::Closing);
        self.output.extend_from_slice(&response.encode(last));
        if last {
            self.input = Vec::new();
            self.phase = if self.ended {
                Phase::Over
            } else {
                Phase::Lingering(LINGER)
            };
        }
    }

    /// What the client is to get.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// So many bytes of that are sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.pending().is_empty() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// Whether all is said and only the client's end is waited for.
    pub(crate) fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering(_)) && self.pending().is_empty()
    }

    /// Whether it can be closed.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over) && self.pending().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY_MAX: usize = 1000;

    /// Sends the chunks as a socket would bring them, answers each request with what it said, and tells all that comes back.
    fn talk(chunks: &[&[u8]]) -> (Vec<Request>, String, bool) {
        let mut connection = Connection::new(BODY_MAX);
        let (mut requests, mut heard) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let mut chunk = *chunk;
            loop {
                assert!(connection.input.len() <= HEAD_MAX + BODY_MAX, "it is bounded");
                while let Some(request) = connection.next() {
                    connection.answer(&Response::json(&request.path));
                    heard.extend_from_slice(connection.pending());
                    connection.sent(connection.pending().len());
                    requests.push(request);
                }
                heard.extend_from_slice(connection.pending());
                connection.sent(connection.pending().len());
                if chunk.is_empty() || connection.room() == 0 {
                    break;
                }
                let (now, rest) = chunk.split_at(chunk.len().min(connection.room()));
                connection.receive(now);
                chunk = rest;
            }
        }
        (
            requests,
            String::from_utf8(heard).unwrap(),
            connection.is_lingering(),
        )
    }

    const TALK: &str = "PUT /a HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhelloGET /b HTTP/1.1\r\n\r\n\
        PATCH /c HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}GET /unheard HTTP/1.1\r\n\r\n";

    #[test]
    fn requests_sent_at_once_are_answered_in_order() {
        let (requests, heard, lingers) = talk(&[TALK.as_bytes()]);
        let paths: Vec<_> = requests.iter().map(|r| r.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/b", "/c"]);
        assert_eq!(
            (&*requests[0].body, &*requests[2].body),
            (&b"hello"[..], &b"{}"[..])
        );
        assert_eq!(heard.matches("200 OK").count(), 3);
        assert!(lingers, "what comes after close is not heard");
    }

    #[test]
    fn a_client_that_waits_is_told_to_go_on() {
        let head = "PUT /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        let (requests, heard, _) = talk(&[head.as_bytes()]);
        assert!(requests.is_empty());
        assert_eq!(heard.as_bytes(), CONTINUE);
        let (requests, ..) = talk(&[head.as_bytes(), b"{}"]);
        assert_eq!(requests.len(), 1);
    }

    #[test]
    fn nothing_is_heard_after_nonsense() {
        let (requests, heard, lingers) =
            talk(&[b"GET /a HTTP/1.1\r\n\r\n\0\r\n", b"GET /b HTTP/1.1\r\n\r\n"]);
        assert_eq!(requests.len(), 1);
        assert!(
            heard.contains("400 Bad Request") && heard.contains("fault_message"),
            "{heard}"
        );
        assert!(lingers);
    }

    #[test]
    fn an_answer_that_is_not_taken_holds_the_next_request_back() {
        let mut connection = Connection::new(BODY_MAX);
        connection.receive(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n");
        assert!(connection.next().is_some());
        connection.answer(&Response::done());
        connection.sent(1);
        assert!(connection.next().is_none());
        connection.sent(connection.pending().len());
        assert_eq!(connection.next().unwrap().path, "/b");
    }

    #[test]
    fn a_client_that_only_talks_is_not_listened_to_without_end() {
        let mut connection = Connection::new(BODY_MAX);
        connection.receive(b"GET /a HTTP/1.1\r\n\r\n");
        assert!(connection.next().is_some());
        connection.answer(&Response::done());
        let mut taken = 0;
        while connection.room() > 0 {
            let some = connection.room().min(95);
            connection.receive(&b"GET /a HTTP/1.1\r\n\r\n".repeat(5)[..some]);
            assert!(connection.next().is_none());
            taken += some;
            assert!(taken <= HEAD_MAX + BODY_MAX);
        }
    }

    #[test]
    fn a_client_that_ends_still_gets_its_answers() {
        let mut connection = Connection::new(BODY_MAX);
        connection.receive(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /ha");
        connection.receive(b"");
        for path in ["/a", "/b"] {
            assert_eq!(connection.next().unwrap().path, path);
            connection.answer(&Response::done());
            assert!(!connection.is_over());
            connection.sent(connection.pending().len());
        }
        assert!(connection.next().is_none());
        assert!(connection.is_over());
    }

    #[test]
    fn lingering_has_an_end() {
        let mut connection = Connection::new(BODY_MAX);
        connection.receive(b"\0");
        assert!(connection.next().is_none());
        connection.sent(connection.pending().len());
        assert!(connection.is_lingering() && !connection.is_over());
        connection.receive(&vec![0; LINGER]);
        assert!(connection.is_over());
    }

    proptest! {
        #[test]
        fn how_it_is_cut_makes_no_difference(cuts in proptest::collection::vec(0..TALK.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(TALK.len());
            let mut from = 0;
            let chunks: Vec<&[u8]> = cuts.iter().map(|to| &TALK.as_bytes()[std::mem::replace(&mut from, *to)..*to]).collect();
            let (requests, ..) = talk(&chunks);
            prop_assert_eq!(requests, talk(&[TALK.as_bytes()]).0);
        }

        #[test]
        fn any_bytes_are_an_answer_or_a_wait(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            talk(&[&bytes]);
        }

        #[test]
        fn near_misses_do_not_trip_it(at in 0..TALK.len(), byte: u8, cut in 0..TALK.len()) {
            let mut bytes = TALK.as_bytes().to_vec();
            bytes[at] = byte;
            let (first, second) = bytes.split_at(cut);
            let (requests, ..) = talk(&[first, second]);
            prop_assert!(requests.iter().all(|request| request.body.len() <= BODY_MAX));
        }
    }
}
