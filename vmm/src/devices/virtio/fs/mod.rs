//! virtio-fs (virtio 1.2 §5.11): a directory of the host's, as the guest's own file system.
//!
//! ```text
//! queue ─► window.rs: the chain as the FUSE server takes it ─► fuse-backend-rs: Server, which reads the request
//!                                                                        └─► directory/: what it asks for, on the host
//! ```
//!
//! A share is served by a thread of its own (`crate::shares`): a file of the host that makes wait makes nobody else wait.

mod directory;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use fuse_backend_rs::abi::fuse_abi::{InHeader, OutHeader};
use fuse_backend_rs::api::server::Server;
use vm_memory::GuestMemoryMmap;

pub(crate) use self::directory::{Budget, Directory};
use self::window::Window;
use super::chain::{Chain, Malformed};
use super::device::{Active, Device};
use super::saved::Kept;

/// For requests that have no answer, and for all others (virtio 1.2 §5.11.2).
const QUEUE_SIZES: [u16; 2] = [128, 1024];
const REQUEST_QUEUES: u32 = 1;
/// Bytes of a tag in the configuration space (virtio 1.2 §5.11.4).
pub(crate) const TAG_MAX: usize = 36;
/// The most a request may say: a write of what the server takes at once, and its heads. The server keeps some requests in
/// memory whole.
const REQUEST_MAX: usize = (1 << 20) + (8 << 10);

const IN_HEADER: usize = size_of::<InHeader>();
const OUT_HEADER: usize = size_of::<OutHeader>();

/// A shared directory as the guest sees it.
pub(crate) struct Fs {
    config: [u8; TAG_MAX + 4],
    directory: Arc<Directory>,
    server: Server<Arc<Directory>>,
    /// Over the memory of the driver's first start, which stays the same.
    window: Option<Window>,
}

impl Fs {
    /// `tag` has at most [`TAG_MAX`] bytes.
    pub(crate) fn new(tag: &str, directory: Directory) -> Fs {
        let mut config = [0; TAG_MAX + 4];
        config[..tag.len()].copy_from_slice(tag.as_bytes());
        config[TAG_MAX..].copy_from_slice(&REQUEST_QUEUES.to_le_bytes());
        let directory = Arc::new(directory);
        Fs {
            config,
            server: Server::new(directory.clone()),
            directory,
            window: None,
        }
    }

    fn serve(&mut self, memory: &GuestMemoryMmap, mut chain: Chain) -> Result<usize, Malformed> {
        if chain.readable() > REQUEST_MAX {
            return Err(Malformed("a request is longer than any can be"));
        }
        let window = match &mut self.window {
            Some(window) => window,
            none => none.insert(Window::over(memory)?),
        };
        let (request, answer) = window.views(memory, &chain)?;
        let mut head = [0; IN_HEADER];
        chain.read(memory, &mut head)?;
        match self.server.handle_message(request, answer, None, None) {
            Ok(length) => Ok(length),
            // The server could not make sense of it, or had no room to say what came of it. Whatever it had begun to
            // say, this is the answer now.
            Err(_) if chain.writable() >= OUT_HEADER => {
                let unique = &head[8..16];
                let mut answer = [0; OUT_HEADER];
                answer[..4].copy_from_slice(&16_u32.to_le_bytes());
                answer[4..8].copy_from_slice(&(-libc::EIO).to_le_bytes());
                answer[8..].copy_from_slice(unique);
                chain.write(memory, &answer)?;
                Ok(OUT_HEADER)
            }
            // Of those without an answer there is nothing to be said.
            Err(_) => Ok(0),
        }
    }
}

impl Device for Fs {
    fn kind(&self) -> u32 {
        virtio_bindings::virtio_ids::VIRTIO_ID_FS
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn notified(&mut self, active: &mut Active, queue: usize) -> Result<(), Malformed> {
        active.drain(queue, |memory, chain| self.serve(memory, chain).map(Some))
    }

    fn reset(&mut self) {
        // A driver that comes next knows nothing of what the last one looked up.
        self.directory.forget_all();
    }

    fn save(&mut self) -> Result<Kept, &'static str> {
        Err("a shared directory's open files cannot be opened again by number (shared-directories)")
    }
}
