//! `top`: the container's processes as ps(1) shows them.

use berth_runtime::ps::{BadArguments, Layout};

use crate::container::Verb;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::flags::Isolation;
use crate::id::ContainerId;
use crate::isolation::vm;
use crate::shim::{runtime_error, runtime_id, runtime_root};

/// A container's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// Column heads.
    pub titles: Vec<String>,
    /// A row a process.
    pub processes: Vec<Vec<String>>,
}

impl Engine {
    /// The processes of a running container as the host sees them, those of a microVM as their guest does. `ps_args` is what `ps` would be given: nothing, `-ef`, `aux`,
    /// or `-o` with columns, each optionally with a heading behind `=`.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] unless it runs, [`Error::Invalid`] for other arguments or an unknown column.
    pub fn top(&self, id: &ContainerId, ps_args: &[String]) -> Result<Top> {
        let state = self.state(id)?;
        if !state.status.allows(Verb::Kill) {
            let name = self.config(id)?.name.to_string();
            return Err(Error::Wrong {
                verb: "list the processes of",
                name,
                status: state.status,
            });
        }
        let layout = Layout::parse(ps_args).map_err(refused)?;
        let processes = match self.config(id)?.host.isolation {
            Isolation::Vm => layout.rows_of(&vm::processes(&self.paths.run_dir(id))?),
            Isolation::Container => {
                let container = berth_runtime::Container::load(&runtime_root(&self.paths), &runtime_id(id)?)
                    .map_err(|e| runtime_error(id, e))?;
                layout.rows(&container.processes().map_err(|e| runtime_error(id, e))?)
            }
        };
        Ok(Top {
            titles: layout.titles(),
            processes,
        })
    }
}

fn refused(e: BadArguments) -> Error {
    Error::Invalid {
        what: "request for processes".to_owned(),
        why: e.to_string(),
    }
}
