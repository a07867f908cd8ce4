//! The event-stream format (HTML standard, section 9.2), shared by client and server. No clock, no I/O.
//!
//! - [`Parser`] turns bytes, however they are split, into events; [`encode`] is its inverse.
//! - [`Position`] and [`Cursor`] are the ids that our own server hands out.
//! - [`envelope`] and [`control`] read and name what travels inside `data:` lines; [`time`] compares its timestamps.

pub mod control;
pub mod encode;
pub mod envelope;
pub mod id;
pub mod json;
pub mod parser;
pub mod time;

pub use encode::EncodeError;
pub use id::{Cursor, InvalidId, Position};
pub use parser::{EventRef, ParseError, Parser, ParserLimits, Sink};
