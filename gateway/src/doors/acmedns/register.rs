//! `POST /register`.

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use ipnet::IpNet;
use secrecy::ExposeSecret;
use serde::Serialize;
use subtle::{Choice, ConstantTimeEq};
use tracing::{error, info};
use uuid::{Builder, Uuid};
use zeroize::Zeroizing;

use super::{
    Door, MAX_BODY,
    accounts::KEY,
    address::parse_net,
    json::Post,
    metrics::{Outcome, RouteLabel},
    reply::{self, Refusal},
};
use crate::{config::Registration, store::AccountRow, web::read_body};

/// Random bytes behind a key: 30 bytes are 40 characters of base64url.
const KEY_BYTES: usize = KEY / 4 * 3;

/// Most networks in one account's list: more than that is not a list that somebody wrote.
const MAX_NETWORKS: usize = 1000;

/// Who may register.
pub(super) enum Gate {
    Open,
    /// Hashes of the tokens.
    Tokens(Vec<[u8; 32]>),
    Closed,
}

impl Gate {
    pub(super) fn new(registration: &Registration, hash: impl Fn(&[u8]) -> [u8; 32]) -> Self {
        match registration {
            Registration::Open => Self::Open,
            Registration::Token(tokens) => Self::Tokens(tokens.iter().map(|token| hash(token.expose_secret().as_bytes())).collect()),
            Registration::Closed => Self::Closed,
        }
    }

    /// True if the route does not exist.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// True if the request shows a token where one is needed: in its path, as bearer token, or as Basic password.
    pub(super) fn admits(&self, in_path: Option<&[u8]>, headers: &HeaderMap, hash: impl Fn(&[u8]) -> [u8; 32]) -> bool {
        let Self::Tokens(tokens) = self else { return !self.is_closed() };
        let in_header = token_in_header(headers);
        // Hashes are compared, so that neither length nor content shows in the time.
        [in_path, in_header.as_deref().map(Vec::as_slice)].into_iter().flatten().any(|shown| {
            let shown = hash(shown);
            tokens.iter().fold(Choice::from(0), |any, token| any | token.ct_eq(&shown)).into()
        })
    }
}

/// The bearer token (RFC 6750), or the password of Basic authentication (RFC 7617), whatever the user.
fn token_in_header(headers: &HeaderMap) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, credentials) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Zeroizing::new(credentials.into()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(BASE64.decode(credentials.as_bytes()).ok()?);
    let colon = pair.iter().position(|&byte| byte == b':')?;
    pair.get(colon + 1..).map(|password| Zeroizing::new(password.to_vec()))
}

/// The reply; the order of the keys is the original's.
#[derive(Serialize)]
struct Registered<'a> {
    username: Uuid,
    password: &'a str,
    fulldomain: String,
    subdomain: Uuid,
    allowfrom: &'a [String],
}

impl Door {
    pub(super) async fn register(&self, admitted: bool, request: Request) -> Response {
        let client = self.client(&request);
        let done = if admitted { self.try_register(request).await } else { Err(Refusal::Forbidden) };
        let (outcome, response) = match done {
            Ok((subdomain, response)) => {
                info!(client = client.map(display), %subdomain, "acme-dns account registered");
                (Outcome::ok, response)
            }
            Err(refusal) => {
                if refusal != Refusal::Failed
                    && let Some(left_out) = self.strangers.admit()
                {
                    info!(client = client.map(display), ?refusal, left_out, "acme-dns registration refused");
                }
                (refusal.outcome(), refusal.reply())
            }
        };
        self.metrics.count(RouteLabel::register, outcome);
        response
    }

    async fn try_register(&self, request: Request) -> Result<(Uuid, Response), Refusal> {
        let body = read_body(request.into_body(), MAX_BODY).await?;
        let (allowfrom, networks) = parse_allowfrom(&body)?;
        let new = NewAccount::generate().map_err(|error| {
            error!(%error, "the system's random generator failed");
            Refusal::Failed
        })?;
        let NewAccount { username, subdomain, key } = new;
        let fulldomain = self.zone.prepend(hyphenated(subdomain, &mut Uuid::encode_buffer()).as_bytes()).map_err(|error| {
            error!(%error, zone = %self.zone, "no account name fits into the zone");
            Refusal::Failed
        })?;
        let row = AccountRow { username, subdomain, key_hash: self.accounts.hash(key.as_bytes()), allowfrom: networks };
        self.store.register(row.clone()).await.map_err(|error| {
            if let Some(left_out) = self.strangers.admit() {
                error!(%error, left_out, "an acme-dns account could not be stored");
            }
            Refusal::Failed
        })?;
        self.accounts.insert(row);
        self.metrics.accounts.inc();
        let fulldomain = fulldomain.to_relative_string();
        let reply = Registered { username, password: &key, fulldomain, subdomain, allowfrom: &allowfrom };
        let text = serde_json::to_vec(&reply).map_err(|_| Refusal::Failed)?;
        Ok((subdomain, reply::json(StatusCode::CREATED, text)))
    }
}

/// The list as the reply repeats it, and as it is kept.
fn parse_allowfrom(body: &[u8]) -> Result<(Vec<String>, Vec<IpNet>), Refusal> {
    if body.is_empty() {
        return Ok(Default::default());
    }
    let post = Post::from_whole(body).ok().filter(|post| !post.mistyped).ok_or(Refusal::Malformed)?;
    if post.allowfrom.len() > MAX_NETWORKS {
        return Err(Refusal::BadAllowFrom);
    }
    let texts: Vec<_> = post.allowfrom.iter().map(|text| text.replace(['[', ']'], "")).collect();
    let networks = texts.iter().map(|text| parse_net(text)).collect::<Option<_>>().ok_or(Refusal::BadAllowFrom)?;
    Ok((texts, networks))
}

/// What an account is made of; all of it random, nothing derived from anything else.
struct NewAccount {
    username: Uuid,
    subdomain: Uuid,
    key: Zeroizing<String>,
}

impl NewAccount {
    fn generate() -> Result<Self, getrandom::Error> {
        let (mut username, mut subdomain, mut key) = ([0; 16], [0; 16], Zeroizing::new([0; KEY_BYTES]));
        getrandom::fill(&mut username)?;
        getrandom::fill(&mut subdomain)?;
        getrandom::fill(&mut *key)?;
        let uuid = |bytes| Builder::from_random_bytes(bytes).into_uuid();
        Ok(Self { username: uuid(username), subdomain: uuid(subdomain), key: Zeroizing::new(BASE64URL_NOPAD.encode(&*key)) })
    }
}

pub(super) fn hyphenated(uuid: Uuid, buffer: &mut [u8; 45]) -> &str {
    uuid.hyphenated().encode_lower(buffer)
}
