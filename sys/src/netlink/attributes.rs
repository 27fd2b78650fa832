//! Attributes of netlink messages, written front to back into one buffer.

const NESTED: u16 = 1 << 15;

/// Growing bytes of netlink messages.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Headers are the caller's to write.
    pub bytes: Vec<u8>,
}

impl Buffer {
    /// Overwrites a 16-bit length written earlier. A nest over 64 KiB would wrap; callers chunk their lists far below.
    fn patch(&mut self, at: usize) {
        let length = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// One attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.patch(at);
        self.pad();
    }

    /// A number in network byte order, as nftables wants them.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A zero-terminated string.
    pub fn text(&mut self, kind: u16, value: &str) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.patch(at);
        self.pad();
    }

    /// An attribute of attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        self.patch(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_lengths_are_not() {
        let mut buffer = Buffer::default();
        buffer.nest(1, |b| b.text(2, "lo"));
        let mut expected = Vec::new();
        expected.extend_from_slice(&12_u16.to_ne_bytes());
        expected.extend_from_slice(&(1_u16 | NESTED).to_ne_bytes());
        expected.extend_from_slice(&7_u16.to_ne_bytes());
        expected.extend_from_slice(&2_u16.to_ne_bytes());
        expected.extend_from_slice(b"lo\0\0");
        assert_eq!(buffer.bytes, expected);
    }
}
