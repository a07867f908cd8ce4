//! The servers that are compared, each as its own documents say to run it.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Processes;

const TOKEN: &str = "bench-token";

/// A server that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    stream: &'static str,
    publish: &'static str,
    /// A text as the body of a publish.
    pub(crate) body: fn(&str) -> String,
    /// Whether it keeps events for those who come back.
    pub(crate) keeps: bool,
    child: Child,
}

impl Drop for Subject {
    fn drop(&mut self) {
        // nginx ends its workers only when it is asked, not when it is killed.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

impl Subject {
    pub(crate) fn holdfast_memory(bin: &str, _dir: &Path) -> io::Result<Self> {
        Self::holdfast("holdfast, in memory", bin, &["--memory"])
    }

    pub(crate) fn holdfast_redb(bin: &str, dir: &Path) -> io::Result<Self> {
        let data = dir.join("data").display().to_string();
        Self::holdfast("holdfast, on disk", bin, &["--data-dir", &data])
    }

    fn holdfast(name: &'static str, bin: &str, log: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(bin);
        command.args(["serve", "--host", "127.0.0.1", "--port", "0", "--tick-interval", "0"]);
        command.args([
            "--max-connections",
            "20000",
            "--max-buffer-size",
            "200000",
            "--grace-period",
            "0",
            "--head-timeout",
            "600000",
        ]);
        command.args(["--log-level", "error"]).args(log).env("SSE_PUBLISH_TOKEN", TOKEN);
        let (child, address) = announced(command)?;
        let body = |text: &str| format!(r#"{{"event":"message","data":"{text}"}}"#);
        Ok(Self {
            name,
            address,
            stream: "/stream/bench",
            publish: "/publish/bench",
            body,
            keeps: true,
            child,
        })
    }

    pub(crate) fn better_sse(_bin: &str, _dir: &Path) -> io::Result<Self> {
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/server/better-sse.mjs"));
        let (child, address) = announced(command)?;
        let body = str::to_owned;
        Ok(Self { name: "better-sse on Node", address, stream: "/", publish: "/", body, keeps: true, child })
    }

    pub(crate) fn nchan(_bin: &str, dir: &Path) -> io::Result<Self> {
        // nginx cannot tell which port it was given: one that was free a moment ago has to do.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = dir.join("nginx.conf");
        std::fs::write(&config, nginx_config(address))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(dir).arg("-c").arg(&config).args(["-e", "stderr"]);
        let child = command.stdin(Stdio::null()).spawn()?;
        let (name, body) = ("Nchan in nginx", str::to_owned);
        let subject = Self { name, address, stream: "/sub", publish: "/pub", body, keeps: true, child };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err(io::Error::other("nginx does not listen"));
            }
            std::thread::yield_now();
        }
        Ok(subject)
    }

    pub(crate) fn bare(_bin: &str, _dir: &Path) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare");
        let (child, address) = announced(command)?;
        let (name, body) = ("bare writes", str::to_owned);
        Ok(Self { name, address, stream: "/", publish: "/", body, keeps: false, child })
    }

    pub(crate) fn processes(&self) -> Processes {
        Processes::of(self.child.id())
    }

    /// A request for the stream.
    pub(crate) fn subscription(&self, cursor: Option<&str>) -> String {
        let cursor = cursor.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        format!(
            "GET {} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{cursor}\r\n",
            self.stream
        )
    }

    /// The head of a request that publishes, up to its length.
    pub(crate) fn publishing(&self) -> String {
        format!(
            "POST {} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\n",
            self.publish
        )
    }
}

/// Starts a server that says on its first line where it listens.
fn announced(mut command: Command) -> io::Result<(Child, SocketAddr)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let address = line.rsplit_once("http://").and_then(|parts| parts.1.trim().parse().ok());
    match address {
        Some(address) => Ok((child, address)),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(io::Error::other(format!("no address in {line:?}")))
        }
    }
}

fn nginx_config(address: SocketAddr) -> String {
    format!(
        "
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
user root;
pid nginx.pid;
error_log stderr error;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path .;
  proxy_temp_path .;
  fastcgi_temp_path .;
  uwsgi_temp_path .;
  scgi_temp_path .;
  nchan_shared_memory_size 512M;
  server {{
    listen {address} backlog=4096;
    tcp_nodelay on;
    location = /pub {{
      nchan_publisher;
      nchan_channel_id bench;
      nchan_message_buffer_length 200000;
      nchan_message_timeout 1h;
    }}
    location = /sub {{
      nchan_subscriber eventsource;
      nchan_channel_id bench;
      nchan_subscriber_first_message newest;
    }}
  }}
}}
"
    )
}
