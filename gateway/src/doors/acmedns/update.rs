//! `POST /update`.

use std::{fmt, net::IpAddr};

use axum::{
    extract::Request as HttpRequest,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use tracing::{debug, error, info};
use uuid::Uuid;

use super::{
    API_KEY, API_USER, Door, MAX_BODY,
    accounts::{Account, KEY},
    address::is_allowed,
    header_bytes,
    json::{Post, parse_uuid},
    metrics::{Outcome, RouteLabel},
    register::hyphenated,
    reply::{self, Refusal},
};
use crate::{
    ledger::{Holder, Request, Value},
    web::read_body,
};

/// Length of a DNS-01 value: base64url of a SHA-256 (RFC 8555, 8.4).
const TXT: usize = 43;

impl Door {
    pub(super) async fn update(&self, request: HttpRequest) -> Response {
        let client = self.client(&request);
        let username = parse_uuid(header_bytes(request.headers(), API_USER));
        let (outcome, response) = match self.try_update(username, client, request).await {
            Ok(response) => (Outcome::ok, response),
            Err(refusal) => {
                // What failed on our side has been logged already, and why.
                if refusal != Refusal::Failed
                    && let Some(left_out) = self.strangers.admit()
                {
                    info!(client = client.map(display), username = username.map(display), ?refusal, left_out, "acme-dns update refused");
                }
                (refusal.outcome(), refusal.reply())
            }
        };
        self.metrics.count(RouteLabel::update, outcome);
        response
    }

    /// The checks stand in the original's order, and it tells none of the first five from the others.
    async fn try_update(&self, username: Option<Uuid>, client: Option<IpAddr>, request: HttpRequest) -> Result<Response, Refusal> {
        let account = self.authenticate(username, request.headers()).ok_or(Refusal::Forbidden)?;
        if !is_allowed(account.allowfrom.as_deref(), client) {
            return Err(Refusal::Forbidden);
        }
        let body = read_body(request.into_body(), MAX_BODY).await?;
        let post = Post::from_first(&body).map_err(|_| Refusal::Forbidden)?;
        let mut buffer = Uuid::encode_buffer();
        let subdomain = hyphenated(account.subdomain, &mut buffer);
        if post.subdomain != subdomain {
            return Err(Refusal::Forbidden);
        }
        if !is_key_text(post.txt.as_bytes(), TXT) {
            return Err(Refusal::BadTxt);
        }
        let value: Value = post.txt.parse().map_err(|_| Refusal::BadTxt)?;
        self.claim(account.subdomain, subdomain, value).await.map_err(|error| {
            if let Some(left_out) = self.strangers.admit() {
                error!(%subdomain, %error, left_out, "an acme-dns update failed");
            }
            Refusal::Failed
        })?;
        debug!(client = client.map(display), %subdomain, value = %Digest(&post.txt), "acme-dns update");
        Ok(reply::json(StatusCode::OK, format!("{{\"txt\": \"{}\"}}", post.txt)))
    }

    fn authenticate(&self, username: Option<Uuid>, headers: &HeaderMap) -> Option<Account> {
        let key = header_bytes(headers, API_KEY);
        if !is_key_text(key, KEY) {
            return None;
        }
        self.accounts.verify(username?, key)
    }

    async fn claim(&self, account: Uuid, subdomain: &str, value: Value) -> Result<(), UpdateError> {
        let request = Request {
            holder: Holder::acmedns(account),
            owner: self.zone.prepend(subdomain.as_bytes())?,
            value,
            backend: None,
            lifetime: self.lifetime,
            keep: Some(self.values),
        };
        Ok(self.ledger.claim(vec![request]).await?)
    }
}

/// For the log; the client reads `db_error`.
#[derive(Debug, thiserror::Error)]
enum UpdateError {
    #[error(transparent)]
    Name(#[from] authdns::NameError),
    #[error(transparent)]
    Claim(#[from] crate::ledger::ClaimError),
}

impl Refusal {
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Forbidden => Outcome::forbidden,
            Self::Malformed | Self::BadAllowFrom | Self::BadTxt | Self::TooLarge | Self::TooSlow => Outcome::refused,
            Self::Failed => Outcome::failed,
        }
    }
}

/// True for exactly `length` characters of base64url.
fn is_key_text(text: &[u8], length: usize) -> bool {
    text.len() == length && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Tells one value from another in the log without writing it; computed only if the line is.
struct Digest<'a>(&'a str);

impl fmt::Display for Digest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::hash(self.0.as_bytes()).to_hex().get(..12).unwrap_or_default())
    }
}
