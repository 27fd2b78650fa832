//! Debian's `docker-registry` on a free loopback port, stopped and removed when dropped.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running registry with storage of its own.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    process: Child,
    directory: tempfile::TempDir,
    asks_password: bool,
}

/// What `htpasswd -Bbn -C 4 me s3cret` prints.
const HTPASSWD: &str = "me:$2b$04$1.T9.IP.8JNvBrBC3bTq7OEpLoaMz70AOrv6FwpZqKOz6qyZNdi7C\n";

impl Registry {
    /// Starts a registry that anyone may use.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    #[must_use]
    pub fn start() -> Self {
        Self::launch("", false)
    }

    /// Starts a registry with basic authentication, for the user `me` with the password `s3cret` alone.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    #[must_use]
    pub fn start_with_password() -> Self {
        Self::launch("", true)
    }

    /// Starts a registry that speaks HTTPS with `DIRECTORY/server.crt` and `server.key`, and only to clients with a certificate
    /// signed by `DIRECTORY/ca.crt`.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    #[must_use]
    pub fn start_with_client_certificates(directory: &Path) -> Self {
        let at = directory.display();
        Self::launch(
            &format!(
                ", tls: {{certificate: {at}/server.crt, key: {at}/server.key, clientcas: [{at}/ca.crt]}}"
            ),
            false,
        )
    }

    fn launch(http: &str, asks_password: bool) -> Self {
        let directory = tempfile::tempdir().expect("make a directory for the registry");
        let port = free_port();
        let mut config = String::new();
        writeln!(config, "version: 0.1").expect("writing to a string");
        writeln!(config, "log: {{level: error, accesslog: {{disabled: true}}}}")
            .expect("writing to a string");
        writeln!(
            config,
            "storage: {{delete: {{enabled: true}}, filesystem: {{rootdirectory: {}}}}}",
            directory.path().display()
        )
        .expect("writing to a string");
        writeln!(config, "http: {{addr: \"127.0.0.1:{port}\"{http}}}").expect("writing to a string");
        if asks_password {
            let users = directory.path().join("users");
            std::fs::write(&users, HTPASSWD).expect("write the users");
            let users = users.display();
            writeln!(config, "auth: {{htpasswd: {{realm: tests, path: {users}}}}}")
                .expect("writing to a string");
        }
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).expect("write the registry's configuration");
        let log = std::fs::File::create(directory.path().join("log")).expect("create the registry's log");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate a descriptor"))
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        let registry = Self {
            port,
            process,
            directory,
            asks_password,
        };
        registry.wait_until_it_answers();
        registry
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                let mut start = [0; 5];
                let asked = stream
                    .write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")
                    .and_then(|()| stream.read_exact(&mut start));
                if asked.is_ok() && &start == b"HTTP/" {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        panic!("docker-registry does not answer on port {}: {log}", self.port);
    }

    /// `127.0.0.1:PORT`, what image references start with.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The registry's storage, for tests that damage it.
    #[must_use]
    pub fn storage(&self) -> &Path {
        self.directory.path()
    }

    /// Copies an image in with skopeo; `source` as skopeo writes it (`oci:DIR:TAG`). Returns the reference to pull.
    ///
    /// # Panics
    /// When skopeo fails.
    pub fn push_with_skopeo(&self, source: &str, name: &str) -> String {
        let reference = format!("{}/{name}", self.host());
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--dest-tls-verify=false"]);
        if self.asks_password {
            skopeo.args(["--dest-creds", "me:s3cret"]);
        }
        let target = format!("docker://{reference}");
        let output = skopeo.args([source, &target]).output().expect("start skopeo");
        assert!(
            output.status.success(),
            "skopeo: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A loopback port that was free a moment ago.
///
/// # Panics
/// When the host has none left.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}
