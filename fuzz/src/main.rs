//! libFuzzer over one of the targets, which `BERTH_FUZZ_TARGET` names; its arguments are libFuzzer's own. `scripts/fuzz` runs it.
#![no_main]
#![allow(unsafe_code)] // libFuzzer's entry points are C's

use std::sync::LazyLock;

use berth_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("BERTH_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    *found.unwrap_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|(known, _)| *known).collect();
        panic!(
            "BERTH_FUZZ_TARGET: there is no target {name:?}, but {}",
            known.join(" ")
        )
    })
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.1)(input));
