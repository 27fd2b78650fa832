//! Expressions: the instructions of a rule. Each reads registers, writes one, or ends the rule.

use berth_sys::netlink::Buffer;

/// Registers. `A` to `D` are 16 bytes each; `word(n)` are the same 64 bytes by 4.
pub(in crate::network) mod reg {
    /// First 16-byte register.
    pub(in crate::network) const A: u32 = 1;
    /// Second 16-byte register.
    pub(in crate::network) const B: u32 = 2;
    /// 4-byte register `n`: 0 is the start of `A`, 4 the start of `B`.
    pub(in crate::network) const fn word(n: u32) -> u32 {
        8 + n
    }
}

/// Where a rule sends the packet.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) enum Verdict<'a> {
    Accept,
    Drop,
    Jump(&'a str),
}

/// A rule under construction: expressions in order.
pub(in crate::network) struct Rule<'b> {
    pub(super) buffer: &'b mut Buffer,
}

const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

impl Rule<'_> {
    fn expr(&mut self, name: &str, fill: impl FnOnce(&mut Buffer)) -> &mut Self {
        self.buffer.nest(LIST_ELEM, |b| {
            b.text(1, name);
            b.nest(2, fill);
        });
        self
    }

    fn meta(&mut self, key: u32, into: u32) -> &mut Self {
        self.expr("meta", |b| {
            b.u32(1, into);
            b.u32(2, key);
        })
    }

    /// Loads the name of the link a packet came in by, 16 bytes.
    pub(in crate::network) fn iifname(&mut self, into: u32) -> &mut Self {
        self.meta(6, into)
    }

    /// Loads the name of the link a packet leaves by, 16 bytes.
    pub(in crate::network) fn oifname(&mut self, into: u32) -> &mut Self {
        self.meta(7, into)
    }

    /// Loads the transport protocol, 1 byte.
    pub(in crate::network) fn l4proto(&mut self, into: u32) -> &mut Self {
        self.meta(16, into)
    }

    /// Goes on for IPv4 packets alone.
    pub(in crate::network) fn ipv4(&mut self) -> &mut Self {
        self.meta(15, reg::A).equal(reg::A, &[2])
    }

    /// Loads `len` bytes from the link (0), network (1) or transport (2) header.
    pub(in crate::network) fn payload(&mut self, base: u32, offset: u32, len: u32, into: u32) -> &mut Self {
        self.expr("payload", |b| {
            b.u32(1, into);
            b.u32(2, base);
            b.u32(3, offset);
            b.u32(4, len);
        })
    }

    fn compare(&mut self, register: u32, operator: u32, value: &[u8]) -> &mut Self {
        self.expr("cmp", |b| {
            b.u32(1, register);
            b.u32(2, operator);
            b.nest(3, |b| b.put(DATA_VALUE, value));
        })
    }

    /// Goes on when the register starts with `value`.
    pub(in crate::network) fn equal(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.compare(register, 0, value)
    }

    /// Goes on when the register does not start with `value`.
    pub(in crate::network) fn differ(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.compare(register, 1, value)
    }

    /// Goes on when the register has one of the bits.
    fn any_bit(&mut self, register: u32, bits: u32) -> &mut Self {
        self.expr("bitwise", |b| {
            b.u32(1, register);
            b.u32(2, register);
            b.u32(3, 4);
            b.nest(4, |b| b.put(DATA_VALUE, &bits.to_ne_bytes()));
            b.nest(5, |b| b.put(DATA_VALUE, &[0; 4]));
        })
        .differ(register, &[0; 4])
    }

    /// Goes on for packets of known connections (established or related).
    pub(in crate::network) fn known(&mut self) -> &mut Self {
        self.ct(0, reg::A).any_bit(reg::A, 2 | 4)
    }

    /// Goes on for packets whose destination was translated (IPS_DST_NAT).
    pub(in crate::network) fn translated(&mut self) -> &mut Self {
        self.ct(2, reg::A).any_bit(reg::A, 1 << 5)
    }

    fn ct(&mut self, key: u32, into: u32) -> &mut Self {
        self.expr("ct", |b| {
            b.u32(1, into);
            b.u32(2, key);
        })
    }

    /// Goes on when the destination is an address of this host (RTN_LOCAL).
    pub(in crate::network) fn local_destination(&mut self) -> &mut Self {
        self.expr("fib", |b| {
            b.u32(1, reg::A);
            b.u32(2, 3);
            b.u32(3, 2);
        })
        .equal(reg::A, &2_u32.to_ne_bytes())
    }

    /// Goes on when the set has the key that starts at `register`.
    pub(in crate::network) fn lookup(&mut self, set: &str, register: u32) -> &mut Self {
        self.expr("lookup", |b| {
            b.text(1, set);
            b.u32(2, register);
        })
    }

    /// Goes on when the set lacks the key.
    pub(in crate::network) fn lookup_not(&mut self, set: &str, register: u32) -> &mut Self {
        self.expr("lookup", |b| {
            b.text(1, set);
            b.u32(2, register);
            b.u32(5, 1);
        })
    }

    /// Loads what the map holds for the key; ends the rule when it holds nothing.
    pub(in crate::network) fn map(&mut self, map: &str, register: u32, into: u32) -> &mut Self {
        self.expr("lookup", |b| {
            b.text(1, map);
            b.u32(2, register);
            b.u32(3, into);
        })
    }

    /// Loads a constant.
    pub(in crate::network) fn constant(&mut self, value: &[u8], into: u32) -> &mut Self {
        self.expr("immediate", |b| {
            b.u32(1, into);
            b.nest(2, |b| b.put(DATA_VALUE, value));
        })
    }

    /// Translates the destination to the address and port in two registers.
    pub(in crate::network) fn dnat(&mut self, address: u32, port: u32) {
        self.expr("nat", |b| {
            b.u32(1, 1);
            b.u32(2, 2);
            b.u32(3, address);
            b.u32(5, port);
        });
    }

    /// Translates the source to the address of the link the packet leaves by.
    pub(in crate::network) fn masquerade(&mut self) {
        self.expr("masq", |_| {});
    }

    /// Ends the rule.
    pub(in crate::network) fn verdict(&mut self, verdict: Verdict<'_>) {
        self.expr("immediate", |b| {
            b.u32(1, 0);
            b.nest(2, |b| {
                b.nest(DATA_VERDICT, |b| match verdict {
                    Verdict::Accept => b.u32(1, 1),
                    Verdict::Drop => b.u32(1, 0),
                    Verdict::Jump(chain) => {
                        b.put(1, &(-3_i32).to_be_bytes());
                        b.text(2, chain);
                    }
                });
            });
        });
    }
}
