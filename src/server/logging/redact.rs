//! What must not stand in a log. The same rules as the client's (`pkg-template/src/redact.ts`). (K27)

const SECRETS: [&str; 6] = ["password", "token", "secret", "key", "auth", "credential"];

/// Longest text, in characters.
const TEXT_MAX: usize = 500;

pub(super) const REDACTED: &str = "[REDACTED]";

/// Whether a field of this name holds what nobody should read.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETS.iter().any(|secret| name.contains(secret))
}

/// The text with the queries and passwords of addresses taken out, cut to 500 characters.
#[must_use]
pub fn text(text: &str) -> String {
    let mut clean = addresses(text);
    if let Some((end, _)) = clean.char_indices().nth(TEXT_MAX) {
        clean.truncate(end);
        clean.push_str("...[truncated]");
    }
    clean
}

fn addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "\"'<>)".contains(c)).unwrap_or(after.len());
        let (address, next) = after.split_at(end);
        let authority_end = address.find(['/', '?', '#']).unwrap_or(address.len());
        let (authority, place) = address.split_at(authority_end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(REDACTED);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        match place.find('?') {
            Some(query) => {
                out.push_str(&place[..=query]);
                out.push_str(REDACTED);
            }
            None => out.push_str(place),
        }
        rest = next;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // K27
    #[test]
    fn secrets_are_taken_out_and_long_texts_cut() {
        for (before, after) in [
            ("plain", "plain"),
            ("at https://a.example/x?token=1&b=2 twice", "at https://a.example/x?[REDACTED] twice"),
            ("(http://a/?t=1) http://b/?t=2", "(http://a/?[REDACTED]) http://b/?[REDACTED]"),
            ("redis://user:pw@host:6379/0", "redis://[REDACTED]@host:6379/0"),
            ("http://a/x#f", "http://a/x#f"),
            ("://", "://"),
        ] {
            assert_eq!(text(before), after);
        }
        let long = text(&"ä".repeat(501));
        assert_eq!(long.chars().filter(|c| *c == 'ä').count(), 500);
        assert!(long.ends_with("...[truncated]"));
        assert_eq!(text(&"x".repeat(500)).len(), 500);
        for (name, secret) in [
            ("apiKey", true),
            ("Authorization", true),
            ("access_token", true),
            ("code", false),
            ("peer", false),
        ] {
            assert_eq!(is_secret(name), secret, "{name}");
        }
    }
}
