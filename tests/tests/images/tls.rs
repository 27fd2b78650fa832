//! A registry that speaks HTTPS and wants to know its clients: `certs.d`.

use std::path::Path;
use std::process::Command;

use berth_tests::{Berth, Need, Output, Registry, require};

use crate::fixture::{layout, oci, run, text};

/// Makes a CA, and a server's and a client's certificate signed by it.
fn certificates(directory: &Path) {
    let at = |name: &str| text(&directory.join(name)).to_owned();
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let (ca, ca_key) = (at("ca.crt"), at("ca.key"));
    let mut words = vec!["req", "-x509", "-days", "2", "-subj", "/CN=berth tests"];
    words.extend(new_key);
    words.extend(["-keyout", &ca_key, "-out", &ca]);
    run("openssl", &words);
    for (name, extension) in [
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("client", "extendedKeyUsage=clientAuth"),
    ] {
        let (key, request) = (at(&format!("{name}.key")), at(&format!("{name}.csr")));
        let (certificate, extensions) = (at(&format!("{name}.crt")), at(&format!("{name}.ext")));
        std::fs::write(&extensions, extension).expect("write a file");
        let subject = format!("/CN={name}");
        let mut words = vec!["req", "-subj", &subject];
        words.extend(new_key);
        words.extend(["-keyout", &key, "-out", &request]);
        run("openssl", &words);
        let sign = [
            "x509",
            "-req",
            "-days",
            "2",
            "-CAcreateserial",
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
        ];
        let files = ["-in", &request, "-extfile", &extensions, "-out", &certificate];
        run("openssl", &[&sign[..], &files[..]].concat());
    }
}

/// `berth pull` that finds `containers` where the host has `/etc/containers`: in a mount namespace of its own.
fn pull(berth: &Berth, containers: &Path, image: &str) -> Output {
    let inner = berth.command(["pull", "--quiet", image]);
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(r#"mount --bind "$0" /etc/containers && exec "$@""#)
        .arg(containers)
        .arg(inner.get_program())
        .args(inner.get_args())
        .output()
        .expect("start unshare")
        .into()
}

#[test]
fn a_registry_that_wants_a_client_certificate_gets_the_one_of_certs_d() {
    let needs = [
        Need::Root,
        Need::Program("docker-registry"),
        Need::Program("skopeo"),
        Need::Program("umoci"),
        Need::Program("openssl"),
        Need::Program("unshare"),
    ];
    if !require(&needs) {
        return;
    }
    let berth = Berth::new();
    let made = berth.scratch().join("certificates");
    std::fs::create_dir(&made).expect("make a directory");
    certificates(&made);
    let registry = Registry::start_with_client_certificates(&made);
    let image = format!("{}/mutual:1", registry.host());
    let containers = berth.scratch().join("containers");
    let own = containers.join("certs.d").join(registry.host());
    std::fs::create_dir_all(&own).expect("make a directory");
    let give = |from: &str, to: &str| {
        std::fs::copy(made.join(from), own.join(to)).expect("copy a certificate");
    };

    let refused = pull(&berth, &containers, &image);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains(&registry.host()) && refused.stderr.contains("certificate"),
        "a CA nobody vouched for: {}",
        refused.stderr
    );
    give("ca.crt", "ca.crt");
    let refused = pull(&berth, &containers, &image);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("https://") && refused.stderr.contains("certs.d/REGISTRY/"),
        "the client has none: {}",
        refused.stderr
    );
    give("client.crt", "client.cert");
    let refused = pull(&berth, &containers, &image);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains(text(
            &Path::new("/etc/containers/certs.d")
                .join(registry.host())
                .join("client.cert")
        )) && refused.stderr.contains("key"),
        "the key is missing: {}",
        refused.stderr
    );
    give("client.key", "client.key");
    let directory = text(&own).to_owned();
    let target = format!("docker://{image}");
    let source = oci(&layout(berth.scratch(), &["one"]));
    run(
        "skopeo",
        &["copy", "-q", "--dest-cert-dir", &directory, &source, &target],
    );
    assert_eq!(pull(&berth, &containers, &image).ok(), image);
}
