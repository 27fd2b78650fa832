//! The processor's time stamp counter.

#![allow(unsafe_code)] // an instruction

/// Where it stands. Counts at a rate nobody promises; monotonic on one processor.
#[must_use]
pub fn now() -> u64 {
    // SAFETY: `rdtsc` is part of x86-64 and touches no memory; the kernel lets everybody execute it.
    unsafe { core::arch::x86_64::_rdtsc() }
}
