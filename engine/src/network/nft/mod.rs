//! nftables over nfnetlink: transactions ([`batch`]) of tables, chains, sets and rules made of expressions ([`expr`]).
//!
//! Only what berth's rules need. Attribute numbers are those of linux/netfilter/nf_tables.h; integers are big-endian.

mod batch;
mod conntrack;
mod expr;

pub(super) use batch::{Batch, Chain, Change, Element, Family, Hook, Nft, Set, Table};
pub(super) use expr::{Verdict, reg};
