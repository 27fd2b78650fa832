//! A microVM's network cards: what the monitor opens on the host, and what PID 1 makes of them inside.
//!
//! A card is found inside by its hardware address, which both sides are told; the address is the lease's, so the guard of the
//! bridge lets its frames through (docs/network.md).

use std::net::{IpAddr, Ipv4Addr};

use berth_guest::protocol::{Address, Interface, Route};
use serde_json::{Value, json};

use crate::network::{self, EndpointStatus};

/// The monitor's `network-interfaces`: a card on each TAP.
pub(super) fn outside(endpoints: &[EndpointStatus]) -> Value {
    let cards = endpoints.iter().map(|endpoint| {
        json!({
            "iface_id": endpoint.ifname,
            "host_dev_name": endpoint.link,
            "guest_mac": endpoint.mac,
        })
    });
    cards.collect()
}

/// What the guest calls its cards, and their addresses.
pub(super) fn inside(endpoints: &[EndpointStatus]) -> Vec<Interface> {
    let interfaces = endpoints.iter().map(|endpoint| Interface {
        mac: endpoint.mac.to_string(),
        name: endpoint.ifname.clone(),
        mtu: None,
        addresses: vec![Address {
            ip: endpoint.ip.into(),
            prefix: endpoint.prefix,
        }],
    });
    interfaces.collect()
}

/// The default route, where a network leads outside.
pub(super) fn routes(endpoints: &[EndpointStatus]) -> Vec<Route> {
    let everywhere = Address {
        ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        prefix: 0,
    };
    let outward = network::primary(endpoints).map(|endpoint| Route {
        to: everywhere,
        via: endpoint.gateway.into(),
    });
    outward.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(number: u8, internal: bool) -> EndpointStatus {
        EndpointStatus {
            network: format!("n{number}"),
            bridge: format!("br{number}"),
            ip: [10, number, 0, 7].into(),
            prefix: 24,
            gateway: [10, number, 0, 1].into(),
            mac: network::Mac([2, 0, 0, 0, 0, number]),
            ifname: format!("eth{number}"),
            link: format!("bv{number}"),
            internal,
            names: Vec::new(),
        }
    }

    #[test]
    fn the_way_out_is_by_the_first_network_that_has_one() {
        let endpoints = [endpoint(0, true), endpoint(1, false), endpoint(2, false)];
        let via: Vec<IpAddr> = routes(&endpoints).iter().map(|route| route.via).collect();
        assert_eq!(via, [IpAddr::from([10, 1, 0, 1])]);
        assert_eq!(routes(&endpoints[..1]), []);
    }

    #[test]
    fn both_sides_are_told_the_same_card() {
        let endpoints = [endpoint(0, false)];
        assert_eq!(
            outside(&endpoints),
            json!([{"iface_id": "eth0", "host_dev_name": "bv0", "guest_mac": "02:00:00:00:00:00"}])
        );
        assert_eq!(inside(&endpoints)[0].mac, "02:00:00:00:00:00");
        assert_eq!(outside(&[]), json!([]));
    }
}
