//! The `holdfast` command.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use holdfast_sse::server::serve::{self, ServeArgs, ServeError};

#[derive(Parser)]
#[command(name = "holdfast", version, about = "Server-Sent Events that survive")]
struct Command {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Serve event streams
    Serve(Box<ServeArgs>),
}

fn main() -> ExitCode {
    let args = match Command::try_parse() {
        Ok(Command { task: Task::Serve(args) }) => args,
        Err(error) => {
            if let Some(sentence) = serve::explain(&error, &Command::command()) {
                eprintln!("holdfast: {sentence}");
                return ExitCode::from(2);
            }
            error.exit()
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("holdfast: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve::run(*args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServeError::Setting(_)) => {
            eprintln!("holdfast: {error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("holdfast: {error}");
            ExitCode::FAILURE
        }
    }
}
