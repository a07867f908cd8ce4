//! Starts `holdfast serve` beside tests, and ends it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::project;
use crate::sh;

const LISTENING: &str = "holdfast: listening on ";
const START_LIMIT: Duration = Duration::from_secs(30);

/// The arguments that build the command in the profile of tests.
pub const BUILD: [&str; 5] = ["build", "--bin", "holdfast", "--features", "server,redis"];

/// Where `BUILD` puts it.
pub fn binary() -> String {
    project::target_dir().join("debug/holdfast").display().to_string()
}

/// A running server; it ends when this is dropped.
pub struct Server {
    child: Child,
    /// `http://HOST:PORT`
    pub address: String,
}

impl Server {
    /// Starts a server on a free port and waits until it listens. What it prints goes to target/test-logs/server.log.
    pub fn start() -> Result<Self, String> {
        let (binary, log) = (binary(), project::target_dir().join("test-logs/server.log"));
        let log =
            File::create(&log).map_err(|error| format!("{} cannot be written: {error}", log.display()))?;
        let mut command = sh::command(&binary, &["serve", "--host", "127.0.0.1", "--port", "0", "--memory"]);
        // The page of the tests comes from a port of its own.
        command.args(["--debug-routes", "--cors-origins", "*"]);
        // Ticks and heartbeats come often, so that tests need not wait for the usual seconds.
        command.args(["--tick-interval", "100", "--heartbeat-interval", "1000"]);
        sh::announce(&command);
        Self::spawn(&mut command, log)
    }

    fn spawn(command: &mut Command, mut log: File) -> Result<Self, String> {
        let errors = log.try_clone().map_err(|error| format!("the log cannot be shared: {error}"))?;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("the server cannot be started: {error}"))?;
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut server = Self { child, address: String::new() };
        let (found, address) = mpsc::channel();
        // Reads on to the end, so that the server never waits for a full pipe.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
                if let Some(address) = line.strip_prefix(LISTENING) {
                    let _ = found.send(address.trim().to_owned());
                }
            }
        });
        server.address = address.recv_timeout(START_LIMIT).map_err(|_| {
            format!("the server ended or stayed silent: it did not print `{LISTENING}http://HOST:PORT`")
        })?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawn(script: &str) -> Result<Server, String> {
        let log = File::options().append(true).open("/dev/null").expect("there is /dev/null");
        Server::spawn(Command::new("sh").args(["-c", script]), log)
    }

    #[test]
    fn reads_the_address_and_tells_when_there_is_none() {
        let server = spawn("echo starting; echo 'holdfast: listening on http://127.0.0.1:9'; exec sleep 60");
        assert_eq!(server.map(|server| server.address.clone()), Ok("http://127.0.0.1:9".to_owned()));
        assert!(spawn("echo starting").is_err_and(|message| message.contains("ended or stayed silent")));
    }
}
