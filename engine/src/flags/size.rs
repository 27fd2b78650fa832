//! Amounts of memory and of processor time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InvalidFlag;

/// A number of bytes: `512`, `512b`, `64k`, `20m`, `1.5g`, `2t`, also with `b` or `ib` after the unit; 1024-based.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemorySize(pub u64);

impl FromStr for MemorySize {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: &str| InvalidFlag::new("memory size", s, why);
        let lower = s.trim().to_ascii_lowercase();
        let digits = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let shift = match unit.trim_start() {
            "" | "b" => 0u32,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(bad("the unit is none of b, k, m, g, t, p")),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| bad("expected a number and a unit"))?;
        let unit_bytes = 1u64 << shift;
        let mut bytes = whole.checked_mul(unit_bytes).ok_or_else(|| bad("too large"))?;
        if !fraction.is_empty() {
            if fraction.len() > 9 {
                return Err(bad("more than nine decimals"));
            }
            let nanos: u64 = format!("{fraction:0<9}")
                .parse()
                .map_err(|_| bad("expected a number"))?;
            let part = u128::from(nanos) * u128::from(unit_bytes) / 1_000_000_000;
            bytes = u64::try_from(part)
                .ok()
                .and_then(|p| bytes.checked_add(p))
                .ok_or_else(|| bad("too large"))?;
        }
        if i64::try_from(bytes).is_err() {
            return Err(bad("too large"));
        }
        Ok(MemorySize(bytes))
    }
}

/// In the largest unit that gives a whole number: `64m`, `1536k`, `100`.
impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "t"), (30, "g"), (20, "m"), (10, "k"), (0, "")];
        let fits = |shift: &u32| self.0 >> shift != 0 && self.0 >> shift << shift == self.0;
        let (shift, unit) = units
            .into_iter()
            .find(|(shift, _)| fits(shift))
            .unwrap_or((0, ""));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// `--memory-swap`: memory and swap together, or `-1` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemorySwap {
    /// `-1`.
    Unlimited,
    /// Memory plus swap, in bytes.
    Total(MemorySize),
}

impl FromStr for MemorySwap {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        if s.trim() == "-1" {
            Ok(MemorySwap::Unlimited)
        } else {
            s.parse().map(MemorySwap::Total)
        }
    }
}

/// `--cpus`: processors, in billionths of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cpus {
    /// Billionths of a processor.
    pub nano: u64,
}

impl FromStr for Cpus {
    type Err = InvalidFlag;
    fn from_str(s: &str) -> Result<Self, InvalidFlag> {
        let bad = |why: &str| InvalidFlag::new("number of cpus", s, why);
        let (whole, fraction) = s.split_once('.').unwrap_or((s, ""));
        let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(bad("expected a decimal number such as 1.5"));
        }
        if fraction.len() > 9 {
            return Err(bad("more than nine decimals"));
        }
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| bad("too large"))?
        };
        let nanos: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad("too large"))?;
        let nano = whole
            .checked_mul(1_000_000_000)
            .and_then(|n| n.checked_add(nanos));
        match nano {
            Some(nano) if nano <= 1_000_000_000_000_000 => Ok(Cpus { nano }),
            _ => Err(bad("too large")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_sizes_as_docker_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("100b", 100),
            ("4k", 4096),
            ("4KiB", 4096),
            ("20M", 20 << 20),
            ("1.5g", 3 << 29),
            ("2tb", 2 << 40),
        ] {
            assert_eq!(text.parse::<MemorySize>().unwrap().0, bytes, "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1.2.3m", "99999999999g", "8192p", "1e3"] {
            assert!(bad.parse::<MemorySize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn swap_may_be_unlimited() {
        assert_eq!("-1".parse::<MemorySwap>().unwrap(), MemorySwap::Unlimited);
        assert!("-2".parse::<MemorySwap>().is_err());
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!("1.5".parse::<Cpus>().unwrap().nano, 1_500_000_000);
        assert_eq!(".01".parse::<Cpus>().unwrap().nano, 10_000_000);
        for bad in ["", ".", "-1", "1e3", "nan", "1.0000000001"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(s in "\\PC{0,24}") {
            let _ = s.parse::<MemorySize>();
            let _ = s.parse::<Cpus>();
        }

        #[test]
        fn plain_bytes_round_trip(n in 0u64..(1 << 62)) {
            prop_assert_eq!(n.to_string().parse::<MemorySize>().unwrap().0, n);
        }
    }
}
