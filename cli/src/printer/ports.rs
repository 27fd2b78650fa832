//! Ports for people, in docker's words and order.

use std::net::Ipv4Addr;

use berth_engine::OpenPort;

/// Neighbours that are told together: exposed, or published at the number they have inside.
struct Run {
    at: Option<Ipv4Addr>,
    protocol: &'static str,
    first: u16,
    last: u16,
}

impl Run {
    fn text(&self) -> String {
        let Run {
            at,
            protocol,
            first,
            last,
        } = self;
        let numbers = if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        };
        match at {
            Some(ip) => format!("{ip}:{numbers}->{numbers}/{protocol}"),
            None => format!("{numbers}/{protocol}"),
        }
    }
}

/// As `0.0.0.0:80-81->80-81/tcp, 443/tcp, 127.0.0.1:8080->8000/tcp`: by number, what is published elsewhere last.
pub fn ports(open: &[OpenPort]) -> String {
    let mut sorted = open.to_vec();
    sorted.sort();
    let (mut told, mut runs, mut moved) = (Vec::new(), Vec::<Run>::new(), Vec::new());
    for port in sorted {
        let (number, protocol) = (port.number, port.protocol);
        let at = match port.published {
            Some((ip, outside)) if outside != number => {
                moved.push(format!("{ip}:{outside}->{number}/{protocol}"));
                continue;
            }
            other => other.map(|(ip, _)| ip),
        };
        let next = Run {
            at,
            protocol,
            first: number,
            last: number,
        };
        match runs
            .iter_mut()
            .find(|run| (run.at, run.protocol) == (at, protocol))
        {
            Some(run) if number - 1 == run.last => run.last = number,
            Some(run) => told.push(std::mem::replace(run, next).text()),
            None => runs.push(next),
        }
    }
    told.extend(runs.iter().map(Run::text));
    told.extend(moved);
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(number: u16, protocol: &'static str) -> OpenPort {
        OpenPort {
            number,
            published: None,
            protocol,
        }
    }

    fn published(ip: [u8; 4], outside: u16, number: u16) -> OpenPort {
        OpenPort {
            published: Some((ip.into(), outside)),
            ..exposed(number, "tcp")
        }
    }

    #[test]
    fn neighbours_are_told_together_and_moved_ones_last() {
        const ANY: [u8; 4] = [0; 4];
        for (open, expected) in [
            (&[][..], ""),
            (&[exposed(80, "tcp")], "80/tcp"),
            (
                &[exposed(443, "tcp"), published(ANY, 80, 80)],
                "0.0.0.0:80->80/tcp, 443/tcp",
            ),
            (
                &[published(ANY, 8080, 443), exposed(9000, "tcp")],
                "9000/tcp, 0.0.0.0:8080->443/tcp",
            ),
            (
                &[
                    published(ANY, 81, 81),
                    published(ANY, 80, 80),
                    published([127, 0, 0, 1], 80, 80),
                ],
                "0.0.0.0:80-81->80-81/tcp, 127.0.0.1:80->80/tcp",
            ),
            // One that is interrupted is told before those that go on to the end.
            (
                &[
                    exposed(1, "udp"),
                    exposed(2, "tcp"),
                    exposed(4, "tcp"),
                    exposed(5, "tcp"),
                ],
                "2/tcp, 1/udp, 4-5/tcp",
            ),
            (
                &[exposed(u16::MAX, "sctp"), exposed(1, "sctp")],
                "1/sctp, 65535/sctp",
            ),
        ] {
            assert_eq!(ports(open), expected);
        }
    }
}
