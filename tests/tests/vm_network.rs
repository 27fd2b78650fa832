//! Networks of `berth run --isolation vm` in the test VM: a microVM beside a container on the same network, both seen from the
//! host and from a machine beyond it.

use berth_tests::{BerthVm, NGINX_SAYS, Need, TEST_VM, nginx_archive, require};

/// A machine beyond the host, at 198.51.100.2: it knows no way back but to the host itself.
const OUTSIDE: &str =
    "mkdir -p /www && dd if=/dev/urandom of=/www/data bs=1M count=4 2>/dev/null && echo far >/www/index.html
    unshare -n sh -c 'ip link set lo up; until ip link set veth0 up; do sleep 0.1; done 2>/dev/null
        ip addr add 198.51.100.2/24 dev veth0; exec httpd -f -p 80 -h /www' & pid=$!
    echo $pid >/outside
    until [ $(readlink /proc/$pid/ns/net) != $(readlink /proc/$$/ns/net) ]; do sleep 0.1; done
    ip link add near type veth && ip link set veth0 netns $pid
    ip addr add 198.51.100.1/24 dev near && ip link set near up
    until wget -q -O /dev/null http://198.51.100.2/; do sleep 0.1; done";

/// Links of microVMs and containers.
const LINKS: &str = "ls /sys/class/net | grep -E '^(bv|berth|br)'; true";

/// Datagrams that came to a port where nobody listens: `NoPorts` of /proc/net/snmp.
const UNHEARD: &str = "awk '/^Udp: [0-9]/ { print $3 }' /proc/net/snmp";

#[test]
fn a_microvm_is_a_neighbour() {
    let of_image = [
        Need::Program("mmdebstrap"),
        Need::Program("umoci"),
        Need::Program("skopeo"),
    ];
    if !require(&[TEST_VM, &of_image].concat()) {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let archive = scratch.path().join("nginx.tar");
    nginx_archive(&archive);
    let mut host = BerthVm::boot_with(vec![(archive, "/nginx.tar".into(), 0o644)]);
    host.add_kernel();
    let _ = host.run(OUTSIDE).ok();
    let before = host.look();
    refused_before_it_is_made(&mut host);

    let _ = host
        .run(
            "berth network create --subnet 10.9.0.0/24 front &&
             berth run -d --name peer --network front busybox sh -c 'mkdir /www; echo peer >/www/index.html; exec httpd -f -p 80 -h /www'",
        )
        .ok();
    let _ = host
        .run(
            "berth run -d --isolation vm --name web --hostname inside --network front --network-alias alias --ip 10.9.0.9 \
             --add-host db:192.0.2.5 --dns 198.51.100.2 -p 8080:80 -p 127.0.0.1:5300:5300/udp busybox \
             sh -c 'mkdir /www; echo web >/www/index.html; exec httpd -f -p 80 -h /www'",
        )
        .ok();
    it_is_as_it_was_asked_for(&mut host);
    it_is_reached(&mut host);
    it_reaches(&mut host);
    // From one microVM to another, which is gone without a trace when it ends.
    let other = "berth run --rm --isolation vm --network front busybox sh -c 'wget -q -O - http://web/; wget -q -O - http://peer/'";
    assert_eq!(host.run(other).ok(), "web\npeer");
    for verb in ["connect bridge web", "disconnect front web"] {
        let refused = host.run(&format!("berth network {verb} 2>&1"));
        assert_ne!(refused.code, 0, "{verb}");
        assert!(
            refused.stdout.contains("it keeps those it started with"),
            "{verb}: {}",
            refused.stdout
        );
    }
    nginx_serves_its_page(&mut host);
    it_leaves_nothing(&mut host, &before);
}

/// A real image, whose layers become disks: a server that looks up its user, opens a privileged port, and logs to its streams.
fn nginx_serves_its_page(host: &mut BerthVm) {
    let page = host
        .run(
            "berth load -q -i /nginx.tar && rm /nginx.tar && berth run -d --isolation vm --name site -p 8081:80 nginx:1 &&
             until wget -q -O - http://127.0.0.1:8081/; do sleep 0.5; done
             nsenter -n -t $(cat /outside) wget -q -O - http://198.51.100.1:8081/",
        )
        .ok();
    let said: Vec<&str> = page.lines().rev().take(2).collect();
    assert_eq!(said, [NGINX_SAYS, NGINX_SAYS], "{page}");
    assert!(host.run("berth logs site").ok().contains("GET / "));
    assert_eq!(host.run("berth stop site && berth wait site").ok(), "site\n0");
    let _ = host.run("berth rm site").ok();
}

fn refused_before_it_is_made(host: &mut BerthVm) {
    let cases = [
        ("--network host", "--network host"),
        ("--network container:peer", "--network container:"),
        ("--dns 127.0.0.1", "--dns with a loopback address"),
    ];
    for (flag, named) in cases {
        let refused = host.run(&format!("berth run --isolation vm {flag} --rm busybox true 2>&1"));
        assert_eq!(refused.code, 125, "{flag}");
        assert!(refused.stdout.contains(named), "{flag}: {}", refused.stdout);
    }
}

/// Address, names and ports, as the host tells them and as the guest has them.
fn it_is_as_it_was_asked_for(host: &mut BerthVm) {
    let told = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}} {{.Gateway}}{{end}}";
    assert_eq!(
        host.run(&format!("berth inspect -f '{told}' web")).ok(),
        "10.9.0.9 02:be:0a:09:00:09 10.9.0.1"
    );
    assert_eq!(
        host.run("berth port web").ok(),
        "80/tcp -> 0.0.0.0:8080\n5300/udp -> 127.0.0.1:5300"
    );
    assert!(host.run("berth ps").ok().contains("0.0.0.0:8080->80/tcp"));
    let inside = host
        .run(
            "berth exec web sh -c 'hostname; cat /sys/class/net/eth0/address; ip -4 -o addr show eth0; ip route
             cat /etc/hosts /etc/resolv.conf'",
        )
        .ok();
    for line in [
        "inside",
        "02:be:0a:09:00:09",
        "10.9.0.9/24 brd 10.9.0.255",
        "default via 10.9.0.1 dev eth0",
        "10.9.0.9\tinside",
        "192.0.2.5\tdb",
        "nameserver 10.9.0.1",
    ] {
        assert!(inside.contains(line), "no {line:?} in {inside}");
    }
}

/// By its published ports from the host and from beyond, and by its names from a container.
fn it_is_reached(host: &mut BerthVm) {
    for address in ["127.0.0.1:8080", "198.51.100.1:8080"] {
        assert_eq!(
            host.run(&format!("wget -q -O - http://{address}/")).ok(),
            "web",
            "{address}"
        );
    }
    let beyond = "nsenter -n -t $(cat /outside) wget -q -O - http://198.51.100.1:8080/";
    assert_eq!(host.run(beyond).ok(), "web");
    for name in ["web", "alias"] {
        assert_eq!(
            host.run(&format!("berth exec peer wget -q -O - http://{name}/"))
                .ok(),
            "web",
            "{name}"
        );
    }
    // Nobody listens there, which the guest's kernel counts.
    let unheard = format!("berth exec web {UNHEARD}")
        .replace('\'', "\"")
        .replace('$', "\\$");
    let count = |host: &mut BerthVm| -> u64 { host.run(&unheard).ok().parse().expect("a number") };
    let until_now = count(host);
    let _ = host.run("timeout 1 nslookup -type=a x.test 127.0.0.1:5300");
    assert!(count(host) > until_now, "no datagram came");
}

/// A container by name, the world by address, and a resolver of its own by both.
fn it_reaches(host: &mut BerthVm) {
    assert_eq!(
        host.run("berth exec web sh -c 'wget -q -O - http://peer/; nslookup -type=a host.berth.internal | grep -c 10.9.0.1$'").ok(),
        // Once as the server, once as the answer.
        "peer\n2"
    );
    // Large frames, masqueraded: beyond the host nobody knows the way to 10.9.0.9.
    let sum = host.run("md5sum </www/data").ok();
    let fetched = "berth exec web sh -c 'wget -q -O - http://198.51.100.2/data | md5sum'";
    assert_eq!(host.run(fetched).ok(), sum);
    let stats = host.run("berth stats --no-stream --format '{{.NetIO}}' web").ok();
    let (received, sent) = stats.split_once(" / ").expect("two numbers");
    assert!(received.ends_with("MB") && !sent.ends_with("MB"), "{stats}");
    // What is nobody's name here goes to --dns.
    let asked = format!("nsenter -n -t $(cat /outside) {UNHEARD}");
    let until_now: u64 = host.run(&asked).ok().parse().expect("a number");
    let _ = host.run("berth exec web nslookup -type=a far.test");
    let now: u64 = host.run(&asked).ok().parse().expect("a number");
    assert!(now > until_now, "no question came");
}

/// Whatever ends it: its monitor, its shim, or a verb.
fn it_leaves_nothing(host: &mut BerthVm, before: &str) {
    let _ = host.run("kill -9 $(pidof berth-vmm); berth wait web").ok();
    assert_eq!(
        host.run("berth ps -a --filter name=web --format '{{.State}}'")
            .ok(),
        "exited"
    );
    let refused = host.run("wget -q -O - http://127.0.0.1:8080/ 2>&1").stdout;
    assert!(refused.contains("refused"), "{refused}");
    let _ = host.run("berth rm -f web peer && berth network rm front").ok();
    // While it boots nobody but its shim knows of the monitor, and one that stands does not end by itself.
    let _ = host
        .run(
            "berth run -d --isolation vm --name orphan -p 8080:80 busybox sleep 600 >/dev/null 2>&1 &
             until pidof berth-vmm >/dev/null; do sleep 0.1; done
             kill -STOP $(pidof berth-vmm); kill -9 $(pidof berth-shim); wait; berth ps -a",
        )
        .ok();
    assert_eq!(host.run(LINKS).ok(), "", "after the next command");
    let _ = host.run("berth rm orphan").ok();
    assert_eq!(host.settled(before), before);
}
