//! From Rust and TypeScript to the npm package in `pkg/`.

use std::fs;
use std::sync::OnceLock;

use crate::project;
use crate::setup;
use crate::sh;

/// The glue and the module lie among the TypeScript sources that import them (not committed).
const GLUE: &str = "pkg-template/src/glue";

/// What Rust's wasm target turns on by itself, and `simd128` from .cargo/config.toml. Never `--all-features`: it
/// lets wasm-opt write instructions that browsers and Node 20 refuse.
const FEATURES: [&str; 8] = [
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
    "--enable-simd",
];

pub fn run() -> Result<(), String> {
    setup::for_build()?;
    core()?;
    package()?;
    println!("the npm package is in pkg/; `npm pack {}/pkg` makes the archive that an app installs", here());
    Ok(())
}

/// Builds where this task has not done so yet.
pub fn once() -> Result<(), String> {
    static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
    OUTCOME.get_or_init(run).clone()
}

pub fn size() -> Result<(), String> {
    run()?;
    sh::run("node", &["xtask/js/size.mjs"])
}

/// Rust to WebAssembly, and the JavaScript that wasm-bindgen writes for it.
fn core() -> Result<(), String> {
    sh::run("cargo", &["build", "--lib", "--release", "--target", "wasm32-unknown-unknown"])?;
    let module = project::target_dir().join("wasm32-unknown-unknown/release/holdfast_sse.wasm");
    empty(GLUE)?;
    sh::run(
        "wasm-bindgen",
        &[
            "--target",
            "web",
            "--out-dir",
            GLUE,
            "--out-name",
            "core",
            // The loader hands over the module; a default path would make bundlers look for the file.
            "--omit-default-module-path",
            // After a trap the loader makes a new instance of the same module.
            "--experimental-reset-state-function",
            &module.display().to_string(),
        ],
    )?;
    quieten_old_closures()?;
    let (bound, optimised) = (format!("{GLUE}/core_bg.wasm"), format!("{GLUE}/core.wasm"));
    // Measured, gzip: 107,366 bytes with -O3, 107,382 with -Oz, 107,497 with -Os, 107,822 with -O4, 107,924 with -O2.
    // The smallest to download is also meant to be the fastest, so nothing is given up.
    let mut wasm_opt = sh::command("node_modules/.bin/wasm-opt", &[&bound, "-O3", "-o", &optimised]);
    wasm_opt.args(FEATURES).args(["--strip-debug", "--strip-producers", "--strip-target-features"]);
    sh::run_command(&mut wasm_opt)?;
    remove(&bound)?;
    remove(&format!("{bound}.d.ts"))
}

/// What a lost instance has under way ends in its closures, which throw. Nobody awaits them, and Node ends a process
/// for an error that nobody handles; so they do nothing instead.
fn quieten_old_closures() -> Result<(), String> {
    const THROWS: &str = "throw new Error('Cannot invoke closure from previous WASM instance');";
    let file = format!("{GLUE}/core.js");
    let glue = fs::read_to_string(&file).map_err(|error| format!("{file} cannot be read: {error}"))?;
    let found = glue.matches(THROWS).count();
    if found != 1 {
        return Err(format!(
            "{file} has {found} times `{THROWS}`, where one is expected: see what this wasm-bindgen does"
        ));
    }
    fs::write(&file, glue.replace(THROWS, "return undefined;"))
        .map_err(|error| format!("{file} cannot be written: {error}"))
}

/// TypeScript and the module to `pkg/`.
fn package() -> Result<(), String> {
    empty("pkg")?;
    sh::run("node", &["xtask/js/bundle.mjs"])?;
    sh::run("node_modules/.bin/tsc", &["--project", "pkg-template/tsconfig.json"])?;
    sh::run("node", &["xtask/js/manifest.mjs", &project::version()?])?;
    copy(&format!("{GLUE}/core.wasm"), "pkg/core.wasm")?;
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if fs::exists(file).unwrap_or(false) {
            copy(file, &format!("pkg/{file}"))?;
        } else {
            println!("  there is no {file}: the package goes without");
        }
    }
    Ok(())
}

fn here() -> String {
    std::env::current_dir().map_or_else(|_| ".".to_owned(), |dir| dir.display().to_string())
}

fn empty(dir: &str) -> Result<(), String> {
    if fs::exists(dir).unwrap_or(false) {
        fs::remove_dir_all(dir).map_err(|error| format!("{dir} cannot be emptied: {error}"))?;
    }
    fs::create_dir_all(dir).map_err(|error| format!("{dir} cannot be made: {error}"))
}

fn remove(file: &str) -> Result<(), String> {
    fs::remove_file(file).map_err(|error| format!("{file} cannot be removed: {error}"))
}

fn copy(from: &str, to: &str) -> Result<(), String> {
    fs::copy(from, to).map(|_| ()).map_err(|error| format!("{from} cannot be copied to {to}: {error}"))
}
