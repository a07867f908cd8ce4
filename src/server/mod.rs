//! The server module for axum: event log, streams with replay, heartbeats, drain.
