//! `ChallengePayload`: what cert-manager asks, and what it is told.

use std::fmt::{self, Write};

use authdns::Name;
use axum::http::StatusCode;
use serde::{
    Deserialize, Serialize,
    de::{Error, Unexpected},
};
use serde_json::value::RawValue;

use super::{PAYLOAD_GROUP, PAYLOAD_KIND, VERSION, status::Status};
use crate::ledger::{Backend, Holder, Value};

/// The envelope. cert-manager leaves `apiVersion` and `kind` out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    request: Option<Box<RawValue>>,
}

/// The part of the request that is ours to read; the rest is echoed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    uid: Option<String>,
    action: Option<String>,
    #[serde(rename = "type")]
    challenge: Option<String>,
    dns_name: Option<String>,
    key: Option<String>,
    resource_namespace: Option<String>,
    #[serde(rename = "resolvedFQDN")]
    resolved_fqdn: Option<String>,
    /// `webhook.config` of the issuer, as a tenant wrote it.
    config: Option<Box<RawValue>>,
}

/// A request as it came, and what of it we read.
#[derive(Debug)]
pub(super) struct Challenge {
    /// To be echoed.
    raw: Box<RawValue>,
    fields: Fields,
}

/// What an issuer's `config` asks for. It names things of acmegate's own configuration, and a Secret beside the issuer: no URL, no other namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// The name of the backend that shall write; `None` is the one with the longest zone.
    pub(super) backend: Option<String>,
    /// The name of the Secret that it shall work with, in the namespace of the issuer.
    pub(super) secret: Option<String>,
}

impl Selection {
    /// The backend that is meant, for an issuer of this namespace.
    pub(super) fn backend_in(&self, namespace: &str) -> Option<Backend> {
        self.backend.as_deref().map(|backend| match &self.secret {
            Some(secret) => Backend::with_secret(backend, namespace, secret),
            None => backend.into(),
        })
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Present,
    CleanUp,
}

/// Why a request is not one that can be fulfilled. The text is the same each time, and quotes the request in at most a few characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("the action is {0}; acmegate knows Present and CleanUp")]
    Action(Quoted),
    #[error("the challenge type is {0}; acmegate solves dns-01 only")]
    Type(Quoted),
    #[error("key: {0}")]
    Key(#[from] crate::ledger::BadValue),
    #[error("resolvedFQDN {0} is not a domain name: {1}")]
    Fqdn(Quoted, authdns::NameError),
    #[error("dnsName {0} is not a domain name: {1}")]
    DnsName(Quoted, authdns::NameError),
    #[error("resourceNamespace {0} is not the name of a Kubernetes namespace")]
    Namespace(Quoted),
    #[error("config must be an object, such as {{\"backend\": \"corp-dns\"}}, or be left out; known keys: {CONFIG_KEYS}")]
    Config,
    #[error("config: the key {0} is not known; known keys: {CONFIG_KEYS}")]
    ConfigKey(Quoted),
    #[error(
        "config: backend must be the name of a backend of acmegate's configuration, or \"embedded\", as a text; known keys: {CONFIG_KEYS}"
    )]
    ConfigBackend,
    #[error(
        "config: secret must be {{\"name\": \"…\"}}, the name of a Secret in the issuer's own namespace and nothing else; known keys: {CONFIG_KEYS}"
    )]
    ConfigSecret,
    #[error("config: a secret is for one backend: name that, too; known keys: {CONFIG_KEYS}")]
    ConfigSecretAlone,
}

/// Characters of a parser's complaint that are repeated.
const LONGEST_COMPLAINT: usize = 200;

/// What the issuer's `config` may hold.
const CONFIG_KEYS: &str = "backend, secret";

impl Challenge {
    /// Reads a request body.
    ///
    /// # Errors
    /// A 400 that says what is wrong.
    pub(super) fn parse(body: &[u8], group: &str) -> Result<Self, Status> {
        let malformed =
            |error: serde_json::Error| Status::new(StatusCode::BAD_REQUEST, format!("the body is not a {PAYLOAD_KIND}: {}", brief(&error)));
        let payload: Payload = object(body).map_err(malformed)?;
        let known = |api_version: &str| [PAYLOAD_GROUP, group].iter().any(|group| api_version.strip_prefix(group) == Some("/v1alpha1"));
        if payload.api_version.is_some_and(|given| !given.is_empty() && !known(&given))
            || payload.kind.is_some_and(|given| !given.is_empty() && given != PAYLOAD_KIND)
        {
            let message = format!("the body must be a {PAYLOAD_KIND} of {PAYLOAD_GROUP}/{VERSION}");
            return Err(Status::new(StatusCode::BAD_REQUEST, message));
        }
        let Some(raw) = payload.request else {
            return Err(Status::new(StatusCode::BAD_REQUEST, format!("the {PAYLOAD_KIND} has no request")));
        };
        let fields = object(raw.get().as_bytes()).map_err(malformed)?;
        Ok(Self { raw, fields })
    }

    pub(super) fn action(&self) -> Result<Action, Invalid> {
        match text(&self.fields.action) {
            "Present" => Ok(Action::Present),
            "CleanUp" => Ok(Action::CleanUp),
            other => Err(Invalid::Action(Quoted::new(other))),
        }
    }

    /// Checks the challenge type; its absence means the only one there is.
    pub(super) fn check_type(&self) -> Result<(), Invalid> {
        match text(&self.fields.challenge) {
            "" | "dns-01" => Ok(()),
            other => Err(Invalid::Type(Quoted::new(other))),
        }
    }

    /// The TXT value; not always one of 43 characters (cert-manager's conformance suite has others).
    pub(super) fn value(&self) -> Result<Value, Invalid> {
        Ok(text(&self.fields.key).parse()?)
    }

    /// Where the value shall stand.
    pub(super) fn owner(&self) -> Result<Name, Invalid> {
        let given = text(&self.fields.resolved_fqdn);
        given.parse().map_err(|error| Invalid::Fqdn(Quoted::new(given), error))
    }

    /// What the certificate is for, without `*.`; cert-manager's conformance suite leaves it out.
    pub(super) fn dns_name(&self) -> Result<Option<Name>, Invalid> {
        match text(&self.fields.dns_name) {
            "" => Ok(None),
            given => given.parse().map(Some).map_err(|error| Invalid::DnsName(Quoted::new(given), error)),
        }
    }

    /// Who asks: the namespace of the Issuer, for one DNS name.
    pub(super) fn holder(&self) -> Result<Holder, Invalid> {
        let dns_name = self.dns_name()?.map(|name| name.to_relative_string()).unwrap_or_default();
        Ok(Holder::webhook(self.namespace()?, &dns_name))
    }

    /// What the issuer's `config` asks for; absent, `null` and `{}` ask for nothing.
    pub(super) fn selection(&self) -> Result<Selection, Invalid> {
        let Some(config) = &self.fields.config else { return Ok(Selection::default()) };
        let entries: serde_json::Map<String, serde_json::Value> = serde_json::from_str(config.get()).map_err(|_| Invalid::Config)?;
        let mut selection = Selection::default();
        for (key, value) in &entries {
            match &**key {
                "backend" => {
                    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                    let name = value.as_str().filter(|name| (1..=63).contains(&name.len()) && name.bytes().all(letter));
                    selection.backend = Some(name.ok_or(Invalid::ConfigBackend)?.to_owned());
                }
                "secret" => selection.secret = Some(secret_name(value).ok_or(Invalid::ConfigSecret)?.to_owned()),
                _ => return Err(Invalid::ConfigKey(Quoted::new(key))),
            }
        }
        if selection.secret.is_some() && selection.backend.is_none() {
            return Err(Invalid::ConfigSecretAlone);
        }
        Ok(selection)
    }

    /// The namespace of the Issuer.
    pub(super) fn namespace(&self) -> Result<&str, Invalid> {
        let given = text(&self.fields.resource_namespace);
        let is_label = (1..=63).contains(&given.len())
            && given.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !given.starts_with('-')
            && !given.ends_with('-');
        if is_label { Ok(given) } else { Err(Invalid::Namespace(Quoted::new(given))) }
    }

    /// The reply: the request as it came, its uid, and the outcome; a failure always has a message.
    pub(super) fn reply(&self, outcome: Result<(), &str>) -> Reply<'_> {
        let (success, status) = match outcome {
            Ok(()) => (true, None),
            Err("") => (false, Some("the request failed; acmegate's log says why".to_owned())),
            Err(message) => (false, Some(message.to_owned())),
        };
        Reply {
            api_version: format!("{PAYLOAD_GROUP}/{VERSION}"),
            kind: PAYLOAD_KIND,
            request: &self.raw,
            response: Outcome {
                uid: text(&self.fields.uid),
                success,
                status: status.map(|message| Failure { status: "Failure", message }),
            },
        }
    }
}

/// Reads an object: serde would take an array of its fields, too.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    if json.trim_ascii_start().starts_with(b"[") {
        return Err(Error::invalid_type(Unexpected::Seq, &"an object"));
    }
    serde_json::from_slice(json)
}

/// `{"name": "dns-token"}`, and not one key more; a name as Kubernetes has it (RFC 1123 subdomain).
fn secret_name(reference: &serde_json::Value) -> Option<&str> {
    let reference = reference.as_object().filter(|reference| reference.len() == 1)?;
    let end = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    reference.get("name")?.as_str().filter(|name| {
        name.len() <= 253
            && name.split('.').all(|part| {
                part.bytes().all(|byte| end(byte) || byte == b'-')
                    && part.bytes().next().is_some_and(end)
                    && part.bytes().last().is_some_and(end)
            })
    })
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// The envelope of a reply.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reply<'a> {
    api_version: String,
    kind: &'static str,
    request: &'a RawValue,
    response: Outcome<'a>,
}

#[derive(Debug, Serialize)]
struct Outcome<'a> {
    uid: &'a str,
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Failure>,
}

#[derive(Debug, Serialize)]
struct Failure {
    status: &'static str,
    message: String,
}

/// What the parser says; it quotes what it did not expect, however long that is.
fn brief(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let mut brief: String = said.chars().filter(|c| !c.is_control()).take(LONGEST_COMPLAINT).collect();
    if brief.len() < said.len() {
        let _ = write!(brief, "… at line {} column {}", error.line(), error.column());
    }
    brief
}

/// A piece of the request in a message: quoted, escaped, and short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quoted(String);

impl Quoted {
    const LENGTH: usize = 64;

    fn new(text: &str) -> Self {
        let mut short: String = text.chars().take(Self::LENGTH).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        Self(short)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
