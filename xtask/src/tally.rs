//! Counts tests by the closing lines of the runners.

use std::ops::AddAssign;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Tally {
    /// Sums up every closing line of cargo test, wasm-bindgen's runner and node's in `output`.
    pub fn of(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            if let Some(counts) = line.strip_prefix("test result: ") {
                tally.add_rust(counts);
            } else if let Some(count) = line.strip_prefix("ℹ ") {
                tally.add_node(count);
            }
        }
        tally
    }

    pub fn ran(&self) -> u32 {
        self.passed + self.failed
    }

    /// `ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
    fn add_rust(&mut self, counts: &str) {
        let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
        for part in counts.split("; ") {
            match count_and_word(part) {
                Some((count, "passed")) => self.passed += count,
                Some((count, "failed")) => self.failed += count,
                Some((count, "ignored")) => self.skipped += count,
                _ => {}
            }
        }
    }

    /// `pass 3`; a test that was cancelled, by a time limit say, has failed.
    fn add_node(&mut self, line: &str) {
        let Some((word, count)) = line.split_once(' ') else { return };
        let Ok(count) = count.parse::<u32>() else { return };
        match word {
            "pass" => self.passed += count,
            "fail" | "cancelled" => self.failed += count,
            "skipped" | "todo" => self.skipped += count,
            _ => {}
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

fn count_and_word(part: &str) -> Option<(u32, &str)> {
    let (count, word) = part.split_once(' ')?;
    Some((count.parse().ok()?, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_runner() {
        let cases = [
            ("", (0, 0, 0)),
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                (12, 0, 1),
            ),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 filtered out; finished in 0.50s",
                (1, 2, 0),
            ),
            (
                "running 3 tests\ntest result: ok. 3 passed; 0 failed\ntest result: ok. 4 passed; 0 failed",
                (7, 0, 0),
            ),
            (
                "ℹ tests 6\nℹ suites 1\nℹ pass 2\nℹ fail 1\nℹ cancelled 1\nℹ skipped 1\nℹ todo 1\nℹ duration_ms 9.5",
                (2, 2, 2),
            ),
            ("    test result: ok. 9 passed; 0 failed", (0, 0, 0)),
        ];
        for (output, (passed, failed, skipped)) in cases {
            assert_eq!(Tally::of(output), Tally { passed, failed, skipped }, "{output}");
        }
    }
}
