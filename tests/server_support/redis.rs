//! A `redis-server` of the test's own: on a free port, in a folder of its own, to be killed and started again.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a Redis keeps when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// All that it answered for.
    Always,
    /// Nothing.
    None,
}

/// Ended with the value.
pub struct Redis {
    child: Option<Child>,
    port: u16,
    dir: tempfile::TempDir,
    persistence: Persistence,
    primary: Option<u16>,
    tls: bool,
}

impl Redis {
    pub fn start(persistence: Persistence) -> Self {
        Self::new(persistence, None, false)
    }

    /// A replica of another one.
    pub fn replica_of(primary: &Self) -> Self {
        Self::new(Persistence::None, Some(primary.port), false)
    }

    /// One that speaks TLS alone, under a certificate for `localhost` that nobody trusts who does not know it.
    pub fn start_with_tls() -> Self {
        Self::new(Persistence::None, None, true)
    }

    fn new(persistence: Persistence, primary: Option<u16>, tls: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        if tls {
            let made =
                rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
            std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).expect("written");
            std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
        }
        let mut redis = Self { child: None, port: 0, dir, persistence, primary, tls };
        // Somebody may take the port between our look and the start.
        for _ in 0..20 {
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
            redis.port = listener.local_addr().expect("an address").port();
            drop(listener);
            if redis.launch() {
                return redis;
            }
        }
        panic!("redis-server does not start: is it installed? (Debian: redis-server)")
    }

    pub fn url(&self) -> String {
        let (scheme, host) = if self.tls { ("rediss", "localhost") } else { ("redis", "127.0.0.1") };
        format!("{scheme}://{host}:{}", self.port)
    }

    /// The file of its certificate.
    pub fn certificate(&self) -> std::path::PathBuf {
        self.dir.path().join("cert.pem")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes it a replica of what answers at a local port, and waits until it has all that is there.
    pub async fn follow(&self, port: u16) {
        assert_eq!(self.ask(&["REPLICAOF", "127.0.0.1", &port.to_string()]), "OK");
        let synced = async {
            while !self.ask(&["INFO", "replication"]).contains("master_link_status:up") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), synced).await.expect("a replica");
    }

    /// Waits until a replica has all that was said to its primary.
    pub async fn caught_up_with(&self, primary: &Self) {
        let offset = |redis: &Self| {
            let info = redis.ask(&["INFO", "replication"]);
            let line = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
            line.expect("an offset").trim().parse::<u64>().expect("a number")
        };
        let reached = offset(primary);
        let caught_up = async {
            while offset(self) < reached {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), caught_up).await.expect("a replica that keeps up");
    }

    /// Makes it a primary.
    pub fn promote(&self) {
        assert_eq!(self.ask(&["REPLICAOF", "NO", "ONE"]), "OK");
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill").success());
    }

    /// Stops the process where it is, and waits until that took effect: from then on it answers nothing.
    pub fn freeze(&self) {
        self.signal("-STOP");
        let stat = format!("/proc/{}/stat", self.child.as_ref().expect("it runs").id());
        let is_stopped = || std::fs::read_to_string(&stat).expect("Linux").contains(") T ");
        while !is_stopped() {
            std::thread::yield_now();
        }
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// SIGKILL, and waits until it took effect.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port, with what is on its disk.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "the port was taken meanwhile");
    }

    fn launch(&mut self) -> bool {
        let (port, dir) = (self.port.to_string(), self.dir.path().display().to_string());
        let aof = if self.persistence == Persistence::Always { "yes" } else { "no" };
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--dir", &dir, "--save", ""]);
        if self.tls {
            command.current_dir(&dir).args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"]);
            command.args(["--tls-ca-cert-file", "cert.pem"]);
        } else {
            command.args(["--port", &port]);
        }
        command.args(["--appendonly", aof, "--appendfsync", "always", "--repl-diskless-sync-delay", "0"]);
        if let Some(primary) = self.primary {
            command.args(["--replicaof", "127.0.0.1", &primary.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("redis-server (Debian: redis-server)");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let ready =
            lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to accept connections"));
        if ready {
            // Read on, so that it never waits for a full pipe.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        }
        self.child = Some(child);
        if !ready {
            self.kill();
        }
        ready
    }

    /// Asks by the command line tool.
    pub fn ask(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(command).output();
        String::from_utf8(output.expect("redis-cli").stdout).expect("text").trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
