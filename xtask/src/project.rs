//! Where the project is, and what its manifests say.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Goes to the repository's root, so that all paths in the tasks are relative to it.
pub fn enter_root() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository");
    // A moved or copied repository brings its old xtask along in target/: the place it runs at decides then.
    let root = if root.join("Cargo.toml").exists() { root } else { Path::new(".") };
    env::set_current_dir(root).expect("the repository can be entered");
}

/// Where cargo builds to.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// The version of the product: the crate's and the npm package's.
pub fn version() -> Result<String, String> {
    let manifest = read("Cargo.toml")?;
    package_version(&manifest).ok_or_else(|| "Cargo.toml has no version under [package]".to_owned())
}

/// The version of `package` that Cargo.lock pins.
pub fn locked_version(package: &str) -> Result<String, String> {
    let lock = read("Cargo.lock")?;
    locked(&lock, package).ok_or_else(|| format!("Cargo.lock does not name {package}"))
}

pub fn read(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn package_version(manifest: &str) -> Option<String> {
    let package = manifest.split("[package]").nth(1)?;
    package.lines().find_map(|line| quoted(line.strip_prefix("version = ")?))
}

fn locked(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.find_map(|line| quoted(line.strip_prefix("version = ")?))
}

fn quoted(text: &str) -> Option<String> {
    text.split('"').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let manifest = "[workspace]\nversion = \"9\"\n[package]\nname = \"a\"\nversion = \"0.1.0\"\n";
        assert_eq!(package_version(manifest).as_deref(), Some("0.1.0"));
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"a-b\"\nversion = \"2.0.0\"\n";
        assert_eq!(locked(lock, "a-b").as_deref(), Some("2.0.0"));
        assert_eq!(locked(lock, "b"), None);
    }
}
