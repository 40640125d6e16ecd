//! What the SDK's errors mean to a caller.

use std::{error::Error as StdError, time::Duration};

use authdns::Name;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_route53::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use aws_sdk_sts::operation::{assume_role::AssumeRoleError, assume_role_with_web_identity::AssumeRoleWithWebIdentityError};

use super::name;
use crate::{Error, batch::Refusal};

/// The pause after a "too often", which never says for how long: what gives back a whole burst.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// The longest text of AWS that goes into an error.
const MOST_TEXT: usize = 300;

/// An error of a call.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// What it means.
    pub(super) error: Error,
    /// AWS's code; empty if AWS did not answer.
    pub(super) code: String,
    /// What AWS said: several things where a batch has several faults.
    messages: Vec<String>,
    /// True if there was no credential to sign the call with.
    unsigned: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, code: String::new(), messages: Vec::new(), unsigned: false }
    }
}

impl Failure {
    /// From what the SDK gives.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        match error {
            SdkError::ServiceError(service) => {
                let raw = service.raw();
                let body = raw.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
                // A refused batch comes in either of two forms, and what stands before Route 53 has a form of its own; the SDK reads one.
                let code = match service.err().code() {
                    Some(code) => code.to_owned(),
                    None if body.contains("<InvalidChangeBatch") => "InvalidChangeBatch".to_owned(),
                    None => elements(&body, "Code").into_iter().next().unwrap_or_default(),
                };
                let mut messages = elements(&body, "Message");
                if messages.is_empty() {
                    messages.extend(service.err().message().map(str::to_owned));
                }
                let error = answered(raw.status().as_u16(), &code, &messages.join("; "));
                Self { error, code, messages, unsigned: false }
            }
            SdkError::ConstructionFailure(_) => unsent(error).into(),
            SdkError::ResponseError(_) => Error::Transport(format!("the answer cannot be read: {}", root(error))).into(),
            SdkError::TimeoutError(_) => Error::Transport("the call took too long".to_owned()).into(),
            SdkError::DispatchFailure(failure) => {
                let connecting = find::<hyper_util::client::legacy::Error>(error).is_some_and(|error| error.is_connect());
                let unsigned = find::<CredentialsError>(error).is_some();
                if connecting || failure.is_user() || unsigned {
                    return Self { unsigned, ..unsent(error).into() };
                }
                let text = if failure.is_timeout() { "the call took too long" } else { "the connection broke" };
                Error::Transport(format!("{text}: {}", root(error))).into()
            }
            _ => Error::Transport(root(error)).into(),
        }
    }

    /// True if reading the credential anew may help: it could not be had, or was refused altogether. (The SDK tells once why a profile cannot be read,
    /// and then no more.)
    pub(super) fn is_of_credential(&self) -> bool {
        self.unsigned || matches!(self.error, Error::Auth(_)) && !self.is_denied()
    }

    /// True if there was no credential to sign the call with, so that no other call will be signed either.
    pub(super) fn is_unsigned(&self) -> bool {
        self.unsigned
    }

    /// True if the credential is known, and not allowed this call.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self.code.as_str(), "AccessDenied" | "AccessDeniedException")
    }

    /// The text without what its kind adds.
    pub(super) fn said(&self) -> String {
        readable(&format!("{}: {}", self.code, self.messages.join("; ")))
    }

    /// The refusal of a batch with changes at `owners`: whom it is about.
    pub(super) fn refusal(self, owners: &[&Name]) -> Refusal {
        if self.code != "InvalidChangeBatch" {
            return self.error.into();
        }
        let mut culprits: Vec<(usize, Error)> = Vec::new();
        for text in self.messages.iter().flat_map(|message| split(message)) {
            let Some(place) = named(text, owners) else { continue };
            if culprits.iter().all(|(known, _)| *known != place) {
                culprits.push((place, complaint(text)));
            }
        }
        Refusal { error: self.error, culprits }
    }
}

/// The error that an answer stands for.
fn answered(status: u16, code: &str, said: &str) -> Error {
    let said = readable(said);
    let text = match (code, said.as_str()) {
        ("", "") => format!("HTTP {status}"),
        ("", said) => format!("HTTP {status}: {said}"),
        (code, "") => code.to_owned(),
        (code, said) => format!("{code}: {said}"),
    };
    match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "PriorRequestNotComplete" => Error::RateLimited { reason: text, retry_after: Some(PAUSE) },
        // Their texts hold the signed request, and with it the time.
        "SignatureDoesNotMatch" | "InvalidSignatureException" => {
            Error::Auth(format!("{code}: the secret access key does not belong to the access key id, or the endpoint is another service's"))
        }
        "RequestExpired" | "RequestTimeTooSkewed" => Error::Auth(format!("{code}: this machine's clock is wrong: set it")),
        "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "UnrecognizedClient"
        | "AccessDenied"
        | "AccessDeniedException"
        | "NotAuthorized"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "OptInRequired"
        | "InvalidIdentityToken"
        | "IDPRejectedClaim" => Error::Auth(text),
        "NoSuchHostedZone" | "NoSuchChange" => Error::NotFound(text),
        "InvalidChangeBatch" => complaint(&text),
        "RequestTimeout" => Error::Transport(text),
        _ => match status {
            401 | 403 => Error::Auth(text),
            404 => Error::NotFound(text),
            429 => Error::RateLimited { reason: text, retry_after: Some(PAUSE) },
            408 | 500.. => Error::Transport(text),
            _ => Error::Rejected(text),
        },
    }
}

/// What one complaint about a batch means.
fn complaint(text: &str) -> Error {
    const STALE: [&str; 4] =
        ["but it already exists", "but it was not found", "do not match the current values", "exists with the same name and type"];
    let said = readable(text);
    if STALE.iter().any(|stale| text.contains(stale)) {
        Error::Conflict(said)
    } else if text.contains("conflicts with other records") {
        Error::Rejected(format!(
            "a CNAME or an alias stands there, and beside it nothing else can: remove it, or issue through the name that it points to ({said})"
        ))
    } else {
        Error::Rejected(said)
    }
}

/// The single complaints of a message, which AWS also writes as `[one, another]`.
fn split(message: &str) -> Vec<&str> {
    const BEGINNINGS: [&str; 3] = [", Tried to ", ", RRSet ", ", Invalid "];
    let whole = message.trim();
    let mut rest = whole.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(whole);
    let mut single = Vec::new();
    while let Some(at) = BEGINNINGS.iter().filter_map(|beginning| rest.find(beginning)).min() {
        let (one, more) = rest.split_at(at);
        single.push(one);
        rest = more.get(2..).unwrap_or_default();
    }
    single.push(rest);
    single
}

/// Which of `owners` a complaint names: the first of its words that is one.
fn named(text: &str, owners: &[&Name]) -> Option<usize> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | ',' | '[' | ']' | '='));
    words.filter(|word| word.contains('.')).find_map(|word| {
        let name = name::parse(word)?;
        owners.iter().position(|owner| **owner == name)
    })
}

/// An error before anything was sent: a missing credential, or no connection.
fn unsent(error: &(dyn StdError + 'static)) -> Error {
    if let Some(ours) = find::<Error>(error) {
        return match ours {
            Error::Transport(text) => Error::Unsent(text.clone()),
            other => other.clone(),
        };
    }
    if let Some(refused) = below::<SdkError<AssumeRoleError, HttpResponse>>(error) {
        return of_credential("the role cannot be taken", Failure::of(refused).error);
    }
    if let Some(refused) = below::<SdkError<AssumeRoleWithWebIdentityError, HttpResponse>>(error) {
        return of_credential("the role cannot be taken with the web identity", Failure::of(refused).error);
    }
    match find::<CredentialsError>(error) {
        Some(CredentialsError::CredentialsNotLoaded(_)) => Error::Auth(
            "there is no AWS credential: set one in the backend's settings, or give the process one (environment, profile, web identity, container or \
             instance role)"
                .to_owned(),
        ),
        Some(CredentialsError::ProviderTimedOut(_)) => Error::Unsent("the AWS credential did not come in time".to_owned()),
        Some(CredentialsError::InvalidConfiguration(_)) => Error::Auth(format!("the AWS configuration is wrong: {}", root(error))),
        Some(_) if find::<std::io::Error>(error).is_some_and(|error| matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied)) => {
            Error::Auth(format!("the AWS credential cannot be read: {}", root(error)))
        }
        Some(_) => Error::Unsent(format!("the AWS credential cannot be had: {}", root(error))),
        None => Error::Unsent(format!("no connection: {}", root(error))),
    }
}

/// What an error of the token service means for a call of Route 53, which was not sent.
pub(super) fn of_credential(what: &str, error: Error) -> Error {
    match error {
        Error::Transport(text) | Error::Unsent(text) => Error::Unsent(format!("{what}: {text}")),
        Error::RateLimited { reason, retry_after } => Error::RateLimited { reason: format!("{what}: {reason}"), retry_after },
        Error::Auth(text) | Error::NotFound(text) | Error::Conflict(text) | Error::Rejected(text) => Error::Auth(format!("{what}: {text}")),
    }
}

/// An error and its causes.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// The cause of some type.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref::<T>())
}

/// The cause of some type, below the error itself: an error of the token service may be caused by another one.
fn below<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    causes(error).skip(1).find_map(|error| error.downcast_ref::<T>())
}

/// The text of the innermost cause.
pub(super) fn root(error: &(dyn StdError + 'static)) -> String {
    readable(&causes(error).last().map(ToString::to_string).unwrap_or_default())
}

/// AWS's text as it can stand in an error of ours: without control characters, not too long, and without the numbers that the SDK makes up for session names
/// (the time), so that the same error reads the same each time.
pub(super) fn readable(text: &str) -> String {
    let mut readable = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('-') {
        let (before, after) = rest.split_at(at);
        readable.push_str(before);
        let digits = after.bytes().skip(1).take_while(u8::is_ascii_digit).count();
        let (dropped, kept) = if digits >= 10 { (digits + 1, "") } else { (1, "-") };
        readable.push_str(kept);
        rest = after.get(dropped..).unwrap_or_default();
    }
    readable.push_str(rest);
    readable.chars().filter(|c| !c.is_control()).take(MOST_TEXT).collect()
}

/// The texts of the XML elements of a name, wherever they stand.
fn elements(body: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let texts = body.split(open.as_str()).skip(1).filter_map(|rest| rest.split_once(close.as_str())).map(|(text, _)| text);
    texts
        .map(|text| {
            text.replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"")
                .replace("&apos;", "'")
                .replace("&#39;", "'")
                .replace("&amp;", "&")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| text.parse().expect("a name")).collect()
    }

    fn refused(messages: &[&str], owners: &[&str]) -> Refusal {
        let messages: Vec<String> = messages.iter().map(|text| (*text).to_owned()).collect();
        let error = answered(400, "InvalidChangeBatch", &messages.join("; "));
        let owners = names(owners);
        Failure { error, code: "InvalidChangeBatch".to_owned(), messages, unsigned: false }.refusal(&owners.iter().collect::<Vec<_>>())
    }

    #[test]
    fn every_change_that_is_complained_about_is_named() {
        let owners = ["a.example.com", "*.example.com", "example.com", "d.example.com", "fine.example.com"];
        let refusal = refused(
            &["[Tried to create resource record set [name='a.example.com.', type='TXT'] but it already exists, \
               Tried to delete resource record set [name='\\052.example.com.', type='TXT'] but the values provided do not match the current values, \
               Tried to delete resource record set [name='example.com.', type='TXT'] but it was not found, \
               RRSet of type TXT with DNS name d.example.com. is not permitted as it conflicts with other records with the same DNS name in zone example.com.]"],
            &owners,
        );
        let places: Vec<_> = refusal.culprits.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 1, 2, 3]);
        assert!(refusal.culprits.iter().take(3).all(|(_, error)| matches!(error, Error::Conflict(_))), "{refusal:?}");
        assert!(matches!(&refusal.culprits[3].1, Error::Rejected(text) if text.contains("a CNAME or an alias")), "{refusal:?}");
    }

    #[test]
    fn a_delete_and_a_create_at_one_owner_are_one_culprit() {
        let refusal = refused(
            &[
                "Tried to delete resource record set [name='a.example.com.', type='TXT'] but it was not found",
                "Tried to create resource record set a.example.com. type TXT, but it already exists.",
            ],
            &["b.example.com", "a.example.com"],
        );
        assert_eq!(refusal.culprits.len(), 1);
        assert_eq!(refusal.culprits[0].0, 1);
    }

    #[test]
    fn a_complaint_about_nobody_names_nobody() {
        let refusal = refused(&["The zone has resource record set protection"], &["a.example.com"]);
        assert_eq!(refusal.culprits, []);
        assert!(matches!(refusal.error, Error::Rejected(_)));
    }

    #[test]
    fn codes_say_what_to_do_next() {
        assert!(matches!(answered(400, "Throttling", "Rate exceeded"), Error::RateLimited { retry_after: Some(_), .. }));
        assert!(matches!(answered(400, "PriorRequestNotComplete", ""), Error::RateLimited { .. }));
        assert!(matches!(answered(403, "InvalidClientTokenId", "bad"), Error::Auth(_)));
        assert!(matches!(answered(404, "NoSuchHostedZone", ""), Error::NotFound(_)));
        assert!(matches!(answered(400, "InvalidInput", "bad"), Error::Rejected(_)));
        assert_eq!(answered(500, "InternalFailure", ""), Error::Transport("InternalFailure".to_owned()));
        let signature = answered(403, "SignatureDoesNotMatch", "The Canonical String should have been 20261123T090000Z").to_string();
        assert!(!signature.contains("2026"), "{signature}");
    }

    #[test]
    fn texts_are_the_same_each_time() {
        let text = "User: arn:aws:sts::123456789012:assumed-role/r/web-identity-token-1795424000123 may not";
        assert_eq!(readable(text), "User: arn:aws:sts::123456789012:assumed-role/r/web-identity-token may not");
    }
}
