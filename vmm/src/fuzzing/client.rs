//! A client of the API, without its socket.

use crate::api::{Connection, Request, Response};

/// One client's conversation with the API: these chunks of bytes come from it one after the other, as a socket would bring them, and
/// `serve` answers each request. What the client hears; it reads everything at once.
pub fn converse<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
    body_max: usize,
    mut serve: impl FnMut(Request) -> Response,
) -> Vec<u8> {
    let mut connection = Connection::new(body_max);
    let mut heard = Vec::new();
    for mut chunk in chunks {
        loop {
            while let Some(request) = connection.next() {
                connection.answer(&serve(request));
                hear(&mut connection, &mut heard);
            }
            hear(&mut connection, &mut heard);
            let room = connection.room();
            if chunk.is_empty() || room == 0 {
                break;
            }
            let (now, rest) = chunk.split_at(chunk.len().min(room));
            connection.receive(now);
            chunk = rest;
        }
    }
    heard
}

fn hear(connection: &mut Connection, heard: &mut Vec<u8>) {
    let pending = connection.pending();
    heard.extend_from_slice(pending);
    let count = pending.len();
    connection.sent(count);
}
