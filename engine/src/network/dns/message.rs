//! The little of RFC 1035 a forwarding name server needs: the header, one question, answers of two types.
//!
//! Everything here reads bytes that containers or the network sent: no index is taken unchecked, nothing panics, and a
//! compressed name ends because each pointer must lead further back.

use std::net::Ipv4Addr;

/// Type A (RFC 1035 §3.2.2).
pub(super) const A: u16 = 1;
/// Type PTR.
pub(super) const PTR: u16 = 12;
/// Class IN.
pub(super) const IN: u16 = 1;

/// The longest UDP message of who did not announce more (RFC 1035 §2.3.4).
const PLAIN_MAX: usize = 512;
const HEADER: usize = 12;
/// Seconds an answer of ours may be kept: containers come and go.
const TTL: u32 = 5;

/// Response codes (RFC 1035 §4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
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
}

/// Why a message is not a query we can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not even a header, or a response: answering could start a loop.
    Silent,
    /// A query with this id whose question does not parse.
    Malformed(u16),
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
    let malformed = Refused::Malformed(id);
    // One question and an ordinary query: no resolver in use sends anything else.
    if flags & 0x7800 != 0 || word(message, 4) != Some(1) {
        return Err(malformed);
    }
    let (name, at) = name(message, HEADER).ok_or(malformed)?;
    let kind = word(message, at).ok_or(malformed)?;
    let class = word(message, at + 2).ok_or(malformed)?;
    Ok(Query {
        id,
        name,
        kind,
        class,
        question_end: at + 4,
        is_recursion_desired: flags & 0x0100 != 0,
    })
}

/// The uncompressed name at `at` and where it ends. A question's name has nothing before it to point to.
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
        if length > 63 || at - start > 255 {
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

/// An answer of ours without records.
pub(super) fn empty(message: &[u8], query: &Query, code: Code) -> Vec<u8> {
    answer(message, query, code, 0)
}

/// The answer to a message whose question does not parse: a header alone.
pub(super) fn malformed(id: u16) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&id.to_be_bytes());
    answer[2] = 0x80;
    answer[3] = Code::FormErr as u8;
    answer
}

fn answer(message: &[u8], query: &Query, code: Code, records: u16) -> Vec<u8> {
    let mut answer = Vec::with_capacity(PLAIN_MAX);
    answer.extend_from_slice(&query.id.to_be_bytes());
    // QR, and RD as it was asked; RA, for we do recurse, by others.
    answer.push(0x80 | u8::from(query.is_recursion_desired));
    answer.push(0x80 | code as u8);
    for count in [1, records, 0, 0] {
        answer.extend_from_slice(&count.to_be_bytes());
    }
    answer.extend_from_slice(message.get(HEADER..query.question_end).unwrap_or_default());
    answer
}

fn record(answer: &mut Vec<u8>, kind: u16, data: &[u8]) {
    // A pointer to the question's name.
    answer.extend_from_slice(&[0xc0, 0x0c]);
    answer.extend_from_slice(&kind.to_be_bytes());
    answer.extend_from_slice(&IN.to_be_bytes());
    answer.extend_from_slice(&TTL.to_be_bytes());
    answer.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    answer.extend_from_slice(data);
}

/// The answer with these addresses, as many as fit everywhere; who comes first turns with the query's id.
pub(super) fn addresses(message: &[u8], query: &Query, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let room = PLAIN_MAX.saturating_sub(query.question_end) / 16;
    let count = addresses.len().min(room);
    let mut answer = answer(message, query, Code::NoError, u16::try_from(count).unwrap_or(0));
    let first = usize::from(query.id).checked_rem(addresses.len()).unwrap_or(0);
    for address in addresses.iter().cycle().skip(first).take(count) {
        record(&mut answer, A, &address.octets());
    }
    answer
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
    let mut answer = answer(message, query, Code::NoError, 1);
    record(&mut answer, PTR, &data);
    answer
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

/// Does `reply` answer `query` as it was sent under `id`? The id, that it is a response, and the question itself.
pub(super) fn is_reply_to(reply: &[u8], query: &Query, sent: &[u8], id: u16) -> bool {
    word(reply, 0) == Some(id)
        && word(reply, 2).is_some_and(|flags| flags & 0x8000 != 0)
        && word(reply, 4) == Some(1)
        && match (
            reply.get(HEADER..query.question_end),
            sent.get(HEADER..query.question_end),
        ) {
            (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn a_query_is_read_and_answered() {
        let message = ask("Web.Example", A);
        let query = query(&message).expect("it is a query");
        assert_eq!(
            (query.id, query.name.as_str(), query.kind),
            (0x1234, "web.example", A)
        );
        let answer = addresses(&message, &query, &[[10, 0, 0, 2].into()]);
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
        assert_eq!(query(&pointer), Err(Refused::Malformed(0x1234)));
        let mut update = ask("a", A);
        update[2] |= 5 << 3;
        assert_eq!(query(&update), Err(Refused::Malformed(0x1234)));
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
    fn as_many_addresses_as_fit() {
        let message = ask("many", A);
        let query = query(&message).expect("it is a query");
        let all: Vec<Ipv4Addr> = (0..200).map(|n| [10, 0, 0, n].into()).collect();
        assert!(addresses(&message, &query, &all).len() <= PLAIN_MAX);
    }

    proptest! {
        #[test]
        fn nothing_panics_on_foreign_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600), id: u16) {
            if let Ok(query) = query(&bytes) {
                prop_assert!(query.question_end <= bytes.len());
                addresses(&bytes, &query, &[[10, 0, 0, 1].into()]);
                empty(&bytes, &query, Code::ServFail);
                is_reply_to(&bytes, &query, &bytes, id);
            }
        }

        #[test]
        fn nothing_panics_on_damaged_queries(at in 0usize..40, byte: u8, cut in 0usize..40) {
            let mut message = ask("name.of.a.container", PTR);
            if let Some(place) = message.get_mut(at) { *place = byte; }
            message.truncate(message.len().saturating_sub(cut));
            if let Ok(query) = query(&message) {
                pointer(&message, &query, "web");
            }
        }
    }
}
