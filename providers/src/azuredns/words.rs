//! What Azure says when it refuses, made fit for an error: which kind it is, and the same words each time (ids of a request and times are left out).

use serde::Deserialize;

use crate::{Error, http::Reply};

/// The error of an answer: the code decides, then the status.
pub(super) fn error(reply: &Reply) -> Error {
    let said = Said::of(reply);
    let text = said.text();
    match said.code.as_str() {
        // A lock, a policy, a subscription that is switched off: they are answered with 409 or 403, and only a person can do something.
        "ScopeLocked"
        | "ReadOnlyDisabledSubscription"
        | "DisallowedOperation"
        | "MissingSubscriptionRegistration"
        | "RequestDisallowedByPolicy" => Error::Rejected(text),
        "AuthorizationFailed"
        | "LinkedAuthorizationFailed"
        | "InvalidAuthenticationToken"
        | "InvalidAuthenticationTokenTenant"
        | "ExpiredAuthenticationToken"
        | "AuthenticationFailed"
        | "SubscriptionNotFound" => Error::Auth(text),
        "ResourceNotFound" | "ParentResourceNotFound" | "ResourceGroupNotFound" => Error::NotFound(text),
        _ => match reply.error(&text) {
            // Their text counts seconds.
            Error::RateLimited { retry_after, .. } => Error::RateLimited { reason: said.throttle(), retry_after },
            // ETags differ each time.
            Error::Conflict(_) if reply.status.as_u16() == 412 => Error::Conflict("the record set has another ETag by now".to_owned()),
            error => error,
        },
    }
}

/// True if the credential is good, and has no right to do this here.
pub(super) fn is_forbidden(reply: &Reply) -> bool {
    reply.status.as_u16() == 403 && Said::of(reply).code == "AuthorizationFailed"
}

/// True if the zone is there and has no such record set.
pub(super) fn is_absent(reply: &Reply) -> bool {
    reply.status.as_u16() == 404 && Said::of(reply).code == "NotFound"
}

/// The error of a token endpoint, which changes nothing: whatever is not a refusal can be tried again.
pub(super) fn token_error(reply: &Reply, who: &str) -> Error {
    #[derive(Default, Deserialize)]
    struct Refusal {
        #[serde(default)]
        error: String,
        #[serde(default)]
        error_description: String,
        /// App Service says it so.
        #[serde(default)]
        message: String,
    }

    let said: Refusal = serde_json::from_slice(&reply.body).unwrap_or_default();
    let words = if said.error_description.is_empty() { &said.message } else { &said.error_description };
    let text = format!("{who}: {}: {}", if said.error.is_empty() { "no token" } else { &said.error }, constant(words));
    match reply.error(&text) {
        Error::Transport(text) | Error::Conflict(text) => Error::Unsent(text),
        // The metadata service says 404 and 410 while it is being updated.
        Error::NotFound(text) => Error::Unsent(text),
        Error::RateLimited { retry_after, .. } => {
            Error::RateLimited { reason: format!("{who}: too many tokens were asked for"), retry_after }
        }
        _ if said.error == "temporarily_unavailable" => Error::Unsent(text),
        Error::Rejected(text) => Error::Auth(text),
        other => other,
    }
}

/// Both shapes of an error body: `{error: {code, message}}` by the resource manager, `{code, message}` by the DNS service behind it.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    error: Option<Box<Said>>,
}

impl Said {
    fn of(reply: &Reply) -> Self {
        let said: Self = serde_json::from_slice(&reply.body).unwrap_or_default();
        match said.error {
            Some(inner) => *inner,
            None => said,
        }
    }

    fn text(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", "") => String::new(),
            (code, message) => format!("{code}: {}", constant(message)),
        }
    }

    fn throttle(&self) -> String {
        if self.code.is_empty() { "Azure Resource Manager".to_owned() } else { format!("Azure Resource Manager: {}", self.code) }
    }
}

/// Words in front of an identifier that is new each time.
const LABELS: &[&str] = &[
    "trace id",
    "correlation id",
    "correlationid",
    "request id",
    "requestid",
    "activity id",
    "activityid",
    "tracking id",
    "operation id",
    "/id/",
    "timestamp",
];

/// A text without what differs from one time to the next: labelled identifiers, and points in time.
pub(super) fn constant(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = labelled(rest) {
            rest = after;
        } else if let Some(after) = time(rest) {
            kept.push_str("(a time)");
            rest = after;
        } else {
            kept.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    // Line ends and what stood between the parts that are gone.
    kept.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches([' ', '.', ',', ';', ':']).to_owned()
}

/// What follows a label and its identifier, if `text` begins with them.
fn labelled(text: &str) -> Option<&str> {
    let label = LABELS.iter().find(|label| text.get(..label.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(label)))?;
    let after = text.get(label.len()..)?.trim_start_matches([':', '=', ' ', '\'', '"']);
    let after = uuid(after).or_else(|| time(after))?;
    Some(after.trim_start_matches(['\'', '"', ',', ';']))
}

fn uuid(text: &str) -> Option<&str> {
    follows(text, "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh")
}

/// `2024-02-20 07:21:29.123Z` and the like (RFC 3339), or `2/20/2024 7:21:29 AM`.
fn time(text: &str) -> Option<&str> {
    if let Some(rest) = follows(text, "dddd-dd-ddsdd:dd:dd") {
        let rest = match rest.strip_prefix('.') {
            Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => rest,
        };
        return Some(rest.strip_prefix('Z').unwrap_or(rest));
    }
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text;
    for (most, end) in [(2, '/'), (2, '/'), (4, ' '), (2, ':'), (2, ':')] {
        let count = digits(rest);
        if count == 0 || count > most {
            return None;
        }
        rest = rest.get(count..)?.strip_prefix(end)?;
    }
    let rest = rest.get(digits(rest)..)?;
    Some([" AM", " PM"].iter().find_map(|half| rest.strip_prefix(half)).unwrap_or(rest))
}

/// What follows `pattern` in `text`: `h` is a hexadecimal digit, `d` a decimal one, `s` a blank or a T; all else is itself.
fn follows<'a>(text: &'a str, pattern: &str) -> Option<&'a str> {
    let begin = text.get(..pattern.len())?;
    let fits = begin.bytes().zip(pattern.bytes()).all(|(byte, kind)| match kind {
        b'h' => byte.is_ascii_hexdigit(),
        b'd' => byte.is_ascii_digit(),
        b's' => matches!(byte, b' ' | b'T'),
        other => byte == other,
    });
    if fits { text.get(pattern.len()..) } else { None }
}

#[cfg(test)]
mod tests {
    use reqwest::{StatusCode, header::HeaderMap};

    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        let status = StatusCode::from_u16(status).expect("a status");
        Reply { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn what_is_new_each_time_is_left_out_and_the_rest_is_kept() {
        let said = "AADSTS7000215: Invalid client secret provided for app '4d856d1f-8648-456c-9bb2-f36273bbe4e3'.\r\nTrace ID: \
                    6bad8289-db4a-49da-8609-0848d8d71700\r\nCorrelation ID: 63b8bb61-5ca6-4ae3-8224-15a4de11cd87\r\nTimestamp: 2023-02-20 07:21:29Z";
        let kept = "AADSTS7000215: Invalid client secret provided for app '4d856d1f-8648-456c-9bb2-f36273bbe4e3'";
        assert_eq!(constant(said), kept, "the application's id stays");
        let pending =
            "already has 1 operations like '/operations/type/DeleteAliasRecordSet/id/c2396006-9eb3-4e05-bdb7-f287dded3cd3' queued.";
        assert_eq!(constant(pending), "already has 1 operations like '/operations/type/DeleteAliasRecordSet queued");
        let clock = "Current time: 2024-05-01T10:00:00.1234567Z, valid from 5/1/2024 9:00:00 AM, ö";
        assert_eq!(constant(clock), "Current time: (a time), valid from (a time), ö");
        assert_eq!(constant("a trace id is no label here"), "a trace id is no label here");
    }

    #[test]
    fn codes_go_before_statuses() {
        let body = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"words"}}}}"#);
        assert_eq!(error(&reply(409, &body("ScopeLocked"))), Error::Rejected("ScopeLocked: words".to_owned()));
        assert_eq!(error(&reply(404, &body("SubscriptionNotFound"))), Error::Auth("SubscriptionNotFound: words".to_owned()));
        assert!(matches!(error(&reply(409, r#"{"code":"Conflict","message":"x"}"#)), Error::Conflict(_)));
        assert!(matches!(error(&reply(404, &body("ParentResourceNotFound"))), Error::NotFound(_)));
        assert!(matches!(error(&reply(500, "<html>")), Error::Transport(_)));
        let seconds = r#"{"error":{"code":"TooManyRequests","message":"try again after '17' seconds"}}"#;
        let told = error(&reply(429, seconds)).to_string();
        assert_eq!(told, "asked too often: Azure Resource Manager: TooManyRequests");
        assert!(is_absent(&reply(404, r#"{"code":"NotFound","message":"x"}"#)) && !is_absent(&reply(404, "")));
    }

    #[test]
    fn a_token_that_is_not_given_leaves_nothing_in_doubt() {
        let unavailable = r#"{"error":"temporarily_unavailable","error_description":"AADSTS90033: later"}"#;
        assert!(matches!(token_error(&reply(400, unavailable), "x"), Error::Unsent(_)));
        assert!(matches!(token_error(&reply(503, ""), "x"), Error::Unsent(_)));
        assert!(matches!(token_error(&reply(400, r#"{"error":"invalid_request"}"#), "x"), Error::Auth(_)));
        assert!(matches!(token_error(&reply(401, r#"{"error":"invalid_client"}"#), "x"), Error::Auth(_)));
    }
}
