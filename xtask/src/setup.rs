//! Installs what the tasks need, and says plainly what it cannot install. Quick when all is there.

use std::env;
use std::fs;
use std::path::Path;

use crate::project;
use crate::sh;

/// Vite's lowest release of Node 20.
const NODE_MIN: (u32, u32) = (20, 19);
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

pub fn all() -> Result<(), String> {
    for_build()?;
    for_wasm_tests()?;
    firefox()?;
    webkit()?;
    redis()?;
    println!("everything is there");
    Ok(())
}

/// Compiling to WebAssembly and making the npm package.
pub fn for_build() -> Result<(), String> {
    wasm_target()?;
    wasm_bindgen()?;
    node()?;
    node_modules()
}

/// Formatting and lints, for both targets.
pub fn for_lint() -> Result<(), String> {
    wasm_target()?;
    for tool in ["fmt", "clippy"] {
        if sh::capture("cargo", &[tool, "--version"]).is_none() {
            sh::run("rustup", &["component", "add", if tool == "fmt" { "rustfmt" } else { tool }])?;
        }
    }
    Ok(())
}

/// Running Rust tests in a browser.
pub fn for_wasm_tests() -> Result<(), String> {
    wasm_target()?;
    wasm_bindgen()?;
    if sh::find("wasm-pack").is_none() {
        println!("wasm-pack runs the browser tests; compiling it takes some minutes, once");
        sh::run("cargo", &["install", "wasm-pack", "--locked"])?;
    }
    browser()
}

/// The server that the tests of the log in Redis start for themselves.
pub fn redis() -> Result<(), String> {
    if sh::find("redis-server").is_some() && sh::find("redis-cli").is_some() {
        return Ok(());
    }
    apt_install(&["redis-server"])
}

/// Chromium and its driver. `CHROMIUM` and `CHROMEDRIVER` may name others.
pub fn browser() -> Result<(), String> {
    if chromium().is_some() && sh::find(&chromedriver()).is_some() {
        return Ok(());
    }
    apt_install(&["chromium", "chromium-driver"])?;
    match chromium() {
        Some(_) => Ok(()),
        None => Err("Chromium was installed but is not on PATH; name it in CHROMIUM".to_owned()),
    }
}

/// Firefox and its driver, which Debian has not. `FIREFOX` and `GECKODRIVER` may name others.
pub fn firefox() -> Result<(), String> {
    let (firefox, driver) = (named("FIREFOX", "firefox-esr"), geckodriver());
    if sh::find(&firefox).is_none() {
        apt_install(&["firefox-esr"])?;
    }
    if sh::find(&driver).is_none() {
        println!("geckodriver drives Firefox; compiling it takes some minutes, once");
        sh::run("cargo", &["install", "geckodriver", "--locked"])?;
    }
    Ok(())
}

pub fn geckodriver() -> String {
    named("GECKODRIVER", "geckodriver")
}

/// WebKit's driver with the browser that it drives, and a display for it: it has no headless mode.
pub fn webkit() -> Result<(), String> {
    if ["WebKitWebDriver", "xvfb-run", "xauth"].iter().all(|tool| sh::find(tool).is_some()) {
        return Ok(());
    }
    apt_install(&["webkit2gtk-driver", "xvfb", "xauth"])
}

/// nginx with Nchan, which the server is measured beside.
pub fn nchan() -> Result<(), String> {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
    if sh::find("nginx").is_some() && Path::new(MODULE).exists() {
        return Ok(());
    }
    apt_install(&["nginx-light", "libnginx-mod-nchan"])
}

pub fn chromedriver() -> String {
    named("CHROMEDRIVER", "chromedriver")
}

/// The browser that tests and benches drive.
pub fn chromium() -> Option<String> {
    if let Ok(named) = env::var("CHROMIUM") {
        return sh::find(&named).map(|path| path.display().to_string());
    }
    BROWSERS.iter().find_map(|name| sh::find(name)).map(|path| path.display().to_string())
}

/// The program that the environment names, or the usual one.
fn named(variable: &str, usual: &str) -> String {
    env::var(variable).unwrap_or_else(|_| usual.to_owned())
}

fn wasm_target() -> Result<(), String> {
    let sysroot = sh::capture("rustc", &["--print", "sysroot"])
        .ok_or("rustc does not run: install Rust with rustup (https://rustup.rs)")?;
    if Path::new(&sysroot).join("lib/rustlib/wasm32-unknown-unknown/lib").is_dir() {
        return Ok(());
    }
    sh::run("rustup", &["target", "add", "wasm32-unknown-unknown"]).map_err(|error| {
        format!("{error}: without rustup, install your system's standard library for wasm32-unknown-unknown")
    })
}

/// The command must be of exactly the version of the library: they share a private format.
fn wasm_bindgen() -> Result<(), String> {
    let wanted = project::locked_version("wasm-bindgen")?;
    let found = sh::capture("wasm-bindgen", &["--version"]);
    if found.as_deref() == Some(&format!("wasm-bindgen {wanted}")) {
        return Ok(());
    }
    let found = found.unwrap_or_else(|| "no wasm-bindgen".to_owned());
    println!(
        "Cargo.lock pins wasm-bindgen {wanted}, there is {found}; compiling it takes some minutes, once"
    );
    // Without --locked: its own lock file names a release that has been withdrawn.
    sh::run("cargo", &["install", "wasm-bindgen-cli", "--version", &wanted])
}

fn node() -> Result<(), String> {
    let (major, minor) = NODE_MIN;
    let advice = format!("install Node {major}.{minor} or later, with npm");
    let found = sh::capture("node", &["--version"]).ok_or(format!("node is missing: {advice}"))?;
    if !node_suffices(&found) {
        return Err(format!("node is {found}: {advice}"));
    }
    sh::find("npm").map(|_| ()).ok_or(format!("npm is missing: {advice}"))
}

fn node_suffices(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= NODE_MIN
}

/// `npm ci`, unless node_modules is of this very lock file.
fn node_modules() -> Result<(), String> {
    const INSTALLED: &str = "node_modules/.installed-lock.json";
    let lock = project::read("package-lock.json")?;
    if fs::read_to_string(INSTALLED).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    sh::run("npm", &["ci", "--loglevel=error"])?;
    fs::write(INSTALLED, lock).map_err(|error| format!("{INSTALLED} cannot be written: {error}"))
}

fn apt_install(packages: &[&str]) -> Result<(), String> {
    let by_hand = format!("install these yourself: {} (Debian's names)", packages.join(" "));
    if sh::find("apt-get").is_none() {
        return Err(format!("something is missing, and this is no Debian; {by_hand}"));
    }
    let root = sh::capture("id", &["-u"]).as_deref() == Some("0");
    if !root && sh::capture("sudo", &["-n", "true"]).is_none() {
        return Err(format!(
            "something is missing, and installing it needs root. Run\n  \
             sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
            packages.join(" ")
        ));
    }
    let apt_get = |args: &[&str]| {
        let prefix: &[&str] = if root { &["apt-get"] } else { &["sudo", "-n", "apt-get"] };
        let mut command = sh::command(prefix[0], &prefix[1..]);
        sh::run_command(command.args(args).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
    if sh::capture("apt-cache", &["show", packages[0]]).is_some() && apt_get(&install).is_ok() {
        return Ok(());
    }
    // The package lists are missing or older than what the mirror has.
    apt_get(&["update"])?;
    apt_get(&install).map_err(|error| format!("{error}; {by_hand}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_versions_of_node() {
        for (version, suffices) in [
            ("v20.20.2", true),
            ("v20.19.0", true),
            ("v22.1.0", true),
            ("v20.9.0", false),
            ("v18.20.0", false),
            ("", false),
        ] {
            assert_eq!(node_suffices(version), suffices, "{version}");
        }
    }
}
