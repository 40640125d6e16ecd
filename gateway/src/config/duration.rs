//! Durations as people write them: `24h`, `120s`, `1h30m`, `7d`.

use std::time::Duration;

/// What a duration may look like, for messages.
pub(crate) const FORM: &str = "a duration such as 500ms, 120s, 30m, 24h or 7d";

/// Longest duration taken: ten years, far inside what clocks and the store can add up.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Reads one or several whole numbers, each with its unit. `None` if the text is anything else, zero, or more than ten years.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let number: u64 = number.parse().ok()?;
        let part = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3_600)?),
            "d" => Duration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = tail.trim_start();
    }
    (Duration::ZERO < total && total <= LONGEST).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_durations() {
        for (text, seconds) in [("120s", 120), ("30m", 1_800), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5_400), (" 1h 30m ", 5_400)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
    }

    #[test]
    fn anything_else_is_not() {
        for text in [
            "",
            "0s",
            "120",
            "s",
            "24 h",
            "-1s",
            "1.5h",
            "1y",
            "24H",
            "never",
            "99999999999999999999s",
            "18446744073709551615d",
            "3700d",
            "1h-1m",
            "١s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
