//! Where tokens come from: Microsoft Entra, the metadata service of virtual machines, and the identity service of App Service.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use aws_lc_rs::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest},
    signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey},
};
use axum::http::{HeaderMap, StatusCode};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{APP_SERVICE_HEADER, CLIENT, IDENTITY, SECRET, TENANT};

/// Status and body of an answer.
pub(super) type Answer = (StatusCode, Value);

/// What Entra knows.
pub(super) struct Entra {
    /// The application's client secret.
    pub(super) secret: Option<String>,
    /// DER of the certificates that the application is registered with.
    pub(super) certificates: Vec<Vec<u8>>,
    /// Tokens of another issuer that are trusted, word by word.
    pub(super) assertions: HashSet<String>,
    /// JWT ids that were used: each is good once.
    used: HashSet<String>,
    /// Tokens that were given, with their audience and end.
    given: HashMap<String, (String, Instant)>,
    /// How long new tokens live.
    pub(super) lifetime: Option<Duration>,
    /// The next request for a token is refused.
    pub(super) refuse_next: bool,
    /// Calls that asked for a token.
    pub(super) calls: u64,
}

impl Default for Entra {
    fn default() -> Self {
        Self {
            secret: Some(SECRET.to_owned()),
            certificates: Vec::new(),
            assertions: HashSet::new(),
            used: HashSet::new(),
            given: HashMap::new(),
            lifetime: None,
            refuse_next: false,
            calls: 0,
        }
    }
}

impl Entra {
    /// True if the token is one for this audience.
    pub(super) fn accepts(&self, token: &str, audiences: &[String]) -> bool {
        let is = |audience: &String| audiences.iter().any(|known| known.trim_end_matches('/') == audience.trim_end_matches('/'));
        self.given.get(token).is_some_and(|(audience, end)| Instant::now() < *end && is(audience))
    }

    /// No token that was given is good any longer.
    pub(super) fn forget(&mut self) {
        self.given.clear();
    }

    /// The grant of client credentials; `here` are the URLs that this endpoint is known by.
    pub(super) fn token(&mut self, tenant: &str, form: &HashMap<String, String>, here: &[String]) -> Answer {
        self.calls += 1;
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if std::mem::take(&mut self.refuse_next) {
            return refused(401, "invalid_client", 7_000_222, "The provided client secret keys are expired.");
        }
        if tenant != TENANT && tenant != "adfs" {
            return refused(400, "invalid_request", 90_002, &format!("Tenant '{tenant}' not found."));
        }
        if field("grant_type") != "client_credentials" {
            return refused(400, "unsupported_grant_type", 70_003, "The app requested an unsupported grant type.");
        }
        if field("client_id") != CLIENT {
            let text = format!("Application with identifier '{}' was not found in the directory.", field("client_id"));
            return refused(400, "unauthorized_client", 700_016, &text);
        }
        let Some(audience) = field("scope").split(' ').find_map(|scope| scope.strip_suffix("/.default")) else {
            let text =
                "The provided value for scope is not valid. Client credential flows must have a scope value with /.default suffixed.";
            return refused(400, "invalid_scope", 1_002_012, text);
        };
        if let Err(answer) = self.proven(form, here) {
            return answer;
        }
        let (token, lifetime) = self.give(audience);
        (StatusCode::OK, json!({"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token}))
    }

    /// Whoever asks is who it says it is.
    fn proven(&mut self, form: &HashMap<String, String>, here: &[String]) -> Result<(), Answer> {
        if let Some(secret) = form.get("client_secret") {
            let text = format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{CLIENT}'."
            );
            return (self.secret.as_ref() == Some(secret)).then_some(()).ok_or_else(|| refused(401, "invalid_client", 7_000_215, &text));
        }
        let Some(assertion) = form.get("client_assertion") else {
            return Err(refused(401, "invalid_client", 7_000_218, "The request body must contain 'client_assertion' or 'client_secret'."));
        };
        if form.get("client_assertion_type").map(String::as_str) != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") {
            return Err(refused(400, "invalid_request", 90_019, "The client_assertion_type is not supported."));
        }
        if self.assertions.contains(assertion) {
            return Ok(());
        }
        self.signed(assertion, here).map_err(|text| refused(401, "invalid_client", 700_027, text))
    }

    /// A JWT signed with the key of a registered certificate.
    fn signed(&mut self, assertion: &str, here: &[String]) -> Result<(), &'static str> {
        let [header, claims, signature] = assertion.split('.').collect::<Vec<_>>()[..] else { return Err("The assertion is no JWT.") };
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| "The assertion is malformed.");
        let parse = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).map_err(|_| "The assertion is malformed.");
        let (fields, claims) = (parse(header)?, parse(claims)?);
        // By SHA-256, or, as older libraries do, by SHA-1.
        let (algorithm, thumbprint) = match (fields["x5t#S256"].as_str(), fields["x5t"].as_str()) {
            (Some(thumbprint), _) => (&SHA256, thumbprint),
            (None, Some(thumbprint)) => (&SHA1_FOR_LEGACY_USE_ONLY, thumbprint),
            (None, None) => return Err("The assertion names no certificate."),
        };
        let of = |der: &&Vec<u8>| BASE64_URL_SAFE_NO_PAD.encode(digest(algorithm, der)) == thumbprint.trim_end_matches('=');
        let certificate = self
            .certificates
            .iter()
            .find(of)
            .ok_or("The certificate with identifier used to sign the client assertion is not registered on application.")?;
        if let Some(chain) = fields.get("x5c") {
            let first = chain[0].as_str().and_then(|text| base64::prelude::BASE64_STANDARD.decode(text).ok());
            if first.as_ref() != Some(certificate) {
                return Err("The chain does not begin with the certificate.");
            }
        }
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "The certificate is malformed.")?;
        let key = parsed.public_key().subject_public_key.data.to_vec();
        let algorithm = match fields["alg"].as_str() {
            Some("PS256") => &RSA_PSS_2048_8192_SHA256,
            Some("RS256") => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err("The algorithm is not supported."),
        };
        let signed = assertion.rsplit_once('.').map(|(signed, _)| signed).unwrap_or_default();
        let verified = UnparsedPublicKey::new(algorithm, key).verify(signed.as_bytes(), &decode(signature)?);
        verified.map_err(|_| "The key was not found, or the signature is not its.")?;
        // A NumericDate may have a fraction (RFC 7519, 2).
        let (from, until) = (claims["nbf"].as_f64().unwrap_or(0.0), claims["exp"].as_f64().ok_or("The assertion never ends.")?);
        if !(from..until).contains(&(seconds() as f64)) {
            return Err("The assertion is not within its valid time range.");
        }
        if claims["iss"] != CLIENT || claims["sub"] != CLIENT {
            return Err("The issuer or the subject is not the application.");
        }
        if !here.iter().any(|url| claims["aud"] == url.as_str()) {
            return Err("The audience is not this token endpoint.");
        }
        let id = claims["jti"].as_str().ok_or("The assertion has no id.")?;
        if self.used.insert(id.to_owned()) { Ok(()) } else { Err("The assertion was used before.") }
    }

    /// The metadata service of a virtual machine.
    pub(super) fn metadata(&mut self, query: &HashMap<String, String>, headers: &HeaderMap) -> Answer {
        self.calls += 1;
        let wrong = |text: &str| (StatusCode::BAD_REQUEST, json!({"error": "invalid_request", "error_description": text}));
        if headers.get("metadata").is_none_or(|value| value != "true") {
            return wrong("Required metadata header not specified");
        }
        if query.get("api-version").map(String::as_str) != Some("2018-02-01") {
            return wrong("Required query variable 'api-version' is missing or unknown");
        }
        self.managed(query).unwrap_or_else(|| wrong("Identity not found"))
    }

    /// The identity service of App Service and Container Apps.
    pub(super) fn app_service(&mut self, query: &HashMap<String, String>, headers: &HeaderMap) -> Answer {
        self.calls += 1;
        let wrong = |status: StatusCode, text: &str| {
            (status, json!({"statusCode": status.as_u16(), "message": text, "correlationId": Uuid::new_v4()}))
        };
        if headers.get("x-identity-header").is_none_or(|value| value != APP_SERVICE_HEADER) {
            return wrong(StatusCode::FORBIDDEN, "The header is not that of the environment.");
        }
        if query.get("api-version").map(String::as_str) != Some("2019-08-01") {
            return wrong(StatusCode::BAD_REQUEST, "Unsupported api-version.");
        }
        let (status, mut body) =
            self.managed(query).unwrap_or_else(|| wrong(StatusCode::BAD_REQUEST, "No User Assigned or Delegated Managed Identity found."));
        if let Some(body) = body.as_object_mut() {
            body.remove("expires_in");
        }
        (status, body)
    }

    fn managed(&mut self, query: &HashMap<String, String>) -> Option<Answer> {
        if std::mem::take(&mut self.refuse_next) || query.get("client_id").is_some_and(|id| id != IDENTITY) {
            return None;
        }
        let audience = query.get("resource")?;
        let (token, lifetime) = self.give(audience);
        let body = json!({
            "access_token": token,
            "client_id": IDENTITY,
            "expires_in": lifetime.to_string(),
            "expires_on": (seconds() + lifetime).to_string(),
            "not_before": seconds().to_string(),
            "resource": audience,
            "token_type": "Bearer",
        });
        Some((StatusCode::OK, body))
    }

    fn give(&mut self, audience: &str) -> (String, u64) {
        let lifetime = self.lifetime.unwrap_or(Duration::from_secs(3599));
        let token = format!("token-{}", Uuid::new_v4().simple());
        self.given.insert(token.clone(), (audience.to_owned(), Instant::now() + lifetime));
        (token, lifetime.as_secs())
    }
}

/// An error as Entra writes it: with what is new each time.
fn refused(status: u16, error: &str, code: u32, text: &str) -> Answer {
    let (trace, correlation) = (Uuid::new_v4(), Uuid::new_v4());
    let time = format!("2026-01-{:02} 10:{:02}:29Z", 1 + trace.as_bytes()[0] % 28, trace.as_bytes()[1] % 60);
    let body = json!({
        "error": error,
        "error_description": format!("AADSTS{code}: {text}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {time}"),
        "error_codes": [code],
        "timestamp": time,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    });
    (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), body)
}

fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}
