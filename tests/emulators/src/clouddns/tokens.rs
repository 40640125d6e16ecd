//! Who may call: keys, tokens, and the four places that give tokens.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use axum::{
    http::{HeaderMap, Method, StatusCode, Uri, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::{CloudDns, Refused, Shared, fields};

const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
const IAM: &str = "https://www.googleapis.com/auth/iam";
const DNS: &str = "https://www.googleapis.com/auth/ndev.clouddns.readwrite";

/// Tokens asked for so far, by where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCalls {
    /// OAuth's token endpoint.
    pub oauth: u64,
    /// The metadata server.
    pub metadata: u64,
    /// The security token service.
    pub exchange: u64,
    /// The IAM credentials API.
    pub impersonation: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Public keys by identifier, with whose they are.
    keys: BTreeMap<String, (String, Vec<u8>)>,
    /// Tokens, with whose they are and what for.
    issued: BTreeMap<String, (String, Vec<String>)>,
    /// Who may use Cloud DNS.
    allowed: BTreeSet<String>,
    /// Who may act as whom.
    acts: BTreeSet<(String, String)>,
    /// What the pool's identity provider says of its subjects.
    subjects: BTreeSet<String>,
    /// The account that the metadata server speaks for.
    machine: Option<String>,
    last: u64,
    calls: TokenCalls,
}

impl CloudDns {
    /// A new key of a service account that may use Cloud DNS: the JSON file that Google would hand out.
    ///
    /// # Panics
    /// When no key can be made.
    #[allow(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn service_account(&self, name: &str) -> String {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).expect("its private part");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        let email = self.email(name);
        let mut state = self.shared.state.lock();
        state.tokens.last += 1;
        let id = format!("{:040x}", state.tokens.last);
        state.tokens.keys.insert(id.clone(), (email.clone(), pair.public_key().as_ref().to_vec()));
        state.tokens.allowed.insert(email.clone());
        json!({
            "type": "service_account", "project_id": self.shared.project, "private_key_id": id, "private_key": pem, "client_email": email,
            "client_id": "100000000000000000001", "token_uri": format!("{}/token", self.shared.url), "universe_domain": "googleapis.com",
        })
        .to_string()
    }

    /// The address of a service account of the project.
    pub fn email(&self, name: &str) -> String {
        format!("{name}@{}.iam.gserviceaccount.com", self.shared.project)
    }

    /// This account may use Cloud DNS, or may not any more.
    pub fn allow(&self, email: &str, yes: bool) {
        let allowed = &mut self.shared.state.lock().tokens.allowed;
        if yes {
            allowed.insert(email.to_owned());
        } else {
            allowed.remove(email);
        }
    }

    /// One account may act as another.
    pub fn allow_acting(&self, from: &str, to: &str) {
        self.shared.state.lock().tokens.acts.insert((from.to_owned(), to.to_owned()));
    }

    /// The metadata server speaks for this account.
    pub fn set_machine(&self, email: &str) {
        self.shared.state.lock().tokens.machine = Some(email.to_owned());
    }

    /// The identity provider of the workload identity pool vouches for whoever has this token. Gives the configuration file that reads the token from a
    /// file; with an account, the workload acts as it.
    pub fn federation(&self, token: &str, token_file: &str, account: Option<&str>) -> String {
        self.shared.state.lock().tokens.subjects.insert(token.to_owned());
        let mut json = json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/pool/providers/provider",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/sts/v1/token", self.shared.url),
            "credential_source": {"file": token_file},
        });
        if let Some(account) = account {
            let path = format!("/v1/projects/-/serviceAccounts/{account}:generateAccessToken");
            json["service_account_impersonation_url"] = json!(format!("{}{path}", self.shared.url));
        }
        json.to_string()
    }

    /// Who a workload of the pool is, before it acts as anybody.
    pub fn workload(&self) -> String {
        "principal://pool/subject/workload".to_owned()
    }

    /// No key and no token that was handed out is good any more.
    pub fn revoke_all(&self) {
        let tokens = &mut self.shared.state.lock().tokens;
        tokens.keys.clear();
        tokens.issued.clear();
        tokens.subjects.clear();
    }

    /// Tokens asked for so far.
    pub fn token_calls(&self) -> TokenCalls {
        self.shared.state.lock().tokens.calls
    }
}

impl Tokens {
    /// Whether a call of the DNS API may be made.
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let (who, scopes) = self.bearer(headers).ok_or_else(Refused::unauthorized)?;
        if !scopes.iter().any(|scope| scope == DNS || scope == CLOUD) {
            return Err(Refused::new(403, "insufficientPermissions", "Request had insufficient authentication scopes."));
        }
        if !self.allowed.contains(&who) {
            return Err(Refused::new(403, "forbidden", "Forbidden"));
        }
        Ok(())
    }

    /// Whose token a call carries, and what it is for.
    fn bearer(&self, headers: &HeaderMap) -> Option<(String, Vec<String>)> {
        let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        if let Some(known) = self.issued.get(token) {
            return Some(known.clone());
        }
        // A service account may sign its own token instead of asking for one (AIP-4111); with a scope it is good for any API.
        let claims = self.verified(token)?;
        let scopes = claims.get("scope")?.as_str()?.split(' ').map(str::to_owned).collect();
        Some((claims.get("iss")?.as_str()?.to_owned(), scopes))
    }

    /// The claims of a JWT that a key of ours signed and that is good now.
    fn verified(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |text: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let (header, claims) = (json(header)?, json(claims)?);
        let (email, key) = self.keys.get(header.get("kid")?.as_str()?)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(signed.as_bytes(), &signature).ok()?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        let time = |name: &str| claims.get(name).and_then(Value::as_u64);
        let good = header.get("alg")? == "RS256" && claims.get("iss")? == email.as_str();
        (good && time("iat")? <= now + 60 && now < time("exp")? && time("exp")? <= time("iat")? + 3700).then_some(claims)
    }

    fn issue(&mut self, who: &str, scopes: Vec<String>) -> String {
        self.last += 1;
        let token = format!("ya29.emulated-{}", self.last);
        self.issued.insert(token.clone(), (who.to_owned(), scopes));
        token
    }
}

/// OAuth's refusal (RFC 6749, 5.2).
fn oauth_error(error: &str, description: &str) -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(json!({"error": error, "error_description": description}))).into_response()
}

/// Everything that is not the DNS API.
pub(super) fn serve(shared: &Shared, method: &Method, path: &[&str], headers: &HeaderMap, body: &[u8]) -> Response {
    let tokens = &mut shared.state.lock().tokens;
    match (method, path) {
        (&Method::POST, ["token"]) => oauth(tokens, shared, &form(body)),
        (&Method::GET, ["computeMetadata", "v1", rest @ ..]) => metadata(tokens, shared, rest, headers),
        (&Method::POST, ["sts", "v1", "token"]) => exchange(tokens, &form(body)),
        (&Method::POST, ["v1", "projects", "-", "serviceAccounts", call]) => match call.strip_suffix(":generateAccessToken") {
            Some(account) => impersonate(tokens, account, headers, body).unwrap_or_else(IntoResponse::into_response),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn oauth(tokens: &mut Tokens, shared: &Shared, form: &BTreeMap<String, String>) -> Response {
    tokens.calls.oauth += 1;
    if form.get("grant_type").map(String::as_str) != Some("urn:ietf:params:oauth:grant-type:jwt-bearer") {
        return oauth_error("unsupported_grant_type", "Invalid grant_type");
    }
    let claims = form.get("assertion").and_then(|assertion| tokens.verified(assertion));
    let Some(claims) = claims else { return oauth_error("invalid_grant", "Invalid JWT Signature.") };
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    // google-auth writes Google's own address, whatever the key says.
    if text("aud") != "https://oauth2.googleapis.com/token" && text("aud") != format!("{}/token", shared.url) {
        return oauth_error("invalid_grant", "Invalid JWT: Failed audience check.");
    }
    let token = tokens.issue(&text("iss"), text("scope").split(' ').map(str::to_owned).collect());
    axum::Json(json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})).into_response()
}

fn metadata(tokens: &mut Tokens, shared: &Shared, path: &[&str], headers: &HeaderMap) -> Response {
    tokens.calls.metadata += 1;
    if headers.get("Metadata-Flavor").is_none_or(|flavor| flavor != "Google") {
        return (StatusCode::FORBIDDEN, "Missing Metadata-Flavor:Google header.").into_response();
    }
    let flavor = [("Metadata-Flavor", "Google")];
    match (path, tokens.machine.clone()) {
        (["project", "project-id"], _) => (flavor, shared.project.clone()).into_response(),
        (["universe", "universe-domain"], _) => (flavor, "googleapis.com").into_response(),
        (["instance", "service-accounts", "default", "email"], Some(email)) => (flavor, email).into_response(),
        (["instance", "service-accounts", "default", "token"], Some(email)) => {
            let token = tokens.issue(&email, vec![CLOUD.to_owned()]);
            (flavor, axum::Json(json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}))).into_response()
        }
        _ => (StatusCode::NOT_FOUND, flavor).into_response(),
    }
}

fn exchange(tokens: &mut Tokens, form: &BTreeMap<String, String>) -> Response {
    tokens.calls.exchange += 1;
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if field("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" || field("audience").is_empty() {
        return oauth_error("invalid_request", "Invalid value for \"audience\" or \"grant_type\".");
    }
    if !tokens.subjects.contains(field("subject_token").trim()) {
        return oauth_error("invalid_grant", "The given credential is rejected by the attribute condition.");
    }
    let scopes = field("scope").split(' ').map(str::to_owned).collect();
    let token = tokens.issue("principal://pool/subject/workload", scopes);
    let kind = "urn:ietf:params:oauth:token-type:access_token";
    axum::Json(json!({"access_token": token, "issued_token_type": kind, "token_type": "Bearer", "expires_in": 3599})).into_response()
}

fn impersonate(tokens: &mut Tokens, account: &str, headers: &HeaderMap, body: &[u8]) -> Result<Response, Refused> {
    tokens.calls.impersonation += 1;
    let (who, scopes) = tokens.bearer(headers).ok_or_else(Refused::unauthorized)?;
    if !scopes.iter().any(|scope| scope == CLOUD || scope == IAM) {
        return Err(Refused::new(403, "insufficientPermissions", "Request had insufficient authentication scopes."));
    }
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let list = |name: &str| -> Vec<String> {
        let list = asked.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    // Each may act as the next, up to the account itself.
    let mut at = who;
    let delegates = list("delegates").into_iter().map(|name| name.trim_start_matches("projects/-/serviceAccounts/").to_owned());
    for next in delegates.chain([account.to_owned()]) {
        if !tokens.acts.contains(&(at, next.clone())) {
            let text = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).";
            return Err(Refused::new(403, "forbidden", text));
        }
        at = next;
    }
    let scopes = list("scope");
    if scopes.is_empty() {
        return Err(Refused::new(400, "badRequest", "The request scope is missing."));
    }
    let token = tokens.issue(account, scopes);
    Ok(axum::Json(json!({"accessToken": token, "expireTime": in_an_hour()})).into_response())
}

/// An hour from now (RFC 3339), without a calendar: the date is counted out.
fn in_an_hour() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs() + 3600;
    let (days, seconds) = (now / 86400, now % 86400);
    // Days since 0000-03-01, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, era * 400 + year) } else { (month - 9, era * 400 + year + 1) };
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let query = format!("/?{}", String::from_utf8_lossy(body));
    query.parse::<Uri>().map(|uri| fields(&uri)).unwrap_or_default()
}
