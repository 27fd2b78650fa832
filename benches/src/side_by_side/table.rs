//! Medians and ratios, as a table in Markdown.

use crate::run::Run;

/// Prints a row for each command's runs, with the ratio to the first; `to_output`: of the times until the first output.
#[allow(clippy::print_stdout)] // the table is this program's product
pub(crate) fn print(all: &[(&str, &Vec<Run>)], to_output: bool) {
    let time = |run: &Run| millis(if to_output { run.output_us } else { run.time_us });
    let (base, first) = all[0];
    let first = quantile(first, time, 50);
    let (what, end, rule) = if to_output {
        ("first output", " end |", "---|")
    } else {
        ("median", "", "")
    };
    println!("| command | {what} | 10 % | 90 % | ratio to {base} |{end} processor time | peak memory |");
    println!("|---|---|---|---|---|{rule}---|---|");
    for (name, runs) in all {
        let [low, median, high] = [10, 50, 90].map(|percent| quantile(runs, time, percent));
        let end = if to_output {
            format!(" {:.2} ms |", quantile(runs, |run| millis(run.time_us), 50))
        } else {
            String::new()
        };
        println!(
            "| {name} | {median:.2} ms | {low:.2} ms | {high:.2} ms | {:.2} |{end} {:.2} ms | {:.1} MiB |",
            median / first,
            quantile(runs, |run| millis(run.cpu_us), 50),
            quantile(runs, mebibytes, 50),
        );
    }
}

#[allow(clippy::cast_precision_loss)] // microseconds of a benchmark fit a double exactly
fn millis(micros: u128) -> f64 {
    micros as f64 / 1000.0
}

#[allow(clippy::cast_precision_loss)] // so do its KiB
fn mebibytes(run: &Run) -> f64 {
    run.peak_kib as f64 / 1024.0
}

fn quantile(runs: &[Run], of: impl Fn(&Run) -> f64, percent: usize) -> f64 {
    let mut sorted: Vec<f64> = runs.iter().map(of).collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() * percent / 100]
}
