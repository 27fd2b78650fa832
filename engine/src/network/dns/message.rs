//! The little of RFC 1035 and RFC 6891 a forwarding name server needs: the header, one question, answers of two types,
//! where records end.
//!
//! Everything here reads bytes that containers or the network sent: no index is taken unchecked, nothing panics. No
//! compression pointer is ever followed: a question's name has nothing before it to point to, and of other records only
//! the end is of interest, which a pointer marks wherever it leads.

use std::net::Ipv4Addr;

/// Type A (RFC 1035 §3.2.2).
pub(super) const A: u16 = 1;
/// Type PTR.
pub(super) const PTR: u16 = 12;
/// Class IN.
pub(super) const IN: u16 = 1;
/// Pseudo type OPT (RFC 6891 §6.1.1).
const OPT: u16 = 41;

/// The longest message there is.
pub(super) const MESSAGE_MAX: usize = 65_535;
/// The longest UDP message of who did not announce more (RFC 1035 §2.3.4).
const PLAIN_MAX: usize = 512;
/// The longest name in a message (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;
const HEADER: usize = 12;
/// Seconds an answer of ours may be kept: containers come and go.
const TTL: u32 = 5;
/// What of UDP we take, as told to who asks with EDNS. Loopback has room for every question there is.
const OUR_SIZE: u16 = 4096;
/// Length of an OPT record without options.
const OPT_LENGTH: usize = 11;

/// Truncated (RFC 1035 §4.1.1), in the third byte.
const TC: u8 = 0x02;

/// Response codes (RFC 1035 §4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NotImp = 4,
}

/// A query with its one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) id: u16,
    /// Lower case, labels joined by dots, without the last dot. Labels that are not printable ASCII make it empty.
    pub(super) name: String,
    pub(super) kind: u16,
    pub(super) class: u16,
    /// Where the question ends in the message.
    question_end: usize,
    is_recursion_desired: bool,
    edns: Option<Edns>,
}

/// What the asker says of itself in an OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edns {
    /// The longest UDP message it takes.
    size: u16,
    /// To be repeated in the answer (RFC 3225 §3).
    is_dnssec_ok: bool,
}

impl Query {
    /// How long an answer may be, in bytes.
    pub(super) fn room(&self, is_tcp: bool) -> usize {
        if is_tcp {
            return MESSAGE_MAX;
        }
        // A smaller size than plain DNS allows is to be read as that (RFC 6891 §6.2.3).
        self.edns
            .map_or(PLAIN_MAX, |edns| usize::from(edns.size).max(PLAIN_MAX))
    }
}

/// Why a message is not a query we can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not even a header, or a response: answering could start a loop.
    Silent,
    /// The answer that says what is wrong with it.
    Answer(Vec<u8>),
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

/// Reads a query.
pub(super) fn query(message: &[u8]) -> Result<Query, Refused> {
    let id = word(message, 0).ok_or(Refused::Silent)?;
    let flags = word(message, 2).ok_or(Refused::Silent)?;
    if message.len() < HEADER || flags & 0x8000 != 0 {
        return Err(Refused::Silent);
    }
    // A header alone: what follows is not understood, so it is not repeated.
    let refused = |code: Code| {
        let [high, _] = flags.to_be_bytes();
        let mut answer = vec![0; HEADER];
        answer[..2].copy_from_slice(&id.to_be_bytes());
        answer[2] = 0x80 | (high & 0x79);
        answer[3] = 0x80 | code as u8;
        Refused::Answer(answer)
    };
    if flags & 0x7800 != 0 {
        return Err(refused(Code::NotImp));
    }
    // More or less than one question is malformed (RFC 9619).
    if word(message, 4) != Some(1) {
        return Err(refused(Code::FormErr));
    }
    let question = || {
        let (name, at) = name(message, HEADER)?;
        Some((name, word(message, at)?, word(message, at + 2)?, at + 4))
    };
    let (name, kind, class, question_end) = question().ok_or_else(|| refused(Code::FormErr))?;
    Ok(Query {
        id,
        name,
        kind,
        class,
        question_end,
        is_recursion_desired: flags & 0x0100 != 0,
        edns: edns(message, question_end),
    })
}

/// The uncompressed name at `at` and where it ends.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut is_plain = true;
    let start = at;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // The two high bits are a pointer's, or reserved.
        if length > 63 || at + length - start >= NAME_MAX {
            return None;
        }
        let label = message.get(at..at + length)?;
        is_plain &= label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += length;
    }
    Some((if is_plain { text } else { String::new() }, at))
}

/// Where the record at `at` has its type, and where it ends.
fn record_at(message: &[u8], mut at: usize) -> Option<(usize, usize)> {
    loop {
        let length = *message.get(at)?;
        match length {
            0 => break at += 1,
            1..=63 => at += 1 + usize::from(length),
            // A pointer is the last of a name.
            0xc0.. => break at += 2,
            _ => return None,
        }
    }
    let end = at + 10 + usize::from(word(message, at + 8)?);
    (end <= message.len()).then_some((at, end))
}

/// What the OPT record says; it is one of those after the question. Records that do not parse are for who answers to mind.
fn edns(message: &[u8], question_end: usize) -> Option<Edns> {
    let mut at = question_end;
    let counts = [6, 8, 10].map(|place| word(message, place).unwrap_or(0));
    for _ in 0..counts.iter().map(|count| u32::from(*count)).sum::<u32>() {
        let (fixed, end) = record_at(message, at)?;
        if word(message, fixed) == Some(OPT) {
            return Some(Edns {
                size: word(message, fixed + 2)?,
                is_dnssec_ok: word(message, fixed + 6)? & 0x8000 != 0,
            });
        }
        at = end;
    }
    None
}

/// An answer of ours while it grows.
struct Answer {
    bytes: Vec<u8>,
    records: u16,
    /// What is left for records, the OPT record already taken off.
    room: usize,
    edns: Option<Edns>,
}

impl Answer {
    /// Header and question of the answer to `query`, which is `message`.
    fn new(message: &[u8], query: &Query, code: Code, room: usize) -> Self {
        let mut bytes = Vec::with_capacity(PLAIN_MAX);
        bytes.extend_from_slice(&query.id.to_be_bytes());
        // QR, and RD as it was asked; RA, for we do recurse, by others.
        bytes.push(0x80 | u8::from(query.is_recursion_desired));
        bytes.push(0x80 | code as u8);
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(message.get(HEADER..query.question_end).unwrap_or_default());
        let edns = query.edns;
        let taken = bytes.len() + edns.map_or(0, |_| OPT_LENGTH);
        Self {
            bytes,
            records: 0,
            room: room.saturating_sub(taken),
            edns,
        }
    }

    /// Adds a record of the question's name; if there is no room for it the answer is marked truncated instead.
    fn push(&mut self, kind: u16, data: &[u8]) -> bool {
        let mut record = Vec::with_capacity(12 + data.len());
        // A pointer to the question's name.
        record.extend_from_slice(&[0xc0, 0x0c]);
        record.extend_from_slice(&kind.to_be_bytes());
        record.extend_from_slice(&IN.to_be_bytes());
        record.extend_from_slice(&TTL.to_be_bytes());
        record.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        record.extend_from_slice(data);
        self.append(&record)
    }

    fn append(&mut self, record: &[u8]) -> bool {
        if record.len() > self.room {
            self.bytes[2] |= TC;
            return false;
        }
        self.bytes.extend_from_slice(record);
        self.room -= record.len();
        self.records += 1;
        true
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[6..8].copy_from_slice(&self.records.to_be_bytes());
        // Who asks with EDNS is answered with it (RFC 6891 §6.1.1).
        if let Some(edns) = self.edns {
            self.bytes[11] = 1;
            self.bytes.push(0);
            let flags = if edns.is_dnssec_ok { 0x8000 } else { 0 };
            for word in [OPT, OUR_SIZE, 0, flags, 0] {
                self.bytes.extend_from_slice(&u16::to_be_bytes(word));
            }
        }
        self.bytes
    }
}

/// An answer of ours without records.
pub(super) fn empty(message: &[u8], query: &Query, code: Code) -> Vec<u8> {
    Answer::new(message, query, code, PLAIN_MAX).finish()
}

/// The answer with these addresses, as many as there is `room` for; who comes first turns with the query's id.
pub(super) fn addresses(message: &[u8], query: &Query, addresses: &[Ipv4Addr], room: usize) -> Vec<u8> {
    let mut answer = Answer::new(message, query, Code::NoError, room);
    let first = usize::from(query.id).checked_rem(addresses.len()).unwrap_or(0);
    let (after, before) = addresses.split_at(first);
    before
        .iter()
        .chain(after)
        .all(|address| answer.push(A, &address.octets()));
    answer.finish()
}

/// The answer that an address belongs to `name`, which must be a valid name.
pub(super) fn pointer(message: &[u8], query: &Query, name: &str) -> Vec<u8> {
    let mut data = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let Ok(length @ 1..=63) = u8::try_from(label.len()) else {
            return empty(message, query, Code::ServFail);
        };
        data.push(length);
        data.extend_from_slice(label.as_bytes());
    }
    data.push(0);
    let mut answer = Answer::new(message, query, Code::NoError, PLAIN_MAX);
    answer.push(PTR, &data);
    answer.finish()
}

/// `d.c.b.a.in-addr.arpa` as an address.
pub(super) fn reverse(name: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut labels = name.strip_suffix(".in-addr.arpa")?.split('.');
    for octet in octets.iter_mut().rev() {
        *octet = labels.next()?.parse().ok()?;
    }
    labels.next().is_none().then(|| octets.into())
}

/// Does `reply` answer `query`, which is `message`, as it was sent under `id`? The id, that it is a response, and the
/// question itself.
pub(super) fn is_reply_to(reply: &[u8], query: &Query, message: &[u8], id: u16) -> bool {
    word(reply, 0) == Some(id)
        && word(reply, 2).is_some_and(|flags| flags & 0x8000 != 0)
        && word(reply, 4) == Some(1)
        && match (
            reply.get(HEADER..query.question_end),
            message.get(HEADER..query.question_end),
        ) {
            (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
            _ => false,
        }
}

/// Is this a reply after which another server should be asked: SERVFAIL, NOTIMP, REFUSED? As the C library has it.
pub(super) fn is_refusal(reply: &[u8]) -> bool {
    reply.get(3).is_some_and(|byte| matches!(byte & 0x0f, 2 | 4 | 5))
}

/// A reply to `query` that has no more than `room` bytes: what there is no room for is cut off, record by record, and the
/// reply is marked truncated.
pub(super) fn fit(reply: Vec<u8>, query: &Query, room: usize) -> Vec<u8> {
    if reply.len() <= room {
        return reply;
    }
    let mut cut = Answer::new(&reply, query, Code::NoError, room);
    cut.bytes[..4].copy_from_slice(&reply[..4]);
    cut.bytes[2] |= TC;
    let mut at = query.question_end;
    for _ in 0..word(&reply, 6).unwrap_or(0) {
        // Pointers lead back, to what is kept.
        match record_at(&reply, at) {
            Some((_, end)) if cut.append(&reply[at..end]) => at = end,
            _ => break,
        }
    }
    cut.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Message, Metadata};
    use proptest::prelude::*;

    /// A query as a resolver sends it.
    fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).expect("labels of tests are short"));
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&IN.to_be_bytes());
        message
    }

    fn refusal(message: &[u8]) -> u8 {
        match query(message) {
            Err(Refused::Answer(answer)) => answer[3] & 0x0f,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_query_is_read_and_answered() {
        let message = ask("Web.Example", A);
        let query = query(&message).expect("it is a query");
        assert_eq!(
            (query.id, query.name.as_str(), query.kind),
            (0x1234, "web.example", A)
        );
        let answer = addresses(&message, &query, &[[10, 0, 0, 2].into()], 512);
        assert_eq!(&answer[..8], &[0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert!(answer.ends_with(&[0, 4, 10, 0, 0, 2]));
        assert!(is_reply_to(&answer, &query, &message, 0x1234));
        assert!(!is_reply_to(&answer, &query, &message, 0x1235), "another id");
        assert!(
            !is_reply_to(&message, &query, &message, 0x1234),
            "a query is no reply"
        );
        let other = ask("web.examplf", A);
        assert!(!is_reply_to(&answer, &query, &other, 0x1234), "another question");
    }

    #[test]
    fn what_is_no_query_gets_no_answer_or_a_bare_one() {
        let mut response = ask("a", A);
        response[2] |= 0x80;
        assert_eq!(query(&response), Err(Refused::Silent));
        assert_eq!(query(&[1, 2, 3]), Err(Refused::Silent));
        let mut pointer = ask("a", A);
        pointer[12] = 0xc0;
        assert_eq!(refusal(&pointer), 1);
        let mut update = ask("a", A);
        update[2] |= 5 << 3;
        assert_eq!(refusal(&update), 4);
    }

    #[test]
    fn a_name_has_255_bytes_at_most() {
        let label = "x".repeat(61);
        // Three labels of 62 bytes, one of `last` and its length, the end.
        let with = |last: usize| ask(&format!("{label}.{label}.{label}.{}", "x".repeat(last)), A);
        assert!(query(&with(61)).is_ok());
        let long = |last: usize| ask(&format!("{label}.{label}.{label}.y.{}", "x".repeat(last)), A);
        assert!(query(&long(63)).is_ok(), "3 * 62 + 2 + 64 + 1 = 253");
        let longest = ask(&format!("{label}.{label}.{label}.yyy.{}", "x".repeat(63)), A);
        assert!(query(&longest).is_ok(), "255");
        let over = ask(&format!("{label}.{label}.{label}.yyyy.{}", "x".repeat(63)), A);
        assert_eq!(refusal(&over), 1, "256");
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse("4.3.2.1.in-addr.arpa"), Some([1, 2, 3, 4].into()));
        for bad in [
            "3.2.1.in-addr.arpa",
            "5.4.3.2.1.in-addr.arpa",
            "256.3.2.1.in-addr.arpa",
            "in-addr.arpa",
        ] {
            assert_eq!(reverse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_is_marked() {
        let message = ask("many", A);
        let query = query(&message).expect("it is a query");
        let all: Vec<Ipv4Addr> = (0..200).map(|n| [10, 0, 0, n].into()).collect();
        for (room, count) in [(512, 30), (1232, 75), (65_535, 200)] {
            let answer = addresses(&message, &query, &all, room);
            assert!(answer.len() <= room);
            assert_eq!(word(&answer, 6), Some(count), "{room}");
            assert_eq!(answer[2] & TC != 0, count < 200, "{room}");
        }
        let whole = addresses(&message, &query, &all, MESSAGE_MAX);
        let cut = fit(whole.clone(), &query, 512);
        assert_eq!((word(&cut, 6), cut[2] & TC), (Some(30), TC));
        assert_eq!(fit(whole.clone(), &query, whole.len()), whole);
    }

    proptest! {
        #[test]
        fn nothing_panics_on_foreign_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..600), reply in prop::collection::vec(any::<u8>(), 12..2000), id: u16,
            is_query: bool,
        ) {
            is_refusal(&bytes);
            // What is random from the start is next to never a query.
            let bytes = if is_query { [ask("web", A), bytes].concat() } else { bytes };
            if let Ok(query) = query(&bytes) {
                prop_assert!(query.question_end <= bytes.len());
                addresses(&bytes, &query, &[[10, 0, 0, 1].into()], query.room(false));
                empty(&bytes, &query, Code::ServFail);
                is_reply_to(&bytes, &query, &bytes, id);
                prop_assert!(fit(reply, &query, 512).len() <= 512);
            }
        }

        /// Against a reader of the same format that is not ours.
        #[test]
        fn what_we_read_and_write_is_what_others_do(
            changes in prop::collection::vec((12usize..60, any::<u8>()), 0..3), cut in 0usize..8, size: u16, count in 0usize..200,
            kind in prop_oneof![Just(A), Just(PTR)],
        ) {
            let mut message = ask("name.of.a.container", kind);
            message[11] = 1;
            message.extend_from_slice(&[0, 0, 41]);
            message.extend_from_slice(&size.to_be_bytes());
            message.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
            for (at, byte) in changes {
                if let Some(place) = message.get_mut(at) { *place = byte; }
            }
            message.truncate(message.len() - cut);
            let theirs = Message::from_vec(&message);
            let Ok(query) = query(&message) else {
                // We are stricter in one thing: a question's name has no pointers.
                prop_assert!(theirs.is_err() || message[12..].contains(&0xc0) || message[12..].iter().any(|b| *b > 0xc0));
                return Ok(());
            };
            if let Ok(theirs) = theirs {
                let question = &theirs.queries[0];
                prop_assert_eq!(u16::from(question.query_type), query.kind);
                let labels: Vec<&[u8]> = question.name.iter().collect();
                let name = labels.join(&b'.').to_ascii_lowercase();
                prop_assert!(query.name.is_empty() || name == query.name.as_bytes(), "{name:?} {}", query.name);
                if let Some(edns) = &theirs.edns {
                    prop_assert_eq!(query.room(false), usize::from(edns.max_payload().max(512)));
                }
            }
            let all: Vec<Ipv4Addr> = (0..count).map(|n| Ipv4Addr::from(u32::try_from(n).unwrap())).collect();
            for answer in [
                addresses(&message, &query, &all, query.room(false)),
                pointer(&message, &query, "web.example"),
                empty(&message, &query, Code::ServFail),
                fit(addresses(&message, &query, &all, MESSAGE_MAX), &query, 512),
            ] {
                prop_assert!(answer.len() <= query.room(false));
                prop_assert!(is_reply_to(&answer, &query, &message, query.id));
                // They refuse names and types of questions we only repeat.
                if Message::from_vec(&message).is_ok() {
                    let read = Message::from_vec(&answer).unwrap();
                    let Metadata { id, truncation, .. } = read.metadata;
                    prop_assert_eq!(id, query.id);
                    prop_assert_eq!(read.edns.is_some(), query.edns.is_some());
                    prop_assert!(read.answers.len() == count || truncation || read.answers.len() <= 1);
                }
            }
        }
    }
}
