//! ARCHITECTURE.md draws the table of transitions; this holds the drawing to the table.
#![cfg(not(target_family = "wasm"))]

use std::fmt::Write;

use holdfast_sse::client::{State, TRANSITIONS, TransitionReason};

#[test]
fn the_diagram_shows_the_table_of_transitions() {
    let document = include_str!("../ARCHITECTURE.md");
    let diagram = diagram();
    assert!(document.contains(&diagram), "the diagram in ARCHITECTURE.md should read:\n{diagram}");
}

#[test]
fn no_state_has_two_rows_for_one_reason() {
    for (index, row) in TRANSITIONS.iter().enumerate() {
        let twin = TRANSITIONS[index + 1..]
            .iter()
            .find(|other| (other.from, other.reason) == (row.from, row.reason));
        assert_eq!(twin, None);
    }
}

fn diagram() -> String {
    let mut text = String::from("```mermaid\nstateDiagram-v2\n    [*] --> Idle\n");
    let mut drawn: Vec<(State, State)> = Vec::new();
    for row in TRANSITIONS {
        // One arrow for each pair of states, with all its reasons.
        if drawn.contains(&(row.from, row.to)) {
            continue;
        }
        drawn.push((row.from, row.to));
        let same_way = TRANSITIONS.iter().filter(|other| (other.from, other.to) == (row.from, row.to));
        let reasons: Vec<String> = same_way.map(|other| words(other.reason)).collect();
        let _ = writeln!(text, "    {:?} --> {:?}: {}", row.from, row.to, reasons.join(", "));
    }
    text.push_str("```\n");
    text
}

fn words(reason: TransitionReason) -> String {
    let mut words = String::new();
    for character in format!("{reason:?}").chars() {
        if character.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(character.to_lowercase());
    }
    words
}
