//! Token buckets that slow a device down, with Firecracker's rules.
//!
//! A bucket holds `size` tokens and fills up within `refill_time`; a burst on top is spent once. What takes more than the
//! bucket holds is let through when the bucket is full, and the time it would have taken is waited for afterwards: a request
//! larger than the bucket would never pass otherwise.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::config::{RateLimiter, TokenBucket};

/// Tokens for bytes or for operations.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bucket {
    size: u64,
    refill_time: Duration,
    /// What is left of the burst, spent first.
    burst: u64,
    level: u64,
    /// Until when the level was counted.
    counted: Instant,
}

impl Bucket {
    /// A full bucket. `limit` is one that limits.
    fn new(limit: TokenBucket, now: Instant) -> Bucket {
        Bucket {
            size: limit.size,
            refill_time: Duration::from_millis(limit.refill_time),
            burst: limit.one_time_burst.unwrap_or(0),
            level: limit.size,
            counted: now,
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        let per = self.refill_time.as_nanos();
        // 128 bits hold 64 bits of tokens times 64 bits of nanoseconds.
        let tokens = u128::from(self.size) * passed.as_nanos() / per;
        if tokens == 0 {
            return;
        }
        match u64::try_from(tokens) {
            Ok(tokens) if tokens < self.size - self.level => {
                self.level += tokens;
                // What was not enough for a token counts the next time.
                let counted = u128::from(tokens) * per / u128::from(self.size);
                self.counted += Duration::from_nanos(u64::try_from(counted).unwrap_or(u64::MAX));
            }
            _ => {
                self.level = self.size;
                self.counted = now;
            }
        }
    }

    /// Takes `tokens`; how long to wait before the next, if at all, or `Err` with how long until these can be had.
    fn take(&mut self, tokens: u64, now: Instant) -> Result<Duration, Duration> {
        self.refill(now);
        let from_burst = tokens.min(self.burst);
        let rest = tokens - from_burst;
        if rest <= self.level {
            self.burst -= from_burst;
            self.level -= rest;
            return Ok(Duration::ZERO);
        }
        if rest > self.size && self.level == self.size {
            self.burst -= from_burst;
            self.level = 0;
            return Ok(self.time_for(rest - self.size));
        }
        Err(self.time_for(rest.min(self.size) - self.level))
    }

    fn give_back(&mut self, tokens: u64) {
        self.level = self.level.saturating_add(tokens).min(self.size);
    }

    fn time_for(&self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens) * self.refill_time.as_nanos() / u128::from(self.size);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Both limits of a device, and the timer that says when it may go on.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
    timer: OwnedFd,
    /// Nothing passes before this.
    blocked_until: Option<Instant>,
}

/// The least a blocked device waits: a timer for every token would be all it does.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

impl Throttle {
    /// # Errors
    ///
    /// Those of `timerfd_create(2)`.
    pub(crate) fn new(limits: Option<RateLimiter>, now: Instant) -> std::io::Result<Throttle> {
        let limits = limits.unwrap_or_default();
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        Ok(Throttle {
            bytes: limits.bandwidth().map(|limit| Bucket::new(limit, now)),
            operations: limits.ops().map(|limit| Bucket::new(limit, now)),
            timer,
            blocked_until: None,
        })
    }

    /// Takes other limits from now on; a bucket that is not named stays, one that holds nothing back goes. What is blocked
    /// may be tried again at once.
    pub(crate) fn change(&mut self, change: RateLimiter, now: Instant) {
        let bucket = |limit: TokenBucket| limit.limits().then(|| Bucket::new(limit, now));
        if let Some(limit) = change.bandwidth {
            self.bytes = bucket(limit);
        }
        if let Some(limit) = change.ops {
            self.operations = bucket(limit);
        }
        self.blocked_until = None;
    }

    /// Readable when what was refused may be tried again.
    pub(crate) fn timer(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Whether one operation of so many bytes may go on now; otherwise the timer rings when it is worth trying again.
    pub(crate) fn allows(&mut self, bytes: u64, now: Instant) -> bool {
        if let Some(until) = self.blocked_until {
            if now < until {
                return false;
            }
            self.blocked_until = None;
        }
        let mut wait = Duration::ZERO;
        if let Some(bucket) = &mut self.operations {
            match bucket.take(1, now) {
                Ok(after) => wait = after,
                Err(until) => return self.block(until, now),
            }
        }
        if let Some(bucket) = &mut self.bytes {
            match bucket.take(bytes, now) {
                Ok(after) => wait = wait.max(after),
                Err(until) => {
                    if let Some(operations) = &mut self.operations {
                        operations.give_back(1);
                    }
                    return self.block(until, now);
                }
            }
        }
        if !wait.is_zero() {
            self.block(wait, now);
        }
        true
    }

    fn block(&mut self, wait: Duration, now: Instant) -> bool {
        let wait = wait.max(PATIENCE_MIN);
        self.blocked_until = Some(now + wait);
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: never,
            it_value: value,
        };
        // Fails for times that are none alone.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limit(size: u64, burst: u64, seconds: u64) -> TokenBucket {
        TokenBucket {
            size,
            one_time_burst: Some(burst),
            refill_time: seconds * 1000,
        }
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let start = Instant::now();
        let mut bucket = Bucket::new(limit(1000, 500, 1), start);
        assert_eq!(bucket.take(1500, start), Ok(Duration::ZERO), "with the burst");
        assert_eq!(bucket.take(100, start), Err(SECOND / 10));
        assert_eq!(bucket.take(100, start + SECOND / 10), Ok(Duration::ZERO));
        assert_eq!(
            bucket.take(1000, start + 10 * SECOND),
            Ok(Duration::ZERO),
            "the burst is gone"
        );
        assert!(bucket.take(1, start + 10 * SECOND).is_err());
    }

    #[test]
    fn nothing_smaller_than_a_token_is_lost() {
        let start = Instant::now();
        let mut bucket = Bucket::new(limit(10, 0, 1), start);
        assert!(bucket.take(10, start).is_ok());
        // A token takes 100 ms; looked at every 60 ms there are five after 540 ms.
        let mut got = 0;
        for step in 1..=9 {
            while bucket.take(1, start + step * SECOND * 6 / 100).is_ok() {
                got += 1;
            }
        }
        assert_eq!(got, 5);
    }

    #[test]
    fn a_request_larger_than_the_bucket_passes_and_is_paid_for() {
        let start = Instant::now();
        let mut limiter = Throttle::new(
            Some(RateLimiter {
                bandwidth: Some(limit(100, 0, 1)),
                ops: None,
            }),
            start,
        )
        .unwrap();
        assert!(limiter.allows(300, start));
        assert!(!limiter.allows(1, start + SECOND));
        assert!(limiter.allows(1, start + 3 * SECOND));
    }

    #[test]
    fn limits_change_one_by_one_and_are_lifted() {
        let start = Instant::now();
        let limits = |bandwidth, ops| RateLimiter { bandwidth, ops };
        let mut limiter =
            Throttle::new(Some(limits(Some(limit(10, 0, 1)), Some(limit(5, 0, 1)))), start).unwrap();
        assert!(limiter.allows(10, start));
        assert!(!limiter.allows(10, start));
        limiter.change(limits(Some(limit(100, 0, 1)), None), start);
        assert!(limiter.allows(100, start), "a new bucket is full");
        limiter.change(limits(Some(limit(0, 0, 0)), None), start);
        assert!((0..3).all(|_| limiter.allows(1 << 40, start)));
        assert!(!limiter.allows(1, start), "five operations still are five");
    }

    #[test]
    fn an_operation_refused_for_its_bytes_is_given_back() {
        let start = Instant::now();
        let limits = RateLimiter {
            bandwidth: Some(limit(100, 0, 1)),
            ops: Some(limit(2, 0, 1000)),
        };
        let mut limiter = Throttle::new(Some(limits), start).unwrap();
        assert!(limiter.allows(100, start));
        assert!(!limiter.allows(100, start + SECOND / 2));
        assert!(limiter.allows(100, start + 2 * SECOND));
    }
}
