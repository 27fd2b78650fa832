//! Why a request got no answer, in the words of whoever refused it.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Deref;

/// A failure of the HTTP client, told by its innermost cause alone: the client's own layers ("error sending request", "client
/// error", "tcp connect error") say nothing to somebody who looks for a registry.
#[derive(Debug)]
pub struct Cause(reqwest::Error);

impl From<reqwest::Error> for Cause {
    /// Leaves out its URL: the query may be a signature, and messages name the URL without it.
    fn from(error: reqwest::Error) -> Self {
        Self(error.without_url())
    }
}

impl Deref for Cause {
    type Target = reqwest::Error;

    fn deref(&self) -> &reqwest::Error {
        &self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut innermost: &(dyn Error + 'static) = &self.0;
        let mut of_name = false;
        while let Some(next) = below(innermost) {
            innermost = next;
            // The resolver's types are the client's affair; its layer has this name.
            of_name |= innermost.to_string() == "dns error";
        }
        let why = innermost.to_string();
        match (of_name, why.contains("no records found")) {
            (true, true) => f.write_str("no address is known of this host"),
            (true, false) => write!(f, "the host's name cannot be resolved: {why}"),
            (false, _) => f.write_str(&why),
        }
    }
}

/// Its text holds all there is to tell.
impl Error for Cause {}

/// The cause of an error. An [`io::Error`]'s `source` is that of the error it holds, so the held one has to be asked for.
pub(super) fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match held {
        Some(held) => Some(held),
        None => error.source(),
    }
}
