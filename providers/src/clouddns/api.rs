//! The API's objects, and its errors in ours.

use serde::{Deserialize, Serialize};

use super::rrset::Rrset;
use crate::{
    Error,
    http::{self, Reply},
};

/// A page of any listing.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Page {
    pub(super) managed_zones: Vec<ManagedZone>,
    pub(super) rrsets: Vec<Rrset>,
    next_page_token: Option<String>,
}

impl Page {
    /// What asks for the next page, if there is one.
    pub(super) fn next(&self) -> Option<String> {
        self.next_page_token.clone().filter(|token| !token.is_empty())
    }
}

/// A zone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManagedZone {
    pub(super) name: String,
    pub(super) dns_name: String,
    #[serde(default)]
    pub(super) name_servers: Vec<String>,
    #[serde(default)]
    visibility: Option<String>,
    #[serde(default)]
    forwarding_config: Option<serde_json::Value>,
    #[serde(default)]
    peering_config: Option<serde_json::Value>,
}

impl ManagedZone {
    /// True if the world can see it, and it has records of its own.
    pub(super) fn is_public(&self) -> bool {
        self.visibility.as_deref() != Some("private") && self.forwarding_config.is_none() && self.peering_config.is_none()
    }
}

/// A project.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Project {
    pub(super) quota: Quota,
}

/// What a change may hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Quota {
    pub(super) rrset_additions_per_change: usize,
    pub(super) rrset_deletions_per_change: usize,
    /// Bytes.
    pub(super) total_rrdata_size_per_change: usize,
    pub(super) resource_records_per_rrset: usize,
}

impl Default for Quota {
    /// What every project has, unless it asked for more.
    fn default() -> Self {
        Self {
            rrset_additions_per_change: 1000,
            rrset_deletions_per_change: 1000,
            total_rrdata_size_per_change: 100_000,
            resource_records_per_rrset: 100,
        }
    }
}

impl Quota {
    pub(super) fn at_least_one(self) -> Self {
        Self {
            rrset_additions_per_change: self.rrset_additions_per_change.max(1),
            rrset_deletions_per_change: self.rrset_deletions_per_change.max(1),
            total_rrdata_size_per_change: self.total_rrdata_size_per_change,
            resource_records_per_rrset: self.resource_records_per_rrset.max(1),
        }
    }
}

/// A change to be made.
#[derive(Debug, Default, Serialize)]
pub(super) struct ChangeBody {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) deletions: Vec<Rrset>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) additions: Vec<Rrset>,
}

/// A change that was made.
#[derive(Debug, Deserialize)]
pub(super) struct ChangeMade {
    pub(super) id: String,
    #[serde(default)]
    pub(super) status: String,
}

/// Which entry of a change the API complains about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Addition(usize),
    Deletion(usize),
    /// By the owner's name, as newer servers say it.
    Named(String),
}

/// A refusal.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// The entries at fault, each with what is wrong with it.
    pub(super) places: Vec<(Place, Error)>,
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Said,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    message: String,
    errors: Vec<One>,
    details: Vec<One>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct One {
    message: String,
    reason: String,
    location: String,
}

impl Failure {
    /// What an answer that is no success says.
    pub(super) fn of(reply: &Reply) -> Self {
        let said = serde_json::from_slice::<Body>(&reply.body).unwrap_or_default().error;
        let reason = said.errors.iter().chain(&said.details).map(|one| &one.reason).find(|reason| !reason.is_empty());
        let reason = reason.cloned().unwrap_or_default();
        let error = sorted(reply, &reason, &said.message, false);
        let mut places = Vec::new();
        for one in &said.errors {
            if let Some(place) = place(&one.location).or_else(|| place(&one.message)) {
                places.push((place, sorted(reply, &one.reason, &one.message, true)));
            }
        }
        if places.is_empty()
            && let Some(place) = place(&said.message)
        {
            places.push((place, sorted(reply, &reason, &said.message, true)));
        }
        // The first complaint speaks for the call: a place in it makes "not found" a stale deletion, and not a zone that is gone.
        let error = places.first().map_or(error, |(_, error)| error.clone());
        Self { error, places, reason }
    }

    /// True if the credential was taken, and is not allowed what was asked.
    pub(super) fn is_denied(&self, status: reqwest::StatusCode) -> bool {
        status == reqwest::StatusCode::FORBIDDEN
            && matches!(self.error, Error::Auth(_))
            && matches!(self.reason.as_str(), "forbidden" | "IAM_PERMISSION_DENIED")
    }
}

/// The error that a complaint stands for; `placed` if it is about one entry of a change.
fn sorted(reply: &Reply, reason: &str, message: &str, placed: bool) -> Error {
    let words = match (message, reason) {
        ("", reason) => reason.to_owned(),
        (message, "") => message.to_owned(),
        (message, reason) => format!("{message} ({reason})"),
    };
    let usual = reply.error(&words);
    let text = text_of(&usual).to_owned();
    match reason {
        "rateLimitExceeded" | "userRateLimitExceeded" | "dailyLimitExceeded" | "RATE_LIMIT_EXCEEDED" => {
            Error::RateLimited { reason: text, retry_after: http::retry_after(&reply.headers) }
        }
        // The size of a change and the number of RRsets in a zone have this reason too, and waiting helps with neither.
        "quotaExceeded" if message.contains("would exceed") => Error::Rejected(text),
        "quotaExceeded" => Error::RateLimited { reason: text, retry_after: http::retry_after(&reply.headers) },
        "conditionNotMet" | "preconditionFailed" | "alreadyExists" => Error::Conflict(text),
        "notFound" if placed => Error::Conflict(text),
        "cnameResourceRecordSetConflict" => Error::Rejected(text),
        _ if reply.status == reqwest::StatusCode::UNAUTHORIZED => {
            Error::Auth(format!("{text} (is the key still there at Google, and this machine's clock right?)"))
        }
        _ => usual,
    }
}

/// An error's text without what [`Error`] puts before it.
pub(super) fn text_of(error: &Error) -> &str {
    match error {
        Error::Auth(text)
        | Error::NotFound(text)
        | Error::Conflict(text)
        | Error::Rejected(text)
        | Error::Unsent(text)
        | Error::Transport(text)
        | Error::RateLimited { reason: text, .. } => text,
    }
}

/// The place in `entity.change.additions[3]…`, `entity.change.deletions[0]`, or `entity.change.additions[a.example.com.][TXT]`.
fn place(text: &str) -> Option<Place> {
    let (_, rest) = text.split_once("entity.change.")?;
    let (list, rest) = rest.split_once('[')?;
    let (index, _) = rest.split_once(']')?;
    match (list, index.parse::<usize>()) {
        ("additions", Ok(index)) => Some(Place::Addition(index)),
        ("deletions", Ok(index)) => Some(Place::Deletion(index)),
        ("additions" | "deletions", Err(_)) => Some(Place::Named(index.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::{StatusCode, header::HeaderMap};

    use super::*;

    fn failure(status: u16, reasons: &[(&str, &str)]) -> Failure {
        let errors: Vec<_> =
            reasons.iter().map(|(reason, message)| serde_json::json!({"message": message, "domain": "global", "reason": reason})).collect();
        let message = reasons.first().map_or("", |(_, message)| message);
        let body = serde_json::json!({"error": {"code": status, "message": message, "errors": errors}}).to_string();
        let status = StatusCode::from_u16(status).expect("a status");
        Failure::of(&Reply { status, headers: HeaderMap::new(), body: body.into_bytes() })
    }

    #[test]
    fn complaints_are_found_in_the_change() {
        let stale = failure(412, &[("conditionNotMet", "Precondition not met for 'entity.change.deletions[76]'")]);
        assert_eq!(
            stale.places,
            [(
                Place::Deletion(76),
                Error::Conflict("HTTP 412: Precondition not met for 'entity.change.deletions[76]' (conditionNotMet)".to_owned())
            )]
        );
        let exists = failure(
            409,
            &[("alreadyExists", "The resource 'entity.change.additions[a.example.com.][TXT]' named 'a.example.com. (TXT)' already exists")],
        );
        assert!(matches!(&exists.places[..], [(Place::Named(name), Error::Conflict(_))] if name == "a.example.com."), "{exists:?}");
        let gone = failure(404, &[("notFound", "The 'entity.change.deletions[0]' resource named 'a.example.com. (TXT)' does not exist.")]);
        assert!(matches!((&gone.error, &gone.places[..]), (Error::Conflict(_), [(Place::Deletion(0), Error::Conflict(_))])), "{gone:?}");
        let bad =
            failure(400, &[("invalid", "Invalid value for 'entity.change.additions[1].rrdata[0]': 'x'"), ("invalid", "nothing said")]);
        assert!(matches!(&bad.places[..], [(Place::Addition(1), Error::Rejected(_))]), "{bad:?}");
        assert!(failure(404, &[("notFound", "The 'parameters.managedZone' resource named 'z' does not exist.")]).places.is_empty());
    }

    #[test]
    fn one_status_has_many_meanings() {
        assert!(matches!(failure(403, &[("forbidden", "Forbidden")]).error, Error::Auth(_)));
        assert!(matches!(failure(403, &[("accessNotConfigured", "not enabled")]).error, Error::Auth(_)));
        assert!(matches!(failure(403, &[("rateLimitExceeded", "too fast")]).error, Error::RateLimited { .. }));
        assert!(matches!(failure(403, &[("quotaExceeded", "Quota exceeded")]).error, Error::RateLimited { .. }));
        let large = failure(403, &[("quotaExceeded", "The change would exceed quota for additions per change.")]);
        assert!(matches!(large.error, Error::Rejected(_)), "{large:?}");
        assert!(matches!(failure(400, &[("cnameResourceRecordSetConflict", "CNAME")]).error, Error::Rejected(_)));
        assert!(matches!(failure(404, &[("notFound", "no such zone")]).error, Error::NotFound(_)));
        assert!(matches!(failure(503, &[("backendError", "later")]).error, Error::Transport(_)));
        assert!(failure(403, &[("forbidden", "")]).is_denied(StatusCode::FORBIDDEN));
        assert!(!failure(403, &[("accessNotConfigured", "")]).is_denied(StatusCode::FORBIDDEN));
    }
}
