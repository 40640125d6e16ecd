//! Retry-After in both of its forms (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

/// Longest wait that is believed; a CA that says more has made a mistake, and a person should look before then.
const LONGEST: Duration = Duration::from_secs(60 * 86_400);

/// The time before which the CA does not want to be asked again: a number of seconds or an HTTP date. What is neither is ignored, as if it were
/// not there; a date in the past means now.
pub(super) fn parse(text: &str, now: SystemTime) -> Option<SystemTime> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are longer than the longest.
        text.parse().map_or(LONGEST, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    now.checked_add(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nonsense_is_ignored() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let after = |text| parse(text, now).map(|at| at.duration_since(now).unwrap().as_secs());
        assert_eq!(after("120"), Some(120));
        assert_eq!(after(" 0 "), Some(0));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(after("Sunday, 06-Nov-94 08:49:47 GMT"), Some(10));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(after("99999999999999999999999"), Some(LONGEST.as_secs()));
        assert_eq!(after("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LONGEST.as_secs()));
        for nonsense in ["", "soon", "-1", "1.5", "12 s"] {
            assert_eq!(after(nonsense), None, "{nonsense:?}");
        }
    }
}
