//! How berth-guest is linked: it is part of every microVM's memory before the first instruction of it runs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
    // In a development build backtraces are worth more than the bytes.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{here}/link.ld");
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
