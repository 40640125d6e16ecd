//! Text of others in our own: short, on one line, and without anything that steers a terminal.

/// Characters of a foreign text that are shown.
const LONGEST: usize = 300;
/// Things of one kind that a rung shows.
pub(super) const MOST_SHOWN: usize = 12;

/// A foreign text on one line, escaped and cut.
pub(super) fn short(text: &str) -> String {
    let mut short = String::new();
    for (index, character) in text.trim().chars().enumerate() {
        match character {
            _ if index == LONGEST => {
                short.push('…');
                break;
            }
            '\n' | '\t' => short.push(' '),
            '"' | '\'' | '\\' => short.push(character),
            // Also what turns the direction of writing around.
            other => short.extend(other.escape_debug()),
        }
    }
    short
}

/// `1 issuer`, `2 issuers`.
pub(super) fn count_of(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The first few lines, and how many more there are.
pub(super) fn first(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MOST_SHOWN);
    lines.truncate(MOST_SHOWN);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_short_and_steers_nothing() {
        assert_eq!(short(" it's \"so\"\nand\u{1b}[2J\u{202e}x "), "it's \"so\" and\\u{1b}[2J\\u{202e}x");
        assert_eq!(short(&"ä".repeat(LONGEST)).chars().count(), LONGEST);
        assert!(short(&"x".repeat(10_000)).ends_with("x…"));
        assert!(short(&"\u{1b}".repeat(10_000)).len() < 10 * LONGEST);
    }

    #[test]
    fn lists_have_an_end() {
        let lines = first((0..100).map(|n| n.to_string()).collect());
        assert_eq!((lines.len(), lines.last().unwrap().as_str()), (MOST_SHOWN + 1, "and 88 more"));
        assert_eq!(first(vec!["one".to_owned()]), ["one"]);
    }
}
