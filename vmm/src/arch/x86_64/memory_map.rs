//! What of memory the guest may use, as both boot protocols tell it.

use super::layout;

/// Kinds of memory, with e820's numbers, which are PVH's too.
pub(super) const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// Start, length and kind of each part, for a machine with `bytes` of memory however it lies.
pub(super) fn memory_map(bytes: u64) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, layout::LOW_RAM_END, RAM),
        (layout::RSDP, layout::HIGH_RAM - layout::RSDP, RESERVED),
    ];
    for (start, length) in layout::ram(bytes) {
        let from = start.max(layout::HIGH_RAM);
        let length = (start + length).saturating_sub(from);
        if length > 0 {
            map.push((from, length, RAM));
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_spares_tables_and_hole() {
        let gib = 1 << 30;
        assert_eq!(
            memory_map(4 * gib)[2..],
            [
                (layout::HIGH_RAM, 3 * gib - layout::HIGH_RAM, RAM),
                (4 * gib, gib, RAM)
            ]
        );
    }
}
