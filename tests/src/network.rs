//! A network namespace of a test's own: its bridges, rules and ports meet nobody else's.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::Output;

/// A network namespace with only a loopback link, kept by a process that sleeps in it. Gone when dropped.
#[derive(Debug)]
pub struct Network {
    keeper: Child,
}

impl Network {
    /// A namespace in which nothing listens yet.
    ///
    /// # Panics
    /// When it cannot be made: that takes root, util-linux and iproute2.
    #[must_use]
    pub fn new() -> Self {
        // Standard input: at its end, however this test ends, the keeper ends too.
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut up = [0; 3];
        std::io::Read::read_exact(keeper.stdout.as_mut().expect("stdout is a pipe"), &mut up)
            .expect("make a network namespace");
        Self { keeper }
    }

    /// The namespace's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.keeper.id()).into()
    }

    /// A command that runs in the namespace, not yet started.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Runs a program of the host in the namespace to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program)
            .args(arguments)
            .output()
            .expect("start nsenter")
            .into()
    }

    /// Links other than the loopback and nftables tables: empty when everybody has cleaned up.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let links = self.run("ip", &["-oneline", "link", "show"]).ok();
        let tables = self.run("nft", &["list", "tables"]).ok();
        links
            .lines()
            .filter(|line| !line.starts_with("1: lo:"))
            .chain(tables.lines())
            .map(str::to_owned)
            .collect()
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
