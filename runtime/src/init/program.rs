//! The last steps: where to stand, which file to execute, nothing left open.

use std::ffi::CString;
use std::io;
use std::path::Path;

use berth_sys::reexec::execve;
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};

use crate::error::{Error, Result, Step};
use crate::process::ProcessSpec;

/// Largest `/etc/passwd` looked through.
const PASSWD_BYTES_MAX: u64 = 4 << 20;

/// Changes to `process.cwd` and proves that it lies within the root: a descriptor left open by anyone would let
/// `/proc/self/fd/N` lead outside (CVE-2024-21626). The kernel's getcwd says `(unreachable)` there.
pub(crate) fn enter_cwd(cwd: &Path) -> Result<()> {
    rustix::process::chdir(cwd).map_err(|e| Error::path("change to process.cwd", cwd, e))?;
    prove_cwd(cwd)
}

/// The second half of [`enter_cwd`].
pub(crate) fn prove_cwd(cwd: &Path) -> Result<()> {
    let real = rustix::process::getcwd(Vec::new()).map_err(|e| Error::path("prove process.cwd", cwd, e))?;
    if real.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(Error::invalid(
        "process.cwd",
        format!("{} lies outside the container", cwd.display()),
    ))
}

/// The file to execute for `args[0]`, searched as execvp(3) does. Only reports what the user itself may execute.
pub(crate) fn find(process: &ProcessSpec) -> Result<CString> {
    let fail = |errno| Error::Exec {
        program: process.program.clone(),
        cause: io::Error::from_raw_os_error(errno),
    };
    let candidate = |path: String| CString::new(path).map_err(|_| fail(libc::ENOENT));
    if process.program.contains('/') {
        let path = candidate(process.program.clone())?;
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(e) => Err(fail(e.raw_os_error())),
        };
    }
    let mut denied = false;
    let search = process.env_value("PATH").unwrap_or("/bin:/usr/bin");
    for dir in search.split(':') {
        let path = if dir.is_empty() {
            format!("./{}", process.program)
        } else {
            format!("{dir}/{}", process.program)
        };
        let path = candidate(path)?;
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(rustix::io::Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    Err(fail(if denied { libc::EACCES } else { libc::ENOENT }))
}

fn executable(path: &CString) -> rustix::io::Result<()> {
    rustix::fs::accessat(CWD, path.as_c_str(), Access::EXEC_OK, AtFlags::EACCESS)?;
    let stat = rustix::fs::statat(CWD, path.as_c_str(), AtFlags::empty())?;
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        Err(rustix::io::Errno::ACCESS)
    } else {
        Ok(())
    }
}

/// The environment, with HOME from the container's `/etc/passwd` if the configuration has none, as runc sets it.
pub(crate) fn environment(process: &ProcessSpec) -> Vec<CString> {
    let mut env = process.env.clone();
    if !env.iter().any(|e| e.as_bytes().starts_with(b"HOME=")) {
        let home = home_of(process.uid).unwrap_or_else(|| "/".into());
        env.extend(CString::new(format!("HOME={home}")));
    }
    env
}

fn home_of(uid: u32) -> Option<String> {
    // The image's file: it may be a FIFO, a device or endless (CVE-2024-9676).
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::open("/etc/passwd", flags, Mode::empty()).ok()?;
    if !FileType::from_raw_mode(rustix::fs::fstat(&fd).ok()?.st_mode).is_file() {
        return None;
    }
    let mut text = Vec::new();
    io::Read::read_to_end(
        &mut io::Read::take(std::fs::File::from(fd), PASSWD_BYTES_MAX),
        &mut text,
    )
    .ok()?;
    home_in(&String::from_utf8_lossy(&text), uid)
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let matches = fields.len() >= 7 && fields[2].parse() == Ok(uid) && fields[5].starts_with('/');
        matches.then(|| fields[5].to_owned())
    })
}

/// Executes; returns only the failure.
pub(crate) fn execute(file: &CString, process: &ProcessSpec, env: &[CString]) -> Error {
    let cause = execve(file, &process.args, env);
    Error::Exec {
        program: process.program.clone(),
        cause,
    }
}

/// Marks all but the standard streams and what is passed on purpose close-on-exec.
pub(crate) fn close_on_exec(preserve_fds: u32) -> Result<()> {
    berth_sys::fds::cloexec_from(3 + preserve_fds).step("mark close-on-exec", "descriptors")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_from_the_line_of_the_uid() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad:x:1000\nu:x:1000:1000::/home/u:/bin/sh\n";
        assert_eq!(home_in(passwd, 1000).as_deref(), Some("/home/u"));
        assert_eq!(home_in(passwd, 7), None);
    }

    #[test]
    fn a_working_directory_that_is_reachable_passes() {
        prove_cwd(Path::new("/")).expect("the test runs somewhere");
    }
}
