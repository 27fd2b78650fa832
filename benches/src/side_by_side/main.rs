//! Runs several commands in turn, round after round, and prints the median time, processor time (user and system, of the
//! command and what it waited for) and peak memory of each and the ratio of each to the first: what `scripts/bench` and
//! `scripts/bench-vm` build their tables from. On a busy machine the processor time says more than the time.
//!
//! Usage: `side-by-side [--first-output] ROUNDS [KEY:NAME=VALUE…] NAME=COMMAND…`. Each COMMAND is split at blanks, without a shell, and
//! run with its output discarded. What a NAME can be told besides its command:
//!
//! * `before:NAME=COMMAND` runs before each of its runs and is not timed;
//! * `status:NAME=NUMBER` is the exit status that means success;
//! * `put:NAME=SOCKET PATH BODY` is a request to the HTTP server that the command is, sent as soon as it listens.
//!
//! With `--first-output` the ratio is of the time until the command writes something, and the time until its end stands beside it.
//!
//! A command that fails stops the benchmark: a figure of a failing run means nothing.
//! Commands take turns within a round, so that a slow spell of the machine falls on all of them alike, and in another
//! order each round: who comes after a light neighbour finds warmer caches.

mod run;
mod table;

use std::process::ExitCode;

use run::{Contestant, Put, Run};

const USAGE: &str = "usage: side-by-side [--first-output] ROUNDS [KEY:NAME=VALUE...] NAME=COMMAND...";

fn main() -> ExitCode {
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("side-by-side: {message}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1).peekable();
    let to_output = arguments.next_if(|word| word == "--first-output").is_some();
    let rounds: usize = arguments.next().and_then(|word| word.parse().ok()).ok_or(USAGE)?;
    let contestants = contestants(arguments)?;

    let mut runs: Vec<Vec<Run>> = contestants.iter().map(|_| Vec::with_capacity(rounds)).collect();
    let mut order: Vec<usize> = (0..contestants.len()).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15;
    // One round to warm caches, not counted.
    for round in 0..=rounds {
        shuffle(&mut order, &mut random);
        for index in &order {
            let run = contestants[*index].run(to_output)?;
            if round > 0 {
                runs[*index].push(run);
            }
        }
    }
    let names = contestants.iter().map(|contestant| contestant.name.as_str());
    table::print(&names.zip(&runs).collect::<Vec<_>>(), to_output);
    Ok(())
}

fn contestants(arguments: impl Iterator<Item = String>) -> Result<Vec<Contestant>, String> {
    let mut contestants: Vec<Contestant> = Vec::new();
    for argument in arguments {
        let (name, value) = argument.split_once('=').ok_or(USAGE)?;
        let mut words = value.split_whitespace().map(str::to_owned);
        let (key, name) = name.split_once(':').unwrap_or(("", name));
        let known = contestants.iter().position(|one| one.name == name);
        let index = known.unwrap_or_else(|| {
            contestants.push(Contestant::named(name));
            contestants.len() - 1
        });
        let next = &mut contestants[index];
        match key {
            "" => next.words = words.collect(),
            "before" => next.before = words.collect(),
            "status" => next.status = value.parse().map_err(|e| format!("{argument}: {e}"))?,
            "put" => {
                let mut word = || words.next().ok_or(USAGE);
                next.put = Some(Put {
                    socket: word()?.into(),
                    path: word()?,
                    body: words.collect(),
                });
            }
            _ => return Err(USAGE.into()),
        }
    }
    if contestants.iter().any(|contestant| contestant.words.is_empty()) || contestants.is_empty() {
        return Err(USAGE.into());
    }
    Ok(contestants)
}

/// Fisher and Yates, with xorshift: the same orders in each run of the benchmark.
fn shuffle(order: &mut [usize], random: &mut u64) {
    for last in (1..order.len()).rev() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let other = *random % (last as u64 + 1);
        order.swap(
            last,
            usize::try_from(other).expect("less than the number of contestants"),
        );
    }
}
