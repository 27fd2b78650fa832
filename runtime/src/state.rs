//! What is kept of a container between verbs, and the table that says which verb fits which status.
//!
//! ```text
//! ROOT/<id>/            mode 0711, made by create with mkdir(2): an id is taken once
//!   state.json          what start, kill, delete and exec need; written aside, then renamed
//!   exec.fifo           there while created: init waits for a byte
//! ```
//!
//! `state.json` first says where the cgroup *will be*, then the cgroup is made; a `kill -9` in between leaves a
//! record of something absent, which `delete --force` removes.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_cgroups::CgroupPath;
use oci_spec::runtime::{Hook, LinuxSeccomp};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::ContainerId;

/// The directory that holds one directory per container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateRoot(PathBuf);

impl Default for StateRoot {
    fn default() -> Self {
        Self(PathBuf::from("/run/berth/runtime"))
    }
}

/// What a container is doing; `runc state` prints these words.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its create has not returned.
    Creating,
    /// Init waits for start.
    Created,
    /// The user's program runs.
    Running,
    /// Frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl Status {
    /// Whether `verb` fits this status. The only judge.
    #[must_use]
    pub fn allows(self, verb: Verb) -> bool {
        use Status::{Created, Creating, Paused, Running, Stopped};
        match verb {
            Verb::Start => self == Created,
            Verb::Kill => matches!(self, Created | Running | Paused),
            Verb::Exec => self == Running,
            Verb::Pause => matches!(self, Created | Running),
            Verb::Resume => self == Paused,
            Verb::Update => matches!(self, Created | Running | Paused),
            Verb::Delete => self == Stopped,
            Verb::ForceDelete => matches!(self, Creating | Created | Running | Paused | Stopped),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// What a caller wants to do with a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // the verbs of the command line
pub enum Verb {
    Start,
    Kill,
    Exec,
    Pause,
    Resume,
    Update,
    Delete,
    ForceDelete,
}

impl Verb {
    /// The word in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Kill => "kill",
            Verb::Exec => "exec in",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Update => "update",
            Verb::Delete | Verb::ForceDelete => "delete",
        }
    }
}

/// `state.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Version of the specification the bundle names.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Init's pid; 0 until it exists.
    pub pid: i32,
    /// Init's start time in clock ticks since boot.
    pub start_time: u64,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The user id of who created it.
    pub owner: u32,
    /// From config.json.
    #[serde(default)]
    pub annotations: HashMap<String, String>,
    /// `CLONE_NEW*` bits of the namespaces exec must join.
    pub namespaces: u64,
    /// The mount namespace is not the container's own and its root a directory there, which exec must enter.
    #[serde(default)]
    pub shared_mounts: bool,
    /// The cgroup's path below its hierarchies.
    pub cgroup: CgroupPath,
    /// Whether init waits on a FIFO (create) or on its parent (run).
    pub fifo: bool,
    /// Run by start.
    #[serde(default)]
    pub poststart: Vec<Hook>,
    /// Run by delete; the bundle may be gone by then.
    #[serde(default)]
    pub poststop: Vec<Hook>,
}

impl Record {
    /// The state as hooks get it on stdin (runtime.md#state).
    #[must_use]
    pub fn for_hooks(&self, status: Status, pid: i32) -> Vec<u8> {
        self.state(status, pid).to_string().into_bytes()
    }

    /// The container process state for a seccomp agent (config-linux.md#containerprocessstate).
    #[must_use]
    pub fn for_listener(&self, pid: i32, seccomp: Option<&LinuxSeccomp>) -> Vec<u8> {
        let metadata = seccomp
            .and_then(|s| s.listener_metadata().clone())
            .unwrap_or_default();
        serde_json::json!({
            "ociVersion": self.oci_version,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": metadata,
            "state": self.state(Status::Creating, pid),
        })
        .to_string()
        .into_bytes()
    }

    fn state(&self, status: Status, pid: i32) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        if status != Status::Stopped {
            state["pid"] = pid.into();
        }
        state
    }
}

const STATE_FILE: &str = "state.json";
const FIFO: &str = "exec.fifo";
/// Its name until init is ready: `exec.fifo` exists exactly while the container is created.
const HIDDEN_FIFO: &str = ".exec.fifo";

impl StateRoot {
    /// A root at `path`; it is made when first needed.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of one container.
    #[must_use]
    pub fn dir(&self, id: &ContainerId) -> PathBuf {
        self.0.join(id.as_str())
    }

    /// The FIFO init waits on.
    #[must_use]
    pub fn fifo(&self, id: &ContainerId) -> PathBuf {
        self.dir(id).join(FIFO)
    }

    /// The FIFO while init is not ready for it.
    #[must_use]
    pub fn hidden_fifo(&self, id: &ContainerId) -> PathBuf {
        self.dir(id).join(HIDDEN_FIFO)
    }

    /// Makes a creating container a created one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn publish_fifo(&self, id: &ContainerId) -> Result<()> {
        let (hidden, shown) = (self.hidden_fifo(id), self.fifo(id));
        std::fs::rename(&hidden, &shown).map_err(|e| Error::path("rename", &hidden, e))
    }

    /// Takes an id.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`].
    pub fn claim(&self, id: &ContainerId) -> Result<()> {
        let dir = self.dir(id);
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o711);
        let first = builder.create(&dir);
        let made = match first {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                // Others must not traverse it (CVE-2021-41103): states name paths and annotations.
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.0)
                    .map_err(|e| Error::path("create", &self.0, e))?;
                builder.create(&dir)
            }
            other => other,
        };
        match made {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::Exists { id: id.to_string() })
            }
            other => other.map_err(|e| Error::path("create", &dir, e)),
        }
    }

    /// Writes `state.json` aside and puts it into place by name. No fsync: the directory does not outlive a reboot.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, id: &ContainerId, record: &Record) -> Result<()> {
        let path = self.dir(id).join(STATE_FILE);
        let aside = self.dir(id).join(".state.json");
        let text = serde_json::to_vec(record).map_err(|e| Error::path("encode", &path, e))?;
        let write = || {
            let mut file = std::fs::File::create(&aside)?;
            file.write_all(&text)?;
            // Renamed over an old file, ext4 starts writing the new one to disk at once (auto_da_alloc), and removing it
            // then waits for the disk: over a millisecond of a short container's life. An exchange does not.
            match renameat_with(CWD, &aside, CWD, &path, RenameFlags::EXCHANGE) {
                Ok(()) => std::fs::remove_file(&aside),
                // The first time there is nothing to exchange, and not every file system can.
                Err(_) => std::fs::rename(&aside, &path),
            }
        };
        write().map_err(|e| Error::path("write", &path, e))
    }

    /// Reads `state.json`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Io`].
    pub fn load(&self, id: &ContainerId) -> Result<Record> {
        let path = self.dir(id).join(STATE_FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| Error::path("parse", &path, e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound { id: id.to_string() }),
            Err(e) => Err(Error::path("read", &path, e)),
        }
    }

    /// Gives an id back. Gone already is fine.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn release(&self, id: &ContainerId) -> Result<()> {
        let dir = self.dir(id);
        // The names we make, then the directory: cheaper than a walk, which is left for what crashes leave behind.
        for name in [STATE_FILE, FIFO, HIDDEN_FIFO] {
            let _ = std::fs::remove_file(dir.join(name));
        }
        match std::fs::remove_dir(&dir).or_else(|_| std::fs::remove_dir_all(&dir)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::path("remove", &dir, e)),
            _ => Ok(()),
        }
    }

    /// All ids with a directory here, sorted.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<ContainerId>> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| Error::path("read", &self.0, e))?,
        };
        let mut ids: Vec<_> = entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| ContainerId::new(e.file_name().to_str()?).ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_statuses() {
        use Status::{Created, Creating, Paused, Running, Stopped};
        let all = [Creating, Created, Running, Paused, Stopped];
        let table: [(Verb, &[Status]); 8] = [
            (Verb::Start, &[Created]),
            (Verb::Kill, &[Created, Running, Paused]),
            (Verb::Exec, &[Running]),
            (Verb::Pause, &[Created, Running]),
            (Verb::Resume, &[Paused]),
            (Verb::Update, &[Created, Running, Paused]),
            (Verb::Delete, &[Stopped]),
            (Verb::ForceDelete, &all),
        ];
        for (verb, allowed) in table {
            for status in all {
                assert_eq!(
                    status.allows(verb),
                    allowed.contains(&status),
                    "{verb:?} while {status}"
                );
            }
        }
    }

    /// CVE-2021-41103: states name paths and annotations.
    #[test]
    fn nobody_else_looks_into_the_state_root() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("tempdir");
        let root = StateRoot::new(dir.path().join("state"));
        root.claim(&ContainerId::new("a").expect("id")).expect("claim");
        let mode = std::fs::metadata(root.path()).expect("root").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }

    #[test]
    fn an_id_is_taken_once_and_given_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = StateRoot::new(dir.path().join("state"));
        let id = ContainerId::new("a").expect("id");
        root.claim(&id).expect("first claim");
        assert!(matches!(root.claim(&id), Err(Error::Exists { .. })));
        std::fs::write(root.dir(&id).join("left over"), "x").expect("write");
        root.release(&id).expect("release");
        root.release(&id).expect("again");
        root.claim(&id).expect("claim after release");
    }

    #[test]
    fn a_record_saved_again_replaces_the_first_and_leaves_nothing_aside() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = StateRoot::new(dir.path().join("state"));
        let id = ContainerId::new("a").expect("id");
        root.claim(&id).expect("claim");
        let text = r#"{"ociVersion":"1.2.0","id":"a","pid":0,"startTime":0,"bundle":"/b","rootfs":"/b/r","created":"c",
            "owner":0,"annotations":{},"namespaces":0,"cgroup":"/a","fifo":false,"poststart":[],"poststop":[]}"#;
        let mut record: Record = serde_json::from_str(text).expect("a record");
        for pid in [0, 1, 2] {
            record.pid = pid;
            root.save(&id, &record).expect("save");
            assert_eq!(root.load(&id).expect("load").pid, pid);
        }
        assert_eq!(std::fs::read_dir(root.dir(&id)).expect("list").count(), 1);
    }
}
