//! Measurements. They print figures and never fail a build.

use crate::build;
use crate::server;
use crate::setup;
use crate::sh;

/// The whole pipeline in Chromium, against a parser in JavaScript.
pub fn client() -> Result<(), String> {
    setup::browser()?;
    build::run()?;
    sh::run("cargo", &server::BUILD)?;
    let mut command = sh::command("node", &["benches/browser/run.mjs"]);
    command.env("HOLDFAST_BIN", server::binary());
    if let Some(chromium) = setup::chromium() {
        command.env("CHROMIUM", chromium);
    }
    sh::run_command(&mut command)
}

/// Group commit of the log on disk.
pub fn log() -> Result<(), String> {
    sh::run("cargo", &["bench", "--profile", "server", "--features", "server", "--bench", "log"])
}

/// The server beside others. `names` picks some of them.
pub fn server(names: &[&str]) -> Result<(), String> {
    setup::for_build()?;
    setup::nchan()?;
    let bench = ["bench", "--profile", "server", "--features", "server", "--bench", "server", "--"];
    sh::run("cargo", &[&bench, names].concat())
}
