//! The command line that stands in for runc.
fn main() {}
