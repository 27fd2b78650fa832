//! Pulls and pushes as a person sees them: a bar per layer on a terminal, a line per step otherwise. On stderr.

use std::collections::HashMap;
use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};

use berth_images::Digest;
use berth_images::progress::{Event, Progress, Quiet};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::printer;

/// What fits the terminal and `--quiet`.
pub fn choose(quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Quiet)
    } else if stderr().is_terminal() {
        Box::new(Bars::default())
    } else {
        Box::new(Lines::default())
    }
}

fn short(digest: &Digest) -> String {
    let text = digest.to_string();
    text.split(':')
        .next_back()
        .unwrap_or_default()
        .chars()
        .take(12)
        .collect()
}

fn word(event: Event<'_>) -> String {
    match event {
        Event::Exists => "Already exists".to_owned(),
        Event::Waiting => "Waiting for another berth".to_owned(),
        Event::Transferred { .. } => "Transferring".to_owned(),
        Event::Retrying { wait, cause } => {
            format!("Retrying in {} s: {}", wait.as_secs(), printer::harmless(cause))
        }
        Event::Verified => "Verified".to_owned(),
        Event::Mounted => "Mounted from another repository".to_owned(),
        Event::Done => "Complete".to_owned(),
    }
}

/// One bar a blob.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Progress for Bars {
    fn layer(&self, digest: &Digest, event: Event<'_>) {
        let name = short(digest);
        // A panic elsewhere leaves at worst a bar that stands still.
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(name.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix}: {msg:12} [{bar:30}] {bytes}/{total_bytes}");
            // Of no bytes all would be there.
            let bar = self.all.add(ProgressBar::no_length());
            bar.set_style(
                style
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    .progress_chars("=> "),
            );
            bar.set_prefix(name);
            bar
        });
        match event {
            Event::Transferred { done, total } => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message("Transferring");
            }
            Event::Done | Event::Exists | Event::Mounted => {
                if let Ok(style) = ProgressStyle::with_template("{prefix}: {msg}") {
                    bar.set_style(style);
                }
                bar.finish_with_message(word(event));
            }
            other => bar.set_message(word(other)),
        }
    }

    fn message(&self, line: &str) {
        // A terminal that went away is no reason to stop.
        let _ = self.all.println(printer::harmless(line));
    }
}

/// One line a change of state.
#[derive(Default)]
struct Lines {
    begun: Mutex<std::collections::HashSet<String>>,
}

impl Progress for Lines {
    fn layer(&self, digest: &Digest, event: Event<'_>) {
        let name = short(digest);
        if matches!(event, Event::Transferred { .. })
            && !self
                .begun
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name.clone())
        {
            return;
        }
        printer::prompt(&format!("{name}: {}\n", word(event)));
    }

    fn message(&self, line: &str) {
        printer::prompt(&format!("{}\n", printer::harmless(line)));
    }
}
