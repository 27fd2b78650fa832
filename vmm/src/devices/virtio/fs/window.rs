//! Chains of ours as fuse-backend-rs takes them: it reads queues by the next older version of vm-memory and virtio-queue.
//!
//! In a window an address is the host's. Its memory is the guest's once more, and a table of descriptors that only this
//! process writes: what the server sees are ranges that [`Chain`] has checked, never the guest's own table.
#![allow(unsafe_code)] // two versions of one library look at the same mapping

use fuse_backend_rs::transport::{Reader, VirtioFsWriter, Writer};
use fuse_virtio_queue::{Queue, QueueOwnedT, QueueT};
use fuse_vm_memory::{Bytes, GuestAddress, GuestMemoryMmap as View, GuestRegionMmap, MmapRegion};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::super::chain::{Chain, Malformed, Slice};

/// Descriptors of the table: a chain has at most 1024, and each may lie across a border between two regions.
const LONGEST: u16 = 2048;
const DESCRIPTOR: usize = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Where the available ring lies behind the table, and where the used ring would, which nobody writes.
const AVAILABLE: u64 = LONGEST as u64 * DESCRIPTOR as u64;
const USED: u64 = AVAILABLE + 4 + 2 * LONGEST as u64 + 4;
const TABLE_LEN: usize = 64 << 10;

/// The guest's memory, for the server.
pub(super) struct Window {
    view: View,
    /// Where the table is.
    table: u64,
    queue: Queue,
    offered: u16,
    /// Keeps mapped what `view` shows.
    _guest: GuestMemoryMmap,
}

const NO_WINDOW: Malformed = Malformed("the guest's memory cannot be shown to the file server");

impl Window {
    /// Shows all of `guest`. Fails when the process has no memory left for the table.
    pub(super) fn over(guest: &GuestMemoryMmap) -> Result<Window, Malformed> {
        let no_window = |_| NO_WINDOW;
        let table = MmapRegion::<()>::new(TABLE_LEN).map_err(no_window)?;
        let table_at = table.as_ptr() as u64;
        let mut mappings = vec![table];
        for region in guest.iter() {
            let size = usize::try_from(region.len()).expect("a 64-bit host");
            let (protection, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            // SAFETY: the region is mapped so for as long as `_guest`, a reference to it, lives, which is as long as this
            // view of it. Nobody holds Rust references to guest memory.
            let shown = unsafe { MmapRegion::build_raw(region.as_ptr(), size, protection, flags) };
            mappings.push(shown.map_err(no_window)?);
        }
        mappings.sort_by_key(|mapping| mapping.as_ptr() as usize);
        let regions = mappings.into_iter().map(|mapping| {
            let at = GuestAddress(mapping.as_ptr() as u64);
            GuestRegionMmap::new(mapping, at).ok_or(NO_WINDOW)
        });
        let view = View::from_regions(regions.collect::<Result<_, _>>()?).map_err(|_| NO_WINDOW)?;
        let mut queue = Queue::new(LONGEST).expect("a power of two");
        queue.set_size(LONGEST);
        let place = |behind: u64| {
            let [low, high] = halves(table_at + behind);
            (Some(low), Some(high))
        };
        let (low, high) = place(0);
        queue.set_desc_table_address(low, high);
        let (low, high) = place(AVAILABLE);
        queue.set_avail_ring_address(low, high);
        let (low, high) = place(USED.next_multiple_of(4));
        queue.set_used_ring_address(low, high);
        queue.set_ready(true);
        Ok(Window {
            view,
            table: table_at,
            queue,
            offered: 0,
            _guest: guest.clone(),
        })
    }

    /// What the chain says, and the room for the answer. Nothing is taken from the chain.
    pub(super) fn views(
        &mut self,
        memory: &GuestMemoryMmap,
        chain: &Chain,
    ) -> Result<(Reader<'_>, Writer<'_>), Malformed> {
        let mut slices = Vec::new();
        chain.readable_slices(memory, &mut slices)?;
        let readable = slices.len();
        chain.writable_slices(memory, &mut slices)?;
        self.describe(&slices, readable)?;
        self.offer()?;
        let chain = self
            .queue
            .iter(&self.view)
            .map_err(|_| NO_WINDOW)?
            .next()
            .ok_or(NO_WINDOW)?;
        let request = Reader::from_descriptor_chain(&self.view, chain.clone()).map_err(|_| NO_WINDOW)?;
        let answer = VirtioFsWriter::new(&self.view, chain).map_err(|_| NO_WINDOW)?;
        Ok((request, Writer::VirtioFs(answer)))
    }

    /// Writes the table: one chain from descriptor 0, of which the first `readable` are.
    fn describe(&self, slices: &[Slice<'_>], readable: usize) -> Result<(), Malformed> {
        if slices.is_empty() || slices.len() > usize::from(LONGEST) {
            return Err(NO_WINDOW);
        }
        let mut table = Vec::with_capacity(slices.len() * DESCRIPTOR);
        for (number, slice) in (0_u16..).zip(slices) {
            let last = usize::from(number) + 1 == slices.len();
            let way = if usize::from(number) < readable { 0 } else { WRITE };
            let flags = way | if last { 0 } else { NEXT };
            table.extend_from_slice(&(slice.ptr_guard_mut().as_ptr() as u64).to_le_bytes());
            table.extend_from_slice(&u32::try_from(slice.len()).map_err(|_| NO_WINDOW)?.to_le_bytes());
            table.extend_from_slice(&flags.to_le_bytes());
            table.extend_from_slice(&(number + 1).to_le_bytes());
        }
        self.view
            .write_slice(&table, GuestAddress(self.table))
            .map_err(|_| NO_WINDOW)
    }

    /// Puts descriptor 0 into the available ring once more; all of its entries are 0 from the start.
    fn offer(&mut self) -> Result<(), Malformed> {
        self.offered = self.offered.wrapping_add(1);
        let index = GuestAddress(self.table + AVAILABLE + 2);
        self.view
            .write_obj(self.offered.to_le(), index)
            .map_err(|_| NO_WINDOW)
    }
}

fn halves(address: u64) -> [u32; 2] {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits");
    [half(address), half(address >> 32)]
}
