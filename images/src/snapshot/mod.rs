//! Unpacked layers on disk, stored once and shared by every image and container.
//!
//! ```text
//! ROOT/layers/<hex>/fs           the layer in overlayfs upper-dir form
//! ROOT/layers/<hex>/layer.json   [`Record`]
//! ROOT/layers/<hex>/layer.erofs  the same layer as a disk for guests, once one has asked for it
//! ROOT/layers/.new-<random>/     being unpacked; its flock is held while its maker lives
//! ROOT/layers/.old-<random>/     being removed
//!
//! receive ──► Pending (private dir) ──► commit ──► LayerRef (final name, shared flock)
//!        (parallel, any order)      (in order, one syncfs for all)
//! ```
//!
//! `<hex>` is the layer's **diffID** when its tar says all there is to say. When the meaning depends on the layers below
//! (a hard link to a file of a lower layer, a directory that only deeper names imply and that takes the lower one's
//! owner and mode) it is the **chainID** (image-spec config.md#layer-chainid). Whether a layer is of the one or the other kind
//! depends on its bytes alone, so a lookup tries the diffID, then the chainID.
//!
//! A name without a leading dot is a whole layer, synced to disk. Private directories of dead processes are removed by
//! [`Store::sweep`]. Removing takes the layer's lock exclusively and a [`LayerRef`] holds it shared, so a layer someone has just
//! looked up does not vanish before the image or container that needs it is on record.

mod commit;
mod disk;
mod lower;
pub(crate) mod pending;
mod store;

pub use disk::disk_beside;
pub use pending::Pending;
pub use store::{LayerRef, Record, RootAttributes, Slot, Store, chain_ids};
