//! Runs commands: says which, and how long it took.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A command without standard input, which finds the per-user cargo tools first.
pub fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("PATH", path()).stdin(Stdio::null());
    command
}

/// Runs a command that prints to the terminal.
pub fn run(program: &str, args: &[&str]) -> Result<(), String> {
    run_command(&mut command(program, args))
}

pub fn run_command(command: &mut Command) -> Result<(), String> {
    let line = announce(command);
    let start = Instant::now();
    let status = command.status().map_err(|error| format!("`{line}` cannot be started: {error}"))?;
    println!("  {:.1} s", start.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed ({status})")) }
}

/// Prints the command as a person would type it.
pub fn announce(command: &Command) -> String {
    let line = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    println!("▸ {line}");
    line
}

/// What a command prints, if it can be run and succeeds; says nothing of it.
pub fn capture(program: &str, args: &[&str]) -> Option<String> {
    let output = command(program, args).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where `program` is on the path of our commands.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).is_file().then(|| PathBuf::from(program));
    }
    env::split_paths(&path()).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// PATH with cargo's folder of installed tools in front, which a fresh shell may lack.
fn path() -> OsString {
    let before = env::var_os("PATH").unwrap_or_default();
    let dirs = cargo_bin().into_iter().chain(env::split_paths(&before));
    env::join_paths(dirs).unwrap_or(before)
}

fn cargo_bin() -> Option<PathBuf> {
    let root = env::var_os("CARGO_INSTALL_ROOT").or_else(|| env::var_os("CARGO_HOME")).map(PathBuf::from);
    root.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"))).map(|root| root.join("bin"))
}
