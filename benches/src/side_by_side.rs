//! Runs several commands in turn, round after round, and prints the median time, processor time (user and system, of the
//! command and what it waited for) and peak memory of each and the ratio of each to the first: what `scripts/bench` builds
//! its tables from. On a busy machine the processor time says more than the time.
//!
//! Usage: `side-by-side ROUNDS [before:NAME=COMMAND…] NAME=COMMAND…`; what stands behind `before:` runs before each run of
//! that name and is not timed. Each COMMAND is split at blanks, without a shell, and run
//! with its output discarded. A command that fails stops the benchmark: a figure of a failing run means nothing.
//! Commands take turns within a round, so that a slow spell of the machine falls on all of them alike, and in another
//! order each round: who comes after a light neighbour finds warmer caches.
#![allow(unsafe_code)] // wait4(2), for the peak memory of one child, is not in the standard library

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Instant;

struct Contestant {
    name: String,
    before: Option<Vec<String>>,
    words: Vec<String>,
    times_us: Vec<u128>,
    cpu_us: Vec<u128>,
    peak_kib: Vec<i64>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("side-by-side: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: side-by-side ROUNDS NAME=COMMAND...";
    let rounds: usize = arguments.next().and_then(|word| word.parse().ok()).ok_or(usage)?;
    let mut before = Vec::new();
    let mut contestants = Vec::new();
    for argument in arguments {
        let (name, command) = argument.split_once('=').ok_or(usage)?;
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        match name.strip_prefix("before:") {
            Some(name) => before.push((name.to_owned(), words)),
            None => contestants.push(Contestant {
                name: name.to_owned(),
                before: before
                    .iter()
                    .find(|(of, _)| of == name)
                    .map(|(_, words)| words.clone()),
                words,
                times_us: Vec::with_capacity(rounds),
                cpu_us: Vec::with_capacity(rounds),
                peak_kib: Vec::with_capacity(rounds),
            }),
        }
    }

    let mut order: Vec<usize> = (0..contestants.len()).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15;
    // One round to warm caches, not counted.
    for round in 0..=rounds {
        shuffle(&mut order, &mut random);
        for index in &order {
            let contestant = &mut contestants[*index];
            if let Some(before) = &contestant.before {
                time_once("before", before)?;
            }
            let run = time_once(&contestant.name, &contestant.words)?;
            if round > 0 {
                contestant.times_us.push(run.time_us);
                contestant.cpu_us.push(run.cpu_us);
                contestant.peak_kib.push(run.peak_kib);
            }
        }
    }
    report(&mut contestants);
    Ok(())
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

/// One run of a command.
struct Run {
    time_us: u128,
    cpu_us: u128,
    peak_kib: i64,
}

fn time_once(name: &str, words: &[String]) -> Result<Run, String> {
    let start = Instant::now();
    let child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("start {name} ({}): {error}", words[0]))?;
    let pid = libc::pid_t::try_from(child.id()).expect("a pid fits pid_t");
    let mut status = 0;
    // SAFETY: rusage is plain data for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals; the pid is a child of ours that nobody else waits for.
    if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } < 0 {
        return Err(format!("wait for {name}: {}", std::io::Error::last_os_error()));
    }
    let elapsed = start.elapsed().as_micros();
    let status = ExitStatus::from_raw(status);
    if !status.success() {
        return Err(format!("{name} failed ({status}): {}", words.join(" ")));
    }
    Ok(Run {
        time_us: elapsed,
        cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        peak_kib: usage.ru_maxrss,
    })
}

fn micros(time: libc::timeval) -> u128 {
    // The kernel counts processor time upwards from zero.
    u128::from(time.tv_sec.unsigned_abs()) * 1_000_000 + u128::from(time.tv_usec.unsigned_abs())
}

#[allow(clippy::print_stdout)] // the table is this program's product
#[allow(clippy::cast_precision_loss)] // microseconds of a benchmark fit a double exactly
fn report(contestants: &mut [Contestant]) {
    for contestant in &mut *contestants {
        contestant.times_us.sort_unstable();
        contestant.cpu_us.sort_unstable();
        contestant.peak_kib.sort_unstable();
    }
    let median = |sorted: &[u128]| sorted[sorted.len() / 2] as f64;
    let first = median(&contestants[0].times_us);
    let base = contestants[0].name.clone();
    println!("| command | median | 10 % | 90 % | ratio to {base} | processor time | peak memory |");
    println!("|---|---|---|---|---|---|---|");
    for contestant in contestants {
        let times = &contestant.times_us;
        println!(
            "| {} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} | {:.2} ms | {:.1} MiB |",
            contestant.name,
            median(times) / 1000.0,
            times[times.len() / 10] as f64 / 1000.0,
            times[times.len() * 9 / 10] as f64 / 1000.0,
            median(times) / first,
            median(&contestant.cpu_us) / 1000.0,
            contestant.peak_kib[contestant.peak_kib.len() / 2] as f64 / 1024.0,
        );
    }
}
