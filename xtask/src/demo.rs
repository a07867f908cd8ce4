//! The demo: the built package in a page, the server beside it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::build;
use crate::project;
use crate::sh;

const HOST: &str = "127.0.0.1";
const PORTS: std::ops::Range<u16> = 3000..3100;

pub fn run() -> Result<(), String> {
    if !Path::new("www").is_dir() {
        return Err("the demo page is missing: there is no folder www".to_owned());
    }
    build::run()?;
    sh::run("cargo", &["build", "--bin", "holdfast", "--features", "server", "--profile", "server"])?;
    let target = project::target_dir();
    let site = target.join("demo-site");
    assemble(&site).map_err(|error| format!("{} cannot be assembled: {error}", site.display()))?;

    let (binary, data) = (target.join("server/holdfast"), target.join("demo-data"));
    let port = free_port()?.to_string();
    let mut command = sh::command(&binary.display().to_string(), &["serve", "--host", HOST, "--port", &port]);
    command.arg("--site").arg(&site).arg("--data-dir").arg(&data).args([
        "--debug-routes",
        "--log-format",
        "text",
        // A page that shows how silence is noticed should not take the usual half minute for it.
        "--heartbeat-interval",
        "2000",
        "--retry",
        "1500",
    ]);
    sh::announce(&command);
    println!(
        "\n    The demo page: http://{HOST}:{port}/\n    Ctrl-C ends it; its events stay in {}.\n",
        data.display()
    );
    // The server takes this process over, so that Ctrl-C reaches it and nothing is left behind.
    let error = command.exec();
    Err(format!("{} cannot be started: {error}", binary.display()))
}

/// The page, and the package under the name that the page imports.
fn assemble(site: &Path) -> std::io::Result<()> {
    if site.exists() {
        fs::remove_dir_all(site)?;
    }
    copy_tree(Path::new("www"), site)?;
    copy_tree(Path::new("pkg"), &site.join("holdfast-sse"))
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The usual port, or the next that nobody listens on.
fn free_port() -> Result<u16, String> {
    PORTS.into_iter().find(|port| TcpListener::bind((HOST, *port)).is_ok()).ok_or(format!(
        "no port from {} to {} is free on {HOST}",
        PORTS.start,
        PORTS.end - 1
    ))
}
