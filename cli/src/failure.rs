//! What a verb returns when it fails, and the one place that prints it.

use std::error::Error;
use std::fmt;

use crate::exit::Exit;
use crate::printer;

/// A failed verb.
#[derive(Debug)]
pub struct Failure {
    /// Outermost sentence first. Empty: everything has been said.
    messages: Vec<String>,
    hints: Vec<String>,
    exit: Exit,
}

/// Shorthand for verbs.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure of the command line's own.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure {
            messages: vec![message.into()],
            hints: Vec::new(),
            exit: Exit::Failure,
        }
    }

    /// A flag or combination berth does not have.
    pub fn unsupported(what: &str, reason: &str) -> Failure {
        Failure::new(format!("{what} is not supported: {reason}")).with_exit(Exit::Berth)
    }

    /// Ends with `exit` and says nothing more.
    pub fn silent(exit: Exit) -> Failure {
        Failure {
            messages: Vec::new(),
            hints: Vec::new(),
            exit,
        }
    }

    /// The same, ending with another code.
    pub fn with_exit(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }

    /// The same with a `hint:` line.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    /// The same, saying first what was attempted on what, unless it names that object already.
    pub fn during(mut self, operation: &str, object: impl fmt::Display) -> Failure {
        let object = object.to_string();
        if !self.messages.is_empty() && !self.messages.iter().any(|said| said.contains(&object)) {
            self.messages.insert(0, format!("{operation} {object}"));
        }
        self
    }

    /// The same, saying first what was attempted.
    pub fn within(mut self, attempt: &str) -> Failure {
        if !self.messages.is_empty() {
            self.messages.insert(0, attempt.to_owned());
        }
        self
    }

    /// Prints it and says how to end.
    pub fn report(&self) -> Exit {
        if !self.messages.is_empty() {
            printer::error(&self.to_string());
            for hint in &self.hints {
                printer::hint(hint);
            }
        }
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.messages.join(": "))
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut messages = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            let message = error.to_string();
            // Some crates repeat their source in their own text.
            if !messages.iter().any(|said| said.ends_with(&message)) {
                messages.push(message);
            }
            source = error.source();
        }
        Failure {
            messages,
            hints: berth_engine::hint::hint(&error).into_iter().collect(),
            exit: exit(&error),
        }
    }
}

fn exit(error: &(dyn Error + 'static)) -> Exit {
    match error.downcast_ref() {
        // As a shell tells it of a process that did not catch the signal.
        Some(berth_images::Error::Interrupted(signal)) => Exit::Code(u8::try_from(128 + signal).unwrap_or(1)),
        _ => Exit::Failure,
    }
}
