//! Wall-clock time, random numbers and the ids made of both.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Milliseconds since 1970 by the wall clock; 0 where the clock stands before that.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// `unix_ms` as ISO 8601 in UTC with milliseconds: `2026-01-02T03:04:05.678Z`.
pub(crate) fn iso(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's `civil_from_days`, for days since 1970 that are not negative.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// A UUIDv7; those of one process grow strictly.
pub(crate) fn event_uuid() -> Uuid {
    Uuid::now_v7()
}

/// The same as text.
pub(crate) fn event_id() -> String {
    event_uuid().to_string()
}

/// 64 bits that cannot be guessed.
pub(crate) fn random_u64() -> u64 {
    Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1.rotate_left(32)
}

/// An even choice from `0..=max`, good enough for spreading load.
pub(crate) fn random_up_to(max: u64) -> u64 {
    max.checked_add(1).map_or_else(random_u64, |span| random_u64() % span)
}

/// The name of a new epoch: time and chance, so that no two lives of a log ever share one.
pub(crate) fn epoch() -> String {
    format!("{}{:0>13}", base36(unix_ms()), base36(random_u64()))
}

/// `<kind>-<time>-<random>`, both in base 36.
pub(crate) fn named_id(kind: &str) -> String {
    format!("{kind}-{}-{}", base36(unix_ms()), base36(random_u64()))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::with_capacity(13);
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_iso_8601() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_102_444_799_001, "2099-12-31T23:59:59.001Z"),
        ] {
            assert_eq!(iso(ms), expected);
        }
    }

    #[test]
    fn epochs_are_ids_and_never_the_same() {
        let (a, b) = (epoch(), epoch());
        assert_ne!(a, b);
        for epoch in [a, b] {
            assert!(crate::wire::Position::split(&format!("{epoch}-1")).is_some(), "{epoch}");
        }
    }

    // K17: ids of one process are monotonic.
    #[test]
    fn event_ids_grow() {
        let ids: Vec<_> = (0..2000).map(|_| event_id()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
