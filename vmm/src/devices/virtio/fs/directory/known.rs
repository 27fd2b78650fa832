//! What the guest knows: objects it has looked up, by its numbers for them, and what of them it has open.
//!
//! A number is given once in a share's life. Each object and each handle is a descriptor of this process; the guest cannot
//! have more of them than its budget, however it asks.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use fuse_backend_rs::abi::fuse_abi::stat64;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{ROOT, stat};

/// How many objects and handles together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget(usize);

/// Descriptors that the rest of the process may want.
const RESERVED: u64 = 256;
/// The most a share has use for: a guest forgets names when it needs memory.
const BUDGET_MAX: u64 = 1 << 20;

impl Budget {
    /// One of so many shares' part of what this process may hold open, which becomes as much as the host lets it.
    pub(crate) fn among(shares: usize) -> Budget {
        let each = raised_limit(shares as u64).saturating_sub(RESERVED) / shares.max(1) as u64;
        Budget(usize::try_from(each.min(BUDGET_MAX)).expect("a million"))
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of(objects: usize) -> Budget {
        Budget(objects)
    }
}

/// Raises the limit of open files for so many shares; what it is then.
fn raised_limit(shares: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let (now, hard) = (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    );
    let most = shares.saturating_mul(BUDGET_MAX).saturating_add(RESERVED);
    // The kernel has a bound of its own (`fs.nr_open`), and more than the hard limit takes a privilege.
    for wanted in [most, BUDGET_MAX, most.min(hard)] {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: Some(wanted.max(hard)).filter(|most| *most != u64::MAX),
        };
        if wanted > now && setrlimit(Resource::Nofile, raised).is_ok() {
            return wanted;
        }
    }
    now
}

/// Something in the share, named by a descriptor that opens nothing.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) named: OwnedFd,
    pub(super) kind: FileType,
    /// Of a directory that is none on the host: it holds the file `named` alone, by this name.
    pub(super) only: Option<CString>,
    /// The same for all names of one file.
    identity: (u64, u64),
}

impl Object {
    pub(super) fn of(named: OwnedFd) -> io::Result<Object> {
        let found = stat::file(named.as_fd())?;
        Ok(Object {
            named,
            kind: FileType::from_raw_mode(found.st_mode),
            only: None,
            identity: (found.st_dev, found.st_ino),
        })
    }

    /// A directory that holds this file alone, by this name.
    pub(super) fn alone(self, name: CString) -> Object {
        Object {
            kind: FileType::Directory,
            only: Some(name),
            ..self
        }
    }

    /// What the host says of it now.
    pub(super) fn look(&self) -> io::Result<stat64> {
        let mut found = stat::file(self.named.as_fd())?;
        if self.only.is_some() {
            found.st_mode = libc::S_IFDIR | 0o555;
            found.st_ino = ROOT;
            (found.st_nlink, found.st_size, found.st_blocks) = (2, 0, 0);
        }
        Ok(found)
    }
}

/// Something open.
#[derive(Debug)]
pub(super) struct Handle {
    number: u64,
    /// None of a directory that is none on the host.
    pub(super) file: Option<Mutex<File>>,
}

#[derive(Debug)]
pub(super) struct Known {
    budget: usize,
    objects: BTreeMap<u64, Looked>,
    numbers: BTreeMap<(u64, u64), u64>,
    handles: BTreeMap<u64, Arc<Handle>>,
    /// The last number given to an object or a handle.
    last: u64,
}

#[derive(Debug)]
struct Looked {
    object: Arc<Object>,
    /// How often, less what was forgotten.
    times: u64,
}

impl Known {
    pub(super) fn new(Budget(budget): Budget) -> Known {
        Known {
            budget,
            objects: BTreeMap::new(),
            numbers: BTreeMap::new(),
            handles: BTreeMap::new(),
            last: ROOT,
        }
    }

    pub(super) fn clear(&mut self) {
        self.objects.clear();
        self.numbers.clear();
        self.handles.clear();
    }

    pub(super) fn object(&self, number: u64) -> Option<Arc<Object>> {
        Some(self.objects.get(&number)?.object.clone())
    }

    /// The number of something that was looked up once more.
    ///
    /// # Errors
    ///
    /// `ENFILE` over the budget.
    pub(super) fn look_up(&mut self, object: Object) -> io::Result<u64> {
        if let Some(number) = self.numbers.get(&object.identity) {
            let looked = self.objects.get_mut(number).expect("both maps have the same");
            looked.times = looked.times.saturating_add(1);
            return Ok(*number);
        }
        let number = self.number()?;
        self.numbers.insert(object.identity, number);
        let object = Arc::new(object);
        self.objects.insert(number, Looked { object, times: 1 });
        Ok(number)
    }

    pub(super) fn forget(&mut self, number: u64, times: u64) {
        let Some(looked) = self.objects.get_mut(&number) else {
            return;
        };
        looked.times = looked.times.saturating_sub(times);
        if looked.times == 0 {
            self.numbers.remove(&looked.object.identity);
            self.objects.remove(&number);
        }
    }

    /// Keeps something open that belongs to an object.
    ///
    /// # Errors
    ///
    /// `ENFILE` over the budget.
    pub(super) fn open(&mut self, number: u64, file: Option<File>) -> io::Result<u64> {
        let handle = self.number()?;
        let file = file.map(Mutex::new);
        self.handles.insert(handle, Arc::new(Handle { number, file }));
        Ok(handle)
    }

    pub(super) fn handle(&self, handle: u64, number: u64) -> Option<Arc<Handle>> {
        self.handles
            .get(&handle)
            .filter(|one| one.number == number)
            .cloned()
    }

    pub(super) fn close(&mut self, handle: u64, number: u64) -> io::Result<()> {
        self.handle(handle, number).ok_or(Errno::BADF)?;
        self.handles.remove(&handle);
        Ok(())
    }

    fn number(&mut self) -> io::Result<u64> {
        if self.objects.len() + self.handles.len() >= self.budget {
            return Err(Errno::NFILE.into());
        }
        self.last += 1;
        Ok(self.last)
    }
}
