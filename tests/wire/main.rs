//! The wire format: against the standard's text, against a naive parser, and against any way of cutting a body.
#![cfg(not(target_family = "wasm"))]

mod limits;
mod parser;
mod properties;
mod support;
mod text;
