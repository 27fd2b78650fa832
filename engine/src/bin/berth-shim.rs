//! One shim per container.
fn main() {}
