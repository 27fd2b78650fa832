//! One shim per container: holds its streams, writes its log, records its end. Under the name `docker-init` it is a
//! container's PID 1 (`--init`).

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<std::ffi::OsString> = args.collect();
    if berth_engine::init::is_init(&name) {
        return ExitCode::from(berth_engine::init::main(&args));
    }
    // CVE-2019-5736: what clones into containers runs from a file they cannot write. berth executes it that way already.
    if berth_sys::reexec::seal().is_err() {
        return ExitCode::from(125);
    }
    close_strays();
    // Executed by descriptor, it would be called by the descriptor's number in `ps`. The name is all that can fail.
    let _ = rustix::thread::set_name(c"berth-shim");
    match berth_engine::shim::main(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(125),
    }
}

/// What berth's own caller left open is not the container's: held for its lifetime, a pipe's reader would never see its end.
#[allow(unsafe_code)] // closing what nobody owns
fn close_strays() {
    // SAFETY: main has opened nothing that is still open, and std owns the standard streams alone. A kernel without the call
    // leaves things as they are.
    let _ = unsafe { berth_sys::fds::close_from(3) };
}
