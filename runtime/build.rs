//! How the runtime's binary is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A position-independent static binary relocates itself at each exec, and the runtime execs itself once more to be
    // sealed. Packed (DT_RELR: glibc 2.36, lld 15, GNU ld 2.38) the table is 5 KB instead of 360 KB, all of which
    // would be read and count as memory.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // Sealed before the C library begins (berth-sys, entry.rs); elsewhere main does it.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo:rustc-link-arg-bins=-Wl,-e,berth_sealed_start");
    }
}
