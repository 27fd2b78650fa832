//! `cp` and `export`, on either side of a container's wall: its files are the host's, or a guest's that hands them over. Where that
//! guest does not run it is booted for it.

use std::io::{Read, Write};
use std::path::Path;

use berth_copy::Options;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::flags::Isolation;
use crate::id::ContainerId;
use crate::isolation::vm::copy::Guest;
use crate::isolation::vm::programs::Programs;
use crate::isolation::vm::stopped::Stopped;
use crate::kernel::Kernel;
use crate::{reconcile, record};

impl Engine {
    /// Copies `source` of a container to `target` on this host. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Copy`], or those of [`Engine::files`]; of a microVM that does not run also what a boot can fail with.
    pub fn copy_from(&self, id: &ContainerId, source: &Path, target: &Path, options: Options) -> Result<()> {
        match self.guest(id)? {
            Some(files) => files.with(|guest| guest.copy_from(source, target, options)),
            None => Ok(berth_copy::from_container(
                self.files(id)?.root(),
                source,
                target,
                options,
            )?),
        }
    }

    /// Copies `source` of this host to `target` in a container. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Engine::copy_from`].
    pub fn copy_into(&self, id: &ContainerId, source: &Path, target: &Path, options: Options) -> Result<()> {
        match self.guest(id)? {
            Some(files) => files.with(|guest| guest.copy_into(source, target, options)),
            None => Ok(berth_copy::into_container(
                self.files(id)?.root(),
                source,
                target,
                options,
            )?),
        }
    }

    /// Writes `source` of a container as a tar. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Engine::copy_from`].
    pub fn write_archive(
        &self,
        id: &ContainerId,
        source: &Path,
        out: impl Write,
        options: Options,
    ) -> Result<()> {
        match self.guest(id)? {
            Some(files) => files.with(|guest| guest.write_archive(source, out, options)),
            None => Ok(berth_copy::write_archive(
                self.files(id)?.root(),
                source,
                out,
                options,
            )?),
        }
    }

    /// Unpacks a tar into the directory `target` of a container. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Engine::copy_from`].
    pub fn read_archive(
        &self,
        id: &ContainerId,
        target: &Path,
        input: impl Read,
        options: Options,
    ) -> Result<()> {
        match self.guest(id)? {
            Some(files) => files.with(|guest| guest.read_archive(target, input, options)),
            None => Ok(berth_copy::read_archive(
                self.files(id)?.root(),
                target,
                input,
                options,
            )?),
        }
    }

    /// Writes a container's own root, without what is mounted on it, as a tar. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Export`]; otherwise as [`Engine::copy_from`].
    pub fn export(&self, id: &ContainerId, out: impl Write) -> Result<()> {
        if let Some(files) = self.guest(id)? {
            return files.with(|guest| guest.export(out));
        }
        let files = self.own_files(id)?;
        let written = berth_images::archive::export(files.root().as_dir(), out);
        written.map(drop).map_err(|source| Error::Export {
            id: id.short().to_owned(),
            source: Box::new(source),
        })
    }

    /// The guest that has a container's files; none when the host has them.
    fn guest(&self, id: &ContainerId) -> Result<Option<InGuest>> {
        let config = self.config(id)?;
        if config.host.isolation != Isolation::Vm {
            return Ok(None);
        }
        let guest = Guest::of(&self.paths, id);
        if self.state(id)?.status.needs_shim() {
            let booted = None;
            return Ok(Some(InGuest { guest, booted }));
        }
        // Nobody starts or removes it meanwhile. It may have been started before we had the lock.
        let lock = record::lock(&self.paths, id)?;
        let booted = if reconcile::locked(&self.paths, id)?.status.needs_shim() {
            None
        } else {
            let (programs, kernel) = Programs::find(&self.paths.root)?;
            let machine = Stopped::boot(&self.paths, &config, &programs)?;
            Some((machine, kernel, lock))
        };
        Ok(Some(InGuest { guest, booted }))
    }
}

/// A container's files in a guest.
struct InGuest {
    guest: Guest,
    /// The machine that was booted for it, with what keeps its kernel and its disk.
    booted: Option<(Stopped, Kernel, record::Lock)>,
}

impl InGuest {
    fn with(self, work: impl FnOnce(&Guest) -> Result<()>) -> Result<()> {
        let done = work(&self.guest);
        let ended = match self.booted {
            Some((machine, _kernel, _lock)) => machine.end(),
            None => Ok(()),
        };
        done.and(ended)
    }
}
