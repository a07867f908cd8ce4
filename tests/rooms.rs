//! Who may import whom, read from the sources; and a few rules for every file.
//!
//! `wire ← client ← web ← pkg-template ← www`, `wire ← server`, `client + server ← harness`.
#![cfg(not(target_family = "wasm"))]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/`, and what each may import of the others.
const ROOMS: [(&str, &[&str]); 5] = [
    ("wire", &[]),
    ("client", &["wire"]),
    ("web", &["client", "wire"]),
    ("server", &["wire"]),
    ("harness", &["client", "server", "wire"]),
];

const LINES_MAX: usize = 500;
const FOLDERS: [&str; 10] =
    ["src", "xtask", "pkg-template", "www", "tests", "benches", "fuzz", "examples", ".ci", ".cargo"];
const GENERATED: [&str; 4] = ["target", "node_modules", "glue", "corpus"];
const TEXT: [&str; 11] = ["rs", "toml", "ts", "tsx", "mts", "mjs", "js", "css", "html", "json", "md"];

/// Written in two halves, so that this file passes its own check.
const FORBIDDEN: [(&str, &str); 6] = [
    (concat!("#[ign", "ore"), "an ignored test tells nothing"),
    (concat!("to", "do!("), "unfinished"),
    (concat!("unimpl", "emented!("), "unfinished"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/ho", "me/"), "a path of one machine"),
];

#[test]
fn rust_rooms_import_only_what_they_may() {
    let mut faults = Vec::new();
    for (room, _) in ROOMS {
        for file in files(&Path::new("src").join(room)) {
            faults.extend(rust_faults(&file, &read(&file)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn scripts_import_only_what_they_may() {
    let mut faults = Vec::new();
    for folder in ["pkg-template", "www"] {
        for file in files(Path::new(folder)) {
            faults.extend(script_faults(&file, &read(&file)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_file_is_short_finished_and_portable() {
    let mut faults = Vec::new();
    for file in FOLDERS.iter().flat_map(|folder| files(Path::new(folder))) {
        faults.extend(text_faults(&file, &read(&file)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_checks_catch_violations() {
    let rust = [
        ("src/client/mod.rs", "use crate::wire::Parser;", 0),
        ("src/client/mod.rs", "use crate::server::Log;", 1),
        ("src/client/mod.rs", "// like crate::server, but sans-IO", 0),
        ("src/client/a.rs", "use crate::{wire::Parser, web::{Timer, x}};", 1),
        ("src/client/a.rs", "use crate::{\n    server,\n    wire::{client, Parser},\n};", 1),
        ("src/client/a.rs", "fn f() { crate::web::now() }", 1),
        ("src/client/a.rs", "use super::super::server::Log;", 1),
        ("src/client/a.rs", "use super::server::Log;", 0),
        ("src/client/mod.rs", "use super::server::Log;", 1),
        ("src/wire/id.rs", "use crate::client::Machine;", 1),
        ("src/wire/id.rs", "use crate::wire::json;", 0),
        ("src/server/http/mod.rs", "use super::super::client::Machine;", 1),
        ("src/server/http/mod.rs", "use crate::client::Machine; use crate::web::x;", 2),
        ("src/harness/mod.rs", "use crate::{client, server, wire};", 0),
        ("src/web/mod.rs", "use crate::{client, wire}; use holdfast_sse::server::x;", 1),
    ];
    for (file, text, expected) in rust {
        let faults = rust_faults(Path::new(file), text);
        assert_eq!(faults.len(), expected, "{file}: {text}: {faults:?}");
    }

    let scripts = [
        ("pkg-template/src/a.ts", "import { x } from './glue/core.js';", 0),
        ("pkg-template/src/a.ts", "import { x } from '../../www/main.js';", 1),
        ("pkg-template/src/a.ts", "import { useState } from 'react';", 0),
        ("pkg-template/src/a.ts", "import fs from 'node:fs';", 1),
        ("pkg-template/src/node.ts", "import fs from 'node:fs';", 0),
        ("pkg-template/src/a.ts", "export * from \"lodash\";", 1),
        ("pkg-template/src/a.ts", "const x = await import('lodash');", 1),
        ("pkg-template/src/a.ts", "/** Import it from 'lodash' if you like. */", 0),
        ("pkg-template/src/a.ts", "throw new Error(\"import from 'lodash'\");", 0),
        ("pkg-template/src/a.ts", "import {\n  x,\n} from 'lodash';", 1),
        ("pkg-template/src/a.ts", "const x = 1;\nimport 'lodash';", 1),
        ("www/main.js", "import { connectSSE } from 'holdfast-sse';", 0),
        ("www/main.js", "import './holdfast-sse/index.js';", 0),
        ("www/main.js", "import { x } from '../pkg-template/src/a.js';", 1),
        ("www/view/a.js", "import { x } from '../main.js';", 0),
        ("www/main.js", "import { x } from 'https://example.org/x.js';", 1),
        ("www/index.html", "<script type=module src=\"https://example.org/x.js\"></script>", 1),
        ("www/index.html", "<a href=\"https://example.org/\">more</a>", 0),
    ];
    for (file, text, expected) in scripts {
        let faults = script_faults(Path::new(file), text);
        assert_eq!(faults.len(), expected, "{file}: {text}: {faults:?}");
    }

    let long = "x\n".repeat(LINES_MAX + 1);
    assert_eq!(text_faults(Path::new("src/a.rs"), &long).len(), 1);
    for (forbidden, _) in FORBIDDEN {
        assert_eq!(text_faults(Path::new("src/a.rs"), forbidden).len(), 1, "{forbidden}");
    }
}

/// Imports of other rooms that the room of `file` may not make.
fn rust_faults(file: &Path, text: &str) -> Vec<String> {
    let Some((room, allowed)) = ROOMS.iter().find(|(room, _)| file.starts_with(format!("src/{room}"))) else {
        return Vec::new();
    };
    let code = without_comments(text);
    let mut named = Vec::new();
    // Each way to say "the root of the crate" in this file.
    let root = "super::".repeat(module_depth(file));
    for prefix in ["crate::", "holdfast_sse::", &root] {
        for (at, _) in code.match_indices(prefix) {
            let before = &code[..at];
            let continues = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if !continues {
                named.extend(first_names(&code[at + prefix.len()..]));
            }
        }
    }
    let foreign = |name: &str| {
        ROOMS.iter().any(|(other, _)| *other == name) && name != *room && !allowed.contains(&name)
    };
    named.retain(|name| foreign(name));
    named.iter().map(|name| format!("{}: {room} may not import {name}", file.display())).collect()
}

/// How many `super::` lead from the module of `file` to the crate's root: `src/a/mod.rs` 1, `src/a/b.rs` 2.
fn module_depth(file: &Path) -> usize {
    let parts = file.components().count() - 1;
    if file.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// `a::b` → a; `{a::{x, y}, b}` → a, b.
fn first_names(path: &str) -> Vec<&str> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![identifier(path)];
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(identifier(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Imports of a script that reach out of its folder or name a package that it may not use.
fn script_faults(file: &Path, text: &str) -> Vec<String> {
    let code = without_comments(text);
    let mut specifiers = quoted_after(&code, "import(");
    for keyword in ["from ", "import "] {
        specifiers
            .extend(quoted_after(&code, keyword).into_iter().filter(|(at, _)| in_statement(&code[..*at])));
    }
    if file.extension().is_some_and(|extension| extension == "html") {
        specifiers.extend(quoted_after(&code, "src="));
    }
    specifiers.retain(|(_, specifier)| !may_import(file, specifier));
    specifiers
        .iter()
        .map(|(_, specifier)| format!("{}: may not import {specifier}", file.display()))
        .collect()
}

fn may_import(file: &Path, specifier: &str) -> bool {
    let in_package = file.starts_with("pkg-template");
    if specifier.starts_with('.') {
        let home = if in_package { Path::new("pkg-template/src") } else { Path::new("www") };
        return resolve(file.parent().expect("a file lies in a folder"), specifier).starts_with(home);
    }
    if in_package {
        let framework = specifier == "react" || specifier.starts_with("@tanstack/");
        return framework || (specifier.starts_with("node:") && file.ends_with("node.ts"));
    }
    // The page may name its own files from the site's root, where the package lies in /holdfast-sse/.
    let package = specifier == "holdfast-sse" || specifier.starts_with("holdfast-sse/");
    package || specifier.starts_with("data:") || !specifier.contains("//") && !is_bare(specifier, file)
}

/// Whether a specifier names a package; in HTML a plain name is a file.
fn is_bare(specifier: &str, file: &Path) -> bool {
    !specifier.starts_with('/') && file.extension().is_some_and(|extension| extension != "html")
}

fn resolve(folder: &Path, specifier: &str) -> PathBuf {
    let mut path = folder.to_path_buf();
    for part in specifier.split('/') {
        match part {
            "." => {}
            ".." => drop(path.pop()),
            name => path.push(name),
        }
    }
    path
}

/// Whether `before` ends within a statement that imports or exports, rather than in a sentence of a message.
fn in_statement(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
    ["import", "export", "}"].iter().any(|start| line.starts_with(start)) || line.is_empty()
}

/// The quoted texts that directly follow `keyword`, and where that stands.
fn quoted_after<'a>(code: &'a str, keyword: &str) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(keyword) {
        let rest = code[at + keyword.len()..].trim_start();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else { continue };
        if let Some(end) = rest[1..].find(quote) {
            found.push((at, &rest[1..=end]));
        }
    }
    found
}

/// Blanks comments that fill their lines: prose may name what code may not.
fn without_comments(text: &str) -> String {
    let prose = |line: &str| line.starts_with("//") || line.starts_with("/*") || line.starts_with("* ");
    text.lines().map(|line| if prose(line.trim_start()) { "\n" } else { line }).collect::<Vec<_>>().join("\n")
}

fn text_faults(file: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    // Long documents are read by their headings.
    if lines > LINES_MAX && file.extension().is_some_and(|extension| extension != "md" && extension != "json")
    {
        faults.push(format!("{}: {lines} lines, more than {LINES_MAX}", file.display()));
    }
    for (forbidden, why) in FORBIDDEN {
        if text.contains(forbidden) {
            faults.push(format!("{}: {forbidden}: {why}", file.display()));
        }
    }
    faults
}

/// Every text file of ours below `folder`; none where the folder is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if !GENERATED.iter().any(|generated| name == *generated) {
                found.extend(files(&path));
            }
        } else if path.extension().is_none_or(|extension| TEXT.iter().any(|text| extension == *text)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
