//! The client as a sans-IO state machine: time, randomness and the stored cursor come in as values, actions go out.
