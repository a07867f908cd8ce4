//! Timestamps as envelopes carry them: RFC 3339, the profile of ISO 8601 that JSON schemas call `date-time`.

/// Microseconds since the beginning of year 0, for comparing; finer digits are cut off. `None` where `text` is no
/// RFC 3339 timestamp. Days are not checked against the length of their month.
#[must_use]
pub fn instant_us(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        digits
            .iter()
            .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, expected: &[u8]| bytes.get(at).is_some_and(|byte| expected.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        // A leap second is one.
        && second <= 60;
    if !valid {
        return None;
    }
    let mut at = 19;
    let mut fraction_us = 0;
    if is(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        fraction_us = number(at + 1..at + 1 + digits.min(6))? * 10_i64.pow(6 - digits.min(6) as u32);
        at += 1 + digits;
        if digits == 0 {
            return None;
        }
    }
    let offset_minutes = if is(at, b"Zz") {
        at += 1;
        0
    } else if is(at, b"+-") && is(at + 3, b":") {
        let (hours, minutes) = (number(at + 1..at + 3)?, number(at + 4..at + 6)?);
        let sign = if bytes[at] == b'-' { -1 } else { 1 };
        at += 6;
        sign * (hours * 60 + minutes)
    } else {
        return None;
    };
    if at != bytes.len() {
        return None;
    }
    // Years that begin in March: the leap day is their last, and months have a formula.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day;
    let seconds = ((days * 24 + hour) * 60 + minute - offset_minutes) * 60 + second;
    Some(seconds * 1_000_000 + fraction_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_compare_as_moments() {
        let before = |earlier: &str, later: &str| {
            let (a, b) = (instant_us(earlier), instant_us(later));
            assert!(a.is_some() && a < b, "{earlier} {a:?}, {later} {b:?}");
        };
        before("2025-12-31T23:59:59.999999Z", "2026-01-01T00:00:00Z");
        before("2024-02-28T23:59:59Z", "2024-02-29T00:00:00Z");
        before("2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z");
        before("2000-01-01T00:00:00+00:01", "2000-01-01T00:00:00Z");
        before("2000-01-01T00:00:00.1Z", "2000-01-01T00:00:00.11Z");
        before("0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z");
        let same = |a: &str, b: &str| assert_eq!(instant_us(a), instant_us(b), "{a} {b}");
        same("2026-01-01T00:00:00Z", "2026-01-01t00:00:00.000000000z");
        same("2026-01-01T00:00:00Z", "2025-12-31 19:30:00-04:30");
        same("2023-02-28T24:00:00Z", "never");
        let day = instant_us("2023-03-01T00:00:00Z").zip(instant_us("2023-02-28T00:00:00Z"));
        assert_eq!(day.map(|(b, a)| b - a), Some(86_400_000_000), "no leap year");
    }

    #[test]
    fn what_is_no_timestamp() {
        for text in [
            "",
            "2026",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00ZZ",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:0\u{661}Z",
            "+026-01-01T00:00:00Z",
        ] {
            assert_eq!(instant_us(text), None, "{text:?}");
        }
    }
}
