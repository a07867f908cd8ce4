//! The tasks of this repository. `cargo xtask help` lists them.

mod bench;
mod build;
mod demo;
mod project;
mod server;
mod setup;
mod sh;
mod sim;
mod tally;
mod test;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    project::enter_root();
    let outcome = match args[..] {
        ["demo"] => done(demo::run()),
        ["test", ref parts @ ..] => test::run(parts),
        ["sim", ref options @ ..] => done(sim::run(options)),
        ["herd"] => done(sim::herd()),
        ["build"] => done(build::run()),
        ["size"] => done(build::size()),
        ["bench"] | ["bench", "client"] => done(bench::client()),
        ["bench", "server", ref names @ ..] => done(bench::server(names)),
        ["setup"] => done(setup::all()),
        [] | ["help" | "--help" | "-h"] => {
            println!("{}", help());
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(format!("no such task: {}\n\n{}", args.join(" "), help())),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("\nxtask: {message}");
        ExitCode::FAILURE
    })
}

fn done(outcome: Result<(), String>) -> Result<ExitCode, String> {
    outcome.map(|()| ExitCode::SUCCESS)
}

fn help() -> String {
    format!(
        "\
usage: cargo xtask TASK

  demo             builds all, starts the server with the demo page and prints its address
  test [PART...]   runs all tests, or these parts: {}
  sim [--count N] [--first N]
                   simulates many seeds, 10,000 unless told, and prints how many in a second
  sim --seed N     replays one seed with its whole trace
  herd             prints how each retry policy brings 10,000 clients back after an outage
  build            builds the npm package into pkg/
  size             builds, and prints the sizes of what an app downloads
  bench [client]   measures the built package in Chromium
  bench server [memory|redb|better-sse|nchan|bare]...
                   measures the server beside others, all in one run
  setup            installs what the tasks need; each task does so itself for what it needs

CHROMIUM and CHROMEDRIVER name a browser and its driver that are not on PATH.",
        test::names()
    )
}
