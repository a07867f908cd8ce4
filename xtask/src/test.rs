//! All tests, the quick ones first; each part's output goes to a log, which is shown when the part fails.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::build;
use crate::project;
use crate::server::{self, Server};
use crate::setup;
use crate::sh;
use crate::tally::Tally;

/// A browser test ends after this many seconds instead of wasm-bindgen's 20: it may wait for real timers.
const BROWSER_TEST_LIMIT_S: &str = "120";
const NODE_TEST_LIMIT_MS: &str = "--test-timeout=300000";

type Run = fn(&mut Part) -> Result<(), String>;

const PARTS: [(&str, Run); 8] = [
    ("lint", lint),
    ("native", native),
    ("node", node),
    ("interop", interop),
    ("wasm", wasm),
    ("packaging", packaging),
    ("browser", browser),
    ("browsers", browsers),
];

pub fn names() -> String {
    PARTS.map(|(name, _)| name).join(" | ")
}

/// Runs the parts named, or all. Prints the sums in the closing line.
pub fn run(wanted: &[&str]) -> Result<ExitCode, String> {
    if let Some(unknown) = wanted.iter().find(|name| PARTS.iter().all(|(part, _)| part != *name)) {
        return Err(format!("there is no test part `{unknown}`; there are: {}", names()));
    }
    let mut reports = Vec::new();
    for (name, run) in PARTS {
        if wanted.is_empty() || wanted.contains(&name) {
            let report = Part::new(name)?.run(run);
            let ok = report.failed == 0;
            reports.push((name, report));
            // What does not compile need not be tried in five ways.
            if name == "lint" && !ok {
                break;
            }
        }
    }
    let mut sum = Tally::default();
    println!();
    for (name, tally) in reports {
        let words = if tally == Tally::default() { "in order".to_owned() } else { in_words(tally) };
        println!("{name:<10} {words}");
        sum += tally;
    }
    println!("{}", in_words(sum));
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_words(tally: Tally) -> String {
    let skipped = if tally.skipped > 0 { format!(", {} skipped", tally.skipped) } else { String::new() };
    format!("{} passed, {} failed{skipped}", tally.passed, tally.failed)
}

/// One part of the tests while it runs.
struct Part {
    name: &'static str,
    log: PathBuf,
    tally: Tally,
    /// Whether its runners count tests, so that none is a failure. Linters do not.
    counts: bool,
}

impl Part {
    fn new(name: &'static str) -> Result<Self, String> {
        let logs = project::target_dir().join("test-logs");
        let log = logs.join(format!("{name}.log"));
        fs::create_dir_all(&logs)
            .and_then(|()| File::create(&log))
            .map_err(|error| format!("{} cannot be written: {error}", log.display()))?;
        Ok(Self { name, log, tally: Tally::default(), counts: true })
    }

    fn run(mut self, run: Run) -> Tally {
        println!("\n{} (log: {})", self.name, self.log.display());
        let start = Instant::now();
        let mut outcome = run(&mut self);
        if outcome.is_ok() && self.counts && self.tally.ran() == 0 {
            outcome = Err("no test ran".to_owned());
        }
        if let Err(message) = &outcome {
            // A part that failed counts as a failure even where no runner got to count one.
            self.tally.failed = self.tally.failed.max(1);
            println!("{}", fs::read_to_string(&self.log).unwrap_or_default());
            println!("{} failed: {message}", self.name);
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("  {} took {seconds:.1} s", self.name);
        self.tally
    }

    /// Runs a command whose output goes to the log, and counts the tests that it reports.
    fn command(&mut self, mut command: Command) -> Result<(), String> {
        let before = self.logged().len();
        let log = self.open_log()?;
        let errors = log.try_clone().map_err(|error| format!("the log cannot be shared: {error}"))?;
        // Counting and reading the log is easier without colours.
        command.env("NO_COLOR", "1").env("CARGO_TERM_COLOR", "never").env_remove("FORCE_COLOR");
        let outcome = sh::run_command(command.stdout(log).stderr(errors));
        if self.counts {
            self.tally += Tally::of(self.logged().get(before..).unwrap_or_default());
        }
        outcome
    }

    fn sh(&mut self, program: &str, args: &[&str]) -> Result<(), String> {
        self.command(sh::command(program, args))
    }

    fn logged(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn open_log(&self) -> Result<File, String> {
        let opened = File::options().append(true).open(&self.log);
        opened.map_err(|error| format!("{} cannot be written: {error}", self.log.display()))
    }
}

fn lint(part: &mut Part) -> Result<(), String> {
    part.counts = false;
    setup::for_lint()?;
    part.sh("cargo", &["fmt", "--all", "--check", "--", "--color", "never"])?;
    let native =
        ["clippy", "--workspace", "--all-targets", "--features", "server,redis", "--", "-D", "warnings"];
    part.sh("cargo", &native)?;
    let wasm = ["clippy", "--lib", "--tests", "--target", "wasm32-unknown-unknown", "--", "-D", "warnings"];
    part.sh("cargo", &wasm)
}

fn native(part: &mut Part) -> Result<(), String> {
    // Without --no-fail-fast the sums would leave out what comes after the first failing file.
    setup::redis()?;
    part.sh("cargo", &["test", "--workspace", "--features", "server,redis", "--no-fail-fast"])
}

/// Rust tests in a browser, with a real server beside them.
fn wasm(part: &mut Part) -> Result<(), String> {
    setup::for_wasm_tests()?;
    wasm_tests(part, ["--chrome", "--chromedriver"], &setup::chromedriver())
}

fn wasm_tests(part: &mut Part, options: [&str; 2], driver: &str) -> Result<(), String> {
    part.sh("cargo", &server::BUILD)?;
    let server = Server::start()?;
    println!("  the server for the tests is at {}", server.address);
    // A driver that is named is not looked up on the network.
    let path = sh::find(driver).ok_or(format!("{driver} is not on PATH"))?.display().to_string();
    let mut command = sh::command("wasm-pack", &["test", "--headless", options[0], options[1], &path]);
    command.args(["--mode", "no-install"]);
    // Read when the tests are compiled: they have no environment in the browser.
    command.env("HOLDFAST_TEST_SERVER", &server.address);
    command.env("WASM_BINDGEN_TEST_TIMEOUT", BROWSER_TEST_LIMIT_S);
    part.command(command)
}

fn node(part: &mut Part) -> Result<(), String> {
    build::once()?;
    part.sh("cargo", &server::BUILD)?;
    part.command(node_tests("tests/node")?)
}

/// The package against servers of others, in Node and in a browser.
fn interop(part: &mut Part) -> Result<(), String> {
    setup::browser()?;
    build::once()?;
    part.command(node_tests("tests/interop")?)
}

fn packaging(part: &mut Part) -> Result<(), String> {
    setup::browser()?;
    build::once()?;
    part.sh("cargo", &server::BUILD)?;
    part.command(node_tests("tests/packaging")?)
}

fn browser(part: &mut Part) -> Result<(), String> {
    setup::browser()?;
    build::once()?;
    part.sh("cargo", &server::BUILD)?;
    part.command(node_tests("tests/browser")?)
}

/// The other engines: Firefox with the Rust tests as well, and WebKit.
fn browsers(part: &mut Part) -> Result<(), String> {
    setup::for_wasm_tests()?;
    setup::firefox()?;
    setup::webkit()?;
    build::once()?;
    wasm_tests(part, ["--firefox", "--geckodriver"], &setup::geckodriver())?;
    part.command(node_tests("tests/browsers")?)
}

/// Node's own test runner on every `*.test.mjs` of a folder: one file after the other, since two browsers at once
/// on two cores make time limits meaningless.
fn node_tests(dir: &str) -> Result<Command, String> {
    let entries = fs::read_dir(dir).map_err(|error| format!("{dir} cannot be read: {error}"))?;
    let mut files: Vec<String> = entries.flatten().map(|entry| entry.path().display().to_string()).collect();
    files.retain(|file| file.ends_with(".test.mjs"));
    files.sort();
    let mut command =
        sh::command("node", &["--test", "--test-reporter=spec", "--test-concurrency=1", NODE_TEST_LIMIT_MS]);
    command.args(files).env("HOLDFAST_BIN", server::binary());
    if let Some(chromium) = setup::chromium() {
        command.env("CHROMIUM", chromium);
    }
    Ok(command)
}
