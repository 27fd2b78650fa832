//! A real image through its whole life, as the demo does: from a registry, published, fetched, looked at, stopped.

use berth_tests::{Berth, NGINX_SAYS, Need, Registry, nginx_layout, require};

use crate::fixture::eventually;

#[test]
fn nginx_from_the_registry_to_its_end() {
    let needs = [
        Need::Root,
        Need::Program("docker-registry"),
        Need::Program("skopeo"),
        Need::Program("mmdebstrap"),
        Need::Program("umoci"),
        Need::Program("curl"),
    ];
    if !require(&needs) {
        return;
    }
    let registry = Registry::start();
    let image = registry.push_with_skopeo(&format!("oci:{}:latest", nginx_layout().display()), "web/nginx:1");
    let mut berth = Berth::new();
    let _ = berth.run(["pull", "--quiet", &image]).ok();
    assert!(berth.run(["images"]).ok().contains("web/nginx"));
    berth.enter_network();
    let _ = berth
        .run([
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            "127.0.0.1:0:80",
            "-m",
            "128m",
            &image,
        ])
        .ok();
    let address = berth.run(["port", "web", "80/tcp"]).ok();
    let url = format!("http://{address}/");
    eventually("the page comes", || {
        berth.network().run("curl", &["-fsS", &url]).stdout == format!("{NGINX_SAYS}\n")
    });
    assert!(berth.run(["ps"]).ok().contains("->80/tcp"));
    eventually("the access is logged", || {
        berth
            .run(["logs", "web"])
            .stdout
            .contains("\"GET / HTTP/1.1\" 200")
    });
    let memory = berth
        .run(["stats", "--no-stream", "--format", "{{.MemUsage}}", "web"])
        .ok();
    assert!(
        memory.ends_with(" / 128MiB") && !memory.starts_with("0B"),
        "{memory}"
    );
    let version = berth.run(["exec", "web", "nginx", "-v"]);
    assert!(
        version.stderr.starts_with("nginx version: nginx/"),
        "{}",
        version.stderr
    );
    assert_eq!(berth.run(["exec", "web", "pwd"]).ok(), "/srv/www");
    assert!(berth.run(["top", "web"]).ok().contains("nginx: worker process"));
    // Its stop signal is the image's, SIGQUIT: nginx ends by itself.
    let _ = berth.run(["stop", "web"]).ok();
    let state = berth
        .run([
            "inspect",
            "-f",
            "{{.State.ExitCode}} {{.Config.StopSignal}}",
            "web",
        ])
        .ok();
    assert_eq!(state, "0 SIGQUIT");
    let _ = berth.run(["rm", "web"]).ok();
    let _ = berth.run(["rmi", &image]).ok();
    assert_eq!(berth.left(), Vec::<String>::new());
    assert_eq!(berth.run(["images", "-q"]).ok(), "");
}
