//! The tasks of this repository. `cargo xtask help` lists them.

mod build;
mod project;
mod setup;
mod sh;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask TASK

  build    builds the npm package into pkg/
  size     builds, and prints the sizes of what an app downloads
  setup    installs what the tasks need; each task does so itself for what it needs";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    project::enter_root();
    let outcome = match args[..] {
        ["build"] => build::run(),
        ["size"] => build::size(),
        ["setup"] => setup::all(),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(format!("no such task: {}\n\n{HELP}", args.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nxtask: {message}");
            ExitCode::FAILURE
        }
    }
}
