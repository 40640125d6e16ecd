//! What the API answers, sorted.

use reqwest::StatusCode;
use serde::Deserialize;

use crate::{Change, Error, Receipt, batch::Refusal, http::Reply};

#[derive(Deserialize, Default)]
struct Words {
    #[serde(default)]
    error: String,
    #[serde(default)]
    errors: Vec<String>,
}

/// A listing that is refused for its size.
pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::Transport(text) if text.contains("is larger than"))
}

/// What a server on SQLite says when somebody else is writing; its reason stands in its log alone. A PATCH is made whole or not at all, and
/// made twice it changes nothing, so it can be sent again.
pub(super) fn is_busy(reply: &Reply) -> bool {
    reply.status == StatusCode::INTERNAL_SERVER_ERROR
}

/// A reply that is a success, or its error.
pub(super) fn good(reply: Reply) -> Result<Reply, Error> {
    if reply.status.is_success() { Ok(reply) } else { Err(error(&reply)) }
}

fn error(reply: &Reply) -> Error {
    let words = words(reply);
    // What servers before 4.2 say instead of 404.
    if reply.status == StatusCode::UNPROCESSABLE_ENTITY && words.contains("Could not find domain") {
        return Error::NotFound(words);
    }
    if reply.status == StatusCode::UNAUTHORIZED {
        return Error::Auth("the server does not take the API key (HTTP 401): compare it with `api-key` in its pdns.conf".to_owned());
    }
    if is_busy(reply) {
        return Error::Transport("the server failed several times (HTTP 500): its log says why".to_owned());
    }
    reply.error(&words)
}

/// What the server says of a refusal.
pub(super) fn words(reply: &Reply) -> String {
    match serde_json::from_slice::<Words>(&reply.body) {
        Ok(words) => std::iter::once(words.error).chain(words.errors).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; "),
        Err(_) => String::from_utf8_lossy(&reply.body).into_owned(),
    }
}

/// The outcome of a PATCH. Refusals name the RRset that they are about.
pub(super) fn taken(reply: &Reply, run: &[Change]) -> Result<Receipt, Refusal> {
    if reply.status.is_success() {
        return Ok(Receipt::default());
    }
    let error = error(reply);
    let words = words(reply);
    let named: Vec<&str> = words.split([' ', '/', ',', ';', '\'', '"']).map(|word| word.trim_end_matches(':')).collect();
    let mut culprits = Vec::new();
    if matches!(error, Error::Rejected(_)) {
        let about = |change: &Change| named.contains(&change.owner.to_string().as_str());
        culprits.extend(run.iter().enumerate().filter(|(_, change)| about(change)).map(|(place, _)| (place, error.clone())));
    }
    Err(Refusal { error, culprits })
}
