//! Networks of containers: bridge, veth, address leases, published ports, DNS.
