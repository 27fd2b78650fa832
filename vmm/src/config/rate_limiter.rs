//! How much a device may do in a time: token buckets for bytes and for operations.

use serde::{Deserialize, Serialize};

/// Limits of a device. What is not given is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// A token is a byte.
    pub bandwidth: Option<TokenBucket>,
    /// A token is a request, or a packet.
    pub ops: Option<TokenBucket>,
}

/// A bucket that refills at an even rate, `size` tokens in `refill_time` milliseconds, and never holds more than `size`. What
/// is in `one_time_burst` is used up first and does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// Most tokens it holds; it begins full.
    pub size: u64,
    /// Tokens on top of it at the beginning.
    pub one_time_burst: Option<u64>,
    /// Milliseconds from empty to full.
    pub refill_time: u64,
}

impl TokenBucket {
    /// Whether it holds anything back. As in Firecracker a bucket without size or time, or with a time whose nanoseconds
    /// are past counting, is none; that is how a running device's limit is lifted.
    #[must_use]
    pub fn limits(&self) -> bool {
        self.size > 0 && self.refill_time > 0 && self.refill_time.checked_mul(1_000_000).is_some()
    }
}

impl RateLimiter {
    /// The bucket of bytes, when it limits.
    #[must_use]
    pub fn bandwidth(&self) -> Option<TokenBucket> {
        self.bandwidth.filter(TokenBucket::limits)
    }

    /// The bucket of operations, when it limits.
    #[must_use]
    pub fn ops(&self) -> Option<TokenBucket> {
        self.ops.filter(TokenBucket::limits)
    }

    /// These limits after `change`, which leaves alone what it does not name.
    #[must_use]
    pub fn changed(self, change: RateLimiter) -> RateLimiter {
        RateLimiter {
            bandwidth: change.bandwidth.or(self.bandwidth),
            ops: change.ops.or(self.ops),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_is_no_limit() {
        let bucket = |size, refill_time| TokenBucket {
            size,
            one_time_burst: None,
            refill_time,
        };
        assert!(bucket(1, 1).limits());
        for unlimited in [bucket(0, 1), bucket(1, 0), bucket(1, u64::MAX)] {
            assert!(!unlimited.limits(), "{unlimited:?}");
        }
        let limiter = RateLimiter {
            bandwidth: Some(bucket(5, 5)),
            ops: Some(bucket(6, 6)),
        };
        let lifted = limiter.changed(RateLimiter {
            bandwidth: Some(bucket(0, 0)),
            ops: None,
        });
        assert_eq!((lifted.bandwidth(), lifted.ops()), (None, Some(bucket(6, 6))));
    }
}
