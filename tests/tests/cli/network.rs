//! Networks: `-p`, `--network`, names, and the verbs `network` and `port`.

use berth_tests::Berth;

use crate::fixture::{berth, eventually, field, inside, remove_all, sleeping};

/// A web server in a container of this name, run with these flags; answers with its name.
fn serving(berth: &Berth, name: &str, flags: &[&str]) {
    let script = format!("mkdir /www; echo {name} > /www/index.html; httpd -f -p 80 -h /www");
    let command = [
        &["run", "-d", "--name", name],
        flags,
        &["busybox", "sh", "-c", &script],
    ];
    let _ = berth.run(command.concat()).ok();
}

/// What a server answers in the test's network, or nothing.
fn fetch(berth: &Berth, address: &str) -> String {
    let url = format!("http://{address}/");
    let got = berth.network().run("curl", &["-fsS", "--max-time", "5", &url]);
    got.stdout.trim_end().to_owned()
}

/// A script that fetches the page of the server of this name. Of a static busybox only `nslookup` looks names up, and its
/// wget crashes now and then where the C library's name service is missing.
fn fetch_by_name(name: &str) -> String {
    format!(
        "ip=$(nslookup {name} 2>/dev/null | awk '/^Address/ {{ a = $NF }} END {{ print a }}')
        printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $ip 80 | grep -o web"
    )
}

#[test]
fn published_ports_answer_and_are_told() {
    let Some(berth) = berth() else { return };
    serving(&berth, "web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80/tcp"]);
    eventually("it answers", || fetch(&berth, "127.0.0.1:8080") == "web");
    assert_eq!(fetch(&berth, "127.0.0.1:8081"), "web");
    assert_eq!(
        berth.run(["port", "web"]).ok(),
        "80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:8081"
    );
    assert_eq!(
        berth.run(["port", "web", "80"]).ok(),
        "0.0.0.0:8080\n127.0.0.1:8081"
    );
    let none = berth.run(["port", "web", "81/udp"]);
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("81/udp"), "{}", none.stderr);
    assert_eq!(
        berth.run(["ps", "--format", "{{.Ports}}"]).ok(),
        "0.0.0.0:8080->80/tcp, 127.0.0.1:8081->80/tcp"
    );
    remove_all(&berth);
    assert_eq!(fetch(&berth, "127.0.0.1:8080"), "");
}

#[test]
fn port_zero_is_one_the_kernel_chooses() {
    let Some(berth) = berth() else { return };
    for publish in ["127.0.0.1:0:80", "127.0.0.1::80"] {
        serving(&berth, "web", &["-p", publish]);
        let told = berth.run(["port", "web", "80/tcp"]).ok();
        let port: u16 = told
            .strip_prefix("127.0.0.1:")
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("{publish}: {told}"));
        assert_ne!(port, 0);
        eventually("it answers", || fetch(&berth, &told) == "web");
        let _ = berth.run(["rm", "-f", "web"]).ok();
    }
    for publish in ["0:80", "80", "0:80/udp"] {
        sleeping(&berth, "any", &["-p", publish]);
        let told = berth.run(["port", "any"]).ok();
        let port = told.rsplit(':').next().expect("a port");
        assert!(
            port.parse::<u16>().is_ok_and(|port| port != 0),
            "{publish}: {told}"
        );
        let _ = berth.run(["rm", "-f", "any"]).ok();
    }
    for bad in ["8080:0", "0", "0-1:80-81", "65536:80"] {
        let refused = berth.run(["run", "--rm", "-p", bad, "busybox", "true"]);
        assert_eq!(refused.code, 125, "{bad}");
        assert!(refused.stderr.contains(bad), "{}", refused.stderr);
    }
    remove_all(&berth);
}

#[test]
fn exposed_ports_are_published_when_asked() {
    let Some(berth) = berth() else { return };
    sleeping(
        &berth,
        "exposing",
        &["-P", "--expose", "80", "--expose", "53/udp"],
    );
    let told = berth.run(["port", "exposing"]).ok();
    let inside: Vec<_> = told.lines().filter_map(|l| l.split(" -> ").next()).collect();
    assert_eq!(inside, ["53/udp", "80/tcp"]);
    assert!(field(&berth, "exposing", "/Config/ExposedPorts/80~1tcp").is_object());
}

#[test]
fn exposed_ports_are_listed_while_it_runs() {
    let Some(berth) = berth() else { return };
    let listed = |flags: &[&str]| {
        sleeping(
            &berth,
            "open",
            &[&["--expose", "9000-9001", "--expose", "53/udp"], flags].concat(),
        );
        let running = berth.run(["ps", "--format", "{{.Ports}}"]).ok();
        let _ = berth.run(["stop", "-t", "0", "open"]).ok();
        assert_eq!(berth.run(["ps", "-a", "--format", "{{.Ports}}"]).ok(), "");
        let _ = berth.run(["rm", "open"]).ok();
        running
    };
    assert_eq!(
        listed(&["-p", "127.0.0.1:8080:80", "-p", "127.0.0.1:81:81"]),
        "53/udp, 127.0.0.1:81->81/tcp, 9000-9001/tcp, 127.0.0.1:8080->80/tcp"
    );
    assert_eq!(listed(&["--network", "none"]), "");
}

#[test]
fn a_range_of_ports() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "ranged", &["-p", "127.0.0.1:9000-9001:80-81"]);
    assert_eq!(
        berth.run(["port", "ranged"]).ok(),
        "80/tcp -> 127.0.0.1:9000\n81/tcp -> 127.0.0.1:9001"
    );
}

#[test]
fn networks_host_none_and_anothers() {
    let Some(berth) = berth() else { return };
    let links = "ip -o link | awk '{print $2}' | tr -d '\\n'";
    assert_eq!(inside(&berth, &["--network", "none"], links), "lo:");
    assert!(inside(&berth, &[], links).starts_with("lo:eth0@"));
    assert_eq!(
        inside(&berth, &["--net", "host"], "readlink /proc/self/ns/net"),
        std::fs::read_link(berth.network().path())
            .expect("read a link")
            .display()
            .to_string()
    );
    serving(&berth, "web", &[]);
    eventually("the neighbour on the same loopback answers", || {
        inside(
            &berth,
            &["--network", "container:web"],
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc 127.0.0.1 80 | tail -n 1",
        ) == "web"
    });
    sleeping(&berth, "named", &["--hostname", "itsname"]);
    let names = "hostname; echo $HOSTNAME; cat /etc/hostname";
    assert_eq!(
        inside(&berth, &["--network", "container:named"], names),
        "itsname\nitsname\nitsname",
        "whose network it is, is whose name it has"
    );
    let missing = berth.run(["run", "--rm", "--network", "no-such", "busybox", "true"]);
    assert_eq!(missing.code, 125);
    assert!(missing.stderr.contains("no-such"), "{}", missing.stderr);
    remove_all(&berth);
}

#[test]
fn a_container_without_network_makes_nothing_on_the_host() {
    let Some(berth) = berth() else { return };
    sleeping(&berth, "alone", &["--network", "none"]);
    assert_eq!(berth.network().left(), Vec::<String>::new());
    remove_all(&berth);
}

#[test]
fn resolver_hosts_and_addresses() {
    let Some(berth) = berth() else { return };
    let flags = [
        "--add-host",
        "one:192.0.2.1",
        "--add-host",
        "gateway:host-gateway",
        "--dns-search",
        "example.test",
        "--dns-option",
        "ndots:3",
        "--mac-address",
        "02:11:22:33:44:55",
        "--ip",
        "10.77.3.4",
    ];
    let shown = inside(
        &berth,
        &flags,
        "cat /etc/hosts /etc/resolv.conf; ip addr show eth0",
    );
    for want in [
        "192.0.2.1\tone",
        "10.77.0.1\tgateway",
        "search example.test",
        "ndots:3",
        "02:11:22:33:44:55",
        "inet 10.77.3.4/16",
    ] {
        assert!(shown.contains(want), "no {want:?} in {shown}");
    }
    let shown = inside(
        &berth,
        &["--network", "none", "--dns", "192.0.2.53"],
        "cat /etc/resolv.conf",
    );
    assert!(shown.contains("nameserver 192.0.2.53"), "{shown}");
    for bad in [
        ["--add-host", "nonsense"],
        ["--dns", "nonsense"],
        ["--ip", "nonsense"],
    ] {
        let refused = berth.run(["run", "--rm"].iter().chain(&bad).chain(&["busybox", "true"]));
        assert_eq!(refused.code, 125, "{bad:?}");
        assert!(refused.stderr.contains(bad[0]), "{}", refused.stderr);
    }
    remove_all(&berth);
}

#[test]
fn user_defined_networks_join_by_name() {
    let Some(berth) = berth() else { return };
    let id = berth
        .run([
            "network",
            "create",
            "--subnet",
            "10.99.0.0/24",
            "--label",
            "kind=test",
            "front",
        ])
        .ok();
    assert_eq!(id.len(), 64, "{id}");
    serving(&berth, "web", &["--network", "front", "--network-alias", "www"]);
    for name in ["web", "www"] {
        let ask = format!("{} || true", fetch_by_name(name));
        eventually("its neighbour finds it by name", || {
            inside(&berth, &["--network", "front"], &ask) == "web"
        });
    }
    assert!(
        field(&berth, "web", "/NetworkSettings/Networks/front/IPAddress")
            .as_str()
            .is_some_and(|ip| ip.starts_with("10.99.0."))
    );
    assert_eq!(
        berth
            .run([
                "network",
                "ls",
                "--filter",
                "label=kind=test",
                "--format",
                "{{.Name}}"
            ])
            .ok(),
        "front"
    );
    let busy = berth.run(["network", "rm", "front"]);
    assert_eq!(busy.code, 1);
    assert!(busy.stderr.contains("front"), "{}", busy.stderr);
    // Joined and left while it runs.
    sleeping(&berth, "late", &[]);
    let _ = berth.run(["network", "connect", "front", "late"]).ok();
    eventually("it finds its new neighbour", || {
        berth
            .run(["exec", "late", "sh", "-c", &fetch_by_name("web")])
            .stdout
            == "web\n"
    });
    let inspected = berth
        .run([
            "network",
            "inspect",
            "-f",
            "{{len .Containers}} {{(index .IPAM.Config 0).Subnet}}",
            "front",
        ])
        .ok();
    assert_eq!(inspected, "2 10.99.0.0/24");
    let _ = berth.run(["network", "disconnect", "front", "late"]).ok();
    let gone = berth.run(["exec", "late", "sh", "-c", &fetch_by_name("web")]);
    assert_ne!(gone.code, 0);
    let _ = berth.run(["rm", "-f", "web", "late"]).ok();
    let _ = berth.run(["network", "rm", "front"]).ok();
    let taken = berth.run(["network", "create", "bridge"]);
    assert_eq!(taken.code, 1);
    assert!(taken.stderr.contains("bridge"), "{}", taken.stderr);
    remove_all(&berth);
}

#[test]
fn the_networks_that_are_everywhere_have_rows() {
    let Some(berth) = berth() else { return };
    let listed = berth
        .run(["network", "ls", "--format", "{{.Name}} {{.Driver}}"])
        .ok();
    assert_eq!(listed, "bridge bridge\nhost host\nnone null");
    let host = berth
        .run(["network", "inspect", "-f", "{{.Driver}}", "host"])
        .ok();
    assert_eq!(host, "host");
    let ids = berth.run(["network", "ls", "-q"]).ok();
    let last = ids.lines().last().expect("three of them");
    assert_eq!(berth.run(["inspect", "-f", "{{.Driver}}", last]).ok(), "null");
    let refused = berth.run(["network", "rm", "host"]);
    assert_ne!(refused.code, 0);
}

#[test]
fn an_internal_network_has_no_way_out() {
    let Some(berth) = berth() else { return };
    let _ = berth.run(["network", "create", "--internal", "inner"]).ok();
    let routes = |network: &str| {
        inside(
            &berth,
            &["--network", network],
            "ip route | grep -c default || true",
        )
    };
    assert_eq!((routes("inner").as_str(), routes("bridge").as_str()), ("0", "1"));
    serving(&berth, "web", &["--network", "inner"]);
    let ask = format!("{} || true", fetch_by_name("web"));
    eventually("neighbours reach one another", || {
        inside(&berth, &["--network", "inner"], &ask) == "web"
    });
    remove_all(&berth);
}
