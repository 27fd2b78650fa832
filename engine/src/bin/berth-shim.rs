//! One shim per container: holds its streams, writes its log, records its end.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    // CVE-2019-5736: what clones into containers runs from a file they cannot write. berth executes it that way already.
    if berth_sys::reexec::seal().is_err() {
        return ExitCode::from(125);
    }
    match berth_engine::shim::main(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(125),
    }
}
