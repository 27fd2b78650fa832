//! `update`: a resources file, flags over it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_runtime::StateRoot;
use berth_runtime::bundle::parse;
use clap::Args;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::{Failure, Outcome, load};

#[derive(Args)]
pub struct UpdateArgs {
    /// File with linux.resources as JSON, - for stdin
    #[arg(long, short)]
    pub resources: Option<PathBuf>,
    /// 10 to 1000
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// Microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// Microseconds per period
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Microseconds
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// Relative weight
    #[arg(long)]
    pub cpu_share: Option<u64>,
    /// Microseconds
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 0 or 1
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    /// As 0-3,7
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// As 0-1
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Bytes, with k, m or g; -1 lifts the limit
    #[arg(long, allow_hyphen_values = true, value_parser = bytes)]
    pub memory: Option<i64>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true, value_parser = bytes)]
    pub memory_reservation: Option<i64>,
    /// Bytes of memory and swap together
    #[arg(long, allow_hyphen_values = true, value_parser = bytes)]
    pub memory_swap: Option<i64>,
    /// -1 lifts the limit
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Not supported: kernels since 5.4 have no such limit
    #[arg(long, allow_hyphen_values = true, value_parser = bytes, hide = true)]
    pub kernel_memory: Option<i64>,
    /// Bytes for TCP buffers; cgroup v1 only
    #[arg(long, allow_hyphen_values = true, value_parser = bytes)]
    pub kernel_memory_tcp: Option<i64>,
    /// Not supported: berth does not manage resctrl groups
    #[arg(long, hide = true)]
    pub l3_cache_schema: Option<String>,
    /// Not supported: berth does not manage resctrl groups
    #[arg(long, hide = true)]
    pub mem_bw_schema: Option<String>,
    /// The container
    pub id: String,
}

fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, unit) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1i64 << 10),
        Some(b'm') => (&lower[..lower.len() - 1], 1 << 20),
        Some(b'g') => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1),
    };
    let number: i64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a number of bytes"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| format!("{text:?} is too large"))
}

pub fn update(root: &StateRoot, args: &UpdateArgs) -> Outcome {
    let mut container = load(root, &args.id)?;
    container.update(&resources(args)?)?;
    Ok(ExitCode::SUCCESS)
}

fn resources(args: &UpdateArgs) -> Result<LinuxResources, Failure> {
    for (flag, given) in [
        ("--l3-cache-schema", args.l3_cache_schema.is_some()),
        ("--mem-bw-schema", args.mem_bw_schema.is_some()),
        ("--kernel-memory", args.kernel_memory.is_some()),
    ] {
        if given {
            let why = if flag == "--kernel-memory" {
                "kernels since 5.4 have no such limit"
            } else {
                "berth does not manage resctrl groups"
            };
            return Err(Failure::new(format!("not supported: {flag}: {why}")));
        }
    }
    let mut value = match &args.resources {
        Some(path) => {
            let text = if path == Path::new("-") {
                let mut text = Vec::new();
                std::io::stdin().read_to_end(&mut text).map(|_| text)
            } else {
                std::fs::read(path)
            };
            let text = text.map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
            parse::<Value>(&text, path)?
        }
        None => json!({}),
    };
    let mut set = |section: &str, key: &str, new: Option<Value>| {
        if let Some(new) = new {
            value[section][key] = new;
        }
    };
    set("blockIO", "weight", args.blkio_weight.map(Into::into));
    set("cpu", "period", args.cpu_period.map(Into::into));
    set("cpu", "quota", args.cpu_quota.map(Into::into));
    set("cpu", "burst", args.cpu_burst.map(Into::into));
    set("cpu", "shares", args.cpu_share.map(Into::into));
    set("cpu", "realtimePeriod", args.cpu_rt_period.map(Into::into));
    set("cpu", "realtimeRuntime", args.cpu_rt_runtime.map(Into::into));
    set("cpu", "idle", args.cpu_idle.map(Into::into));
    set("cpu", "cpus", args.cpuset_cpus.clone().map(Into::into));
    set("cpu", "mems", args.cpuset_mems.clone().map(Into::into));
    set("memory", "limit", args.memory.map(Into::into));
    set("memory", "reservation", args.memory_reservation.map(Into::into));
    set("memory", "swap", args.memory_swap.map(Into::into));
    set("memory", "kernelTCP", args.kernel_memory_tcp.map(Into::into));
    set("pids", "limit", args.pids_limit.map(Into::into));
    let name = args.resources.clone().unwrap_or_else(|| "flags".into());
    Ok(parse(value.to_string().as_bytes(), &name)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_units() {
        for (text, want) in [
            ("1", 1),
            ("2k", 2048),
            ("3M", 3 << 20),
            ("1GB", 1 << 30),
            ("-1", -1),
        ] {
            assert_eq!(super::bytes(text), Ok(want), "{text}");
        }
        for text in ["", "k", "1t", "9223372036854775807g"] {
            assert!(super::bytes(text).is_err(), "{text}");
        }
    }
}
