//! Google's credentials: where they are read from, the tokens they are good for, and whose they are.
//!
//! google-cloud-auth makes the tokens and renews them in time. A credential that it has given up on stays given up, and it does not look at the file
//! again; so each call reads the credential's text, and what is made from it is thrown away when the text is another, when a token cannot be had, and when
//! Google refuses one.
//!
//! Acting as another service account is a call of our own: the crate makes it too, but at one fixed address where its source is not a file.

use std::{env, fmt, path::PathBuf, sync::Arc, time::Duration};

use google_cloud_auth::{
    credentials::{
        AccessTokenCredentials, CacheableResource, CredentialsProvider, external_account, impersonated, mds,
        service_account::{self, AccessSpecifier},
        user_account,
    },
    errors::CredentialsError,
};
use jiff::Timestamp;
use reqwest::{
    Method, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::timeout};

use super::api::{Failure, text_of};
use crate::{
    Error,
    http::Http,
    secret::{SecretRef, Secrets},
};

/// What the tokens may do: read and change Cloud DNS.
const SCOPE: &str = "https://www.googleapis.com/auth/ndev.clouddns.readwrite";
/// What a token may do that is only used to act as another account.
const ACTING_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// A token for another account is asked for again so long before it ends.
const EARLY: Duration = Duration::from_secs(300);
/// How long a token may take to come.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where a credential is.
pub(super) enum Source {
    /// The JSON key of a service account.
    Key(SecretRef),
    /// A file of workload identity federation.
    Federation(PathBuf),
    /// The application default credentials.
    Default,
}

/// A service account to act as.
pub(super) struct Impersonation {
    account: String,
    delegates: Vec<String>,
}

impl Impersonation {
    /// From e-mail addresses.
    ///
    /// # Errors
    /// A text that says which one is none.
    pub(super) fn new(account: &str, delegates: &[String]) -> Result<Self, String> {
        for address in delegates.iter().map(String::as_str).chain([account]) {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte);
            if !address.contains('@') || !address.bytes().all(good) {
                return Err(format!(
                    "impersonate: {address} is no e-mail address of a service account (name@project.iam.gserviceaccount.com)"
                ));
            }
        }
        let delegates = delegates.iter().map(|address| format!("projects/-/serviceAccounts/{address}")).collect();
        Ok(Self { account: account.to_owned(), delegates })
    }
}

/// A credential.
pub(super) struct Credential {
    source: Source,
    impersonation: Option<Impersonation>,
    secrets: Arc<dyn Secrets>,
    /// For the metadata server and the IAM API.
    http: Http,
    iam: Url,
    ready: Mutex<Option<Ready>>,
}

/// What was made from a credential's text.
struct Ready {
    text: Text,
    tokens: AccessTokenCredentials,
    who: String,
    project: Option<String>,
    acting: Option<(HeaderMap, Timestamp)>,
}

/// The text of a credential, or that it is the metadata server's.
enum Text {
    File { place: String, text: SecretString },
    Metadata,
}

impl Text {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { text: a, .. }, Self::File { text: b, .. }) => a.expose_secret() == b.expose_secret(),
            (Self::Metadata, Self::Metadata) => true,
            _ => false,
        }
    }
}

impl Credential {
    pub(super) fn new(source: Source, impersonation: Option<Impersonation>, secrets: Arc<dyn Secrets>, http: Http, iam: Url) -> Self {
        Self { source, impersonation, secrets, http, iam, ready: Mutex::new(None) }
    }

    /// The headers that a call carries.
    ///
    /// # Errors
    /// [`Error::Auth`] where a person has to act, [`Error::Unsent`] where it may be better later.
    pub(super) async fn headers(&self) -> Result<HeaderMap, Error> {
        let text = self.text().await?;
        let mut slot = self.ready.lock().await;
        let ready = self.made(&mut slot, text)?;
        let result = self.tokens(ready).await;
        if result.is_err() {
            *slot = None;
        }
        result
    }

    /// The project that the credential is of.
    ///
    /// # Errors
    /// [`Error::Auth`] where it has none; as [`Credential::headers`].
    pub(super) async fn project(&self) -> Result<String, Error> {
        let text = self.text().await?;
        let mut slot = self.ready.lock().await;
        let ready = self.made(&mut slot, text)?;
        if ready.project.is_none() && matches!(ready.text, Text::Metadata) {
            ready.project = Some(self.metadata("project/project-id").await?);
        }
        ready.project.clone().ok_or_else(|| Error::Auth(format!("{} belongs to no project: write `project`", ready.who)))
    }

    /// Whose it is, for people.
    pub(super) async fn identity(&self) -> String {
        let who = self.ready.lock().await.as_ref().map_or_else(|| "the credential".to_owned(), |ready| ready.who.clone());
        match &self.impersonation {
            Some(other) => format!("{who}, acting as {}", other.account),
            None => who,
        }
    }

    /// A token was refused: the next call makes everything anew.
    pub(super) async fn forget(&self) {
        *self.ready.lock().await = None;
    }

    /// The credential's text as it is now.
    async fn text(&self) -> Result<Text, Error> {
        let place = match &self.source {
            Source::Key(key) => key.clone(),
            Source::Federation(path) => SecretRef::File(path.clone()),
            Source::Default => match default_file() {
                Some(path) => SecretRef::File(path),
                None => return Ok(Text::Metadata),
            },
        };
        Ok(Text::File { text: self.secrets.read(&place).await?, place: place.to_string() })
    }

    /// What is made from this text; what was made before, if it was the same.
    fn made<'a>(&self, slot: &'a mut Option<Ready>, text: Text) -> Result<&'a mut Ready, Error> {
        if slot.as_ref().is_some_and(|ready| ready.text.is(&text)) {
            return slot.as_mut().ok_or_else(|| Error::Unsent("the credential is being changed".to_owned()));
        }
        *slot = None;
        Ok(slot.insert(self.make(text)?))
    }

    fn make(&self, text: Text) -> Result<Ready, Error> {
        let scope = if self.impersonation.is_some() { ACTING_SCOPE } else { SCOPE };
        let (place, json) = match &text {
            Text::Metadata => {
                let tokens = mds::Builder::default().with_scopes([scope]).build_access_token_credentials();
                let tokens = tokens.map_err(|_| Error::Auth("no tokens of the metadata server can be asked for".to_owned()))?;
                let who = "the service account of this machine (metadata server)".to_owned();
                return Ok(Ready { text, tokens, who, project: self.impersonated_project(), acting: None });
            }
            Text::File { place, text } => (place, serde_json::from_str::<Value>(text.expose_secret()).unwrap_or_default()),
        };
        let field = |name: &str| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let kind = field("type").unwrap_or_default();
        let wanted = match self.source {
            Source::Key(_) if kind != "service_account" => {
                Some("the JSON key of a service account (`gcloud iam service-accounts keys create`)")
            }
            Source::Federation(_) if kind != "external_account" => {
                Some("a file of workload identity federation (`gcloud iam workload-identity-pools create-cred-config`)")
            }
            _ => None,
        };
        if let Some(wanted) = wanted {
            return Err(Error::Auth(format!("{place} is not {wanted}")));
        }
        let mut project = field("project_id");
        let (built, who) = match kind.as_str() {
            "service_account" => {
                let Some(email) = usable_key(&json) else {
                    return Err(Error::Auth(format!(
                        "{place} lacks a part of a service account's key, or its private key cannot be read: make a new one"
                    )));
                };
                ready_to_sign();
                let scopes = AccessSpecifier::from_scopes([scope]);
                let built = service_account::Builder::new(json.clone()).with_access_specifier(scopes).build_access_token_credentials();
                (built, format!("the service account {email} (key)"))
            }
            "external_account" => {
                let built = external_account::Builder::new(json.clone()).with_scopes([scope]).build_access_token_credentials();
                let account = field("service_account_impersonation_url").and_then(|url| account_in(&url));
                project = project.or_else(|| account.as_deref().and_then(project_of));
                let who = account.map_or_else(String::new, |account| format!(" as {account}"));
                (built, format!("a workload identity{who} (federation)"))
            }
            "impersonated_service_account" => {
                let account = field("service_account_impersonation_url").and_then(|url| account_in(&url)).unwrap_or_default();
                project = project.or_else(|| project_of(&account));
                ready_to_sign();
                let built = impersonated::Builder::new(json.clone()).with_scopes([scope]).build_access_token_credentials();
                (built, format!("the service account {account} (gcloud)"))
            }
            // A person's token has the scopes that were granted when it was made.
            "authorized_user" => {
                project = project.or_else(|| field("quota_project_id"));
                (user_account::Builder::new(json.clone()).build_access_token_credentials(), "a person's login (gcloud)".to_owned())
            }
            _ => {
                let text = "is not a credential of Google that can be used here: its `type` has to be service_account, external_account, impersonated_service_account or authorized_user";
                return Err(Error::Auth(format!("{place} {text}")));
            }
        };
        let tokens =
            built.map_err(|_| Error::Auth(format!("{place} says that it is a credential of the type {kind}, but lacks a part of one")))?;
        if matches!(self.source, Source::Default) {
            project = env::var("GOOGLE_CLOUD_PROJECT").ok().filter(|text| !text.is_empty()).or(project);
        }
        Ok(Ready { project: self.impersonated_project().or(project), text, tokens, who, acting: None })
    }

    fn impersonated_project(&self) -> Option<String> {
        self.impersonation.as_ref().and_then(|other| project_of(&other.account))
    }

    async fn tokens(&self, ready: &mut Ready) -> Result<HeaderMap, Error> {
        if let Some((headers, until)) = &ready.acting
            && Timestamp::now() < *until
        {
            return Ok(headers.clone());
        }
        let token = timeout(DEADLINE, CredentialsProvider::headers(&ready.tokens, Default::default()));
        let headers = match token.await {
            Ok(Ok(CacheableResource::New { data, .. })) => data,
            Ok(Ok(CacheableResource::NotModified)) => return Err(Error::Unsent(format!("{} gave no token", ready.who))),
            Ok(Err(error)) => return Err(refused(ready, &error)),
            Err(_) => return Err(Error::Unsent(format!("{} gave no token in {} seconds", ready.who, DEADLINE.as_secs()))),
        };
        let Some(other) = &self.impersonation else { return Ok(headers) };
        let (headers, until) = self.act(headers, &ready.who, other).await?;
        ready.acting = Some((headers.clone(), until));
        Ok(headers)
    }

    /// Asks for a token of another account.
    async fn act(&self, headers: HeaderMap, who: &str, other: &Impersonation) -> Result<(HeaderMap, Timestamp), Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Token {
            access_token: String,
            expire_time: String,
        }
        let mut url = self.iam.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v1", "projects", "-", "serviceAccounts", &format!("{}:generateAccessToken", other.account)]);
        }
        let body = json!({"delegates": other.delegates, "scope": [SCOPE], "lifetime": "3600s"}).to_string();
        let request = self.http.client().request(Method::POST, url).headers(headers);
        let request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        let unsent = |error| match error {
            Error::Transport(text) => Error::Unsent(format!("no token for {}: {text}", other.account)),
            error => error,
        };
        let reply = self.http.send(request).await.map_err(unsent)?;
        if !reply.status.is_success() {
            return Err(match Failure::of(&reply).error {
                Error::RateLimited { reason, retry_after } => Error::RateLimited { reason, retry_after },
                Error::Transport(text) => unsent(Error::Transport(text)),
                error => Error::Auth(format!(
                    "{who} may not act as {}: {} (it needs the role Service Account Token Creator there)",
                    other.account,
                    text_of(&error)
                )),
            });
        }
        let token: Token = reply.json().map_err(unsent)?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.access_token))
            .map_err(|_| Error::Unsent(format!("the token for {} cannot stand in a header", other.account)))?;
        bearer.set_sensitive(true);
        // A time that cannot be read makes the token good for this call alone.
        let until = token.expire_time.parse().ok().and_then(|time: Timestamp| time.checked_sub(EARLY).ok()).unwrap_or(Timestamp::MIN);
        Ok((HeaderMap::from_iter([(AUTHORIZATION, bearer)]), until))
    }

    /// Something that the metadata server knows.
    async fn metadata(&self, path: &str) -> Result<String, Error> {
        let host = env::var("GCE_METADATA_HOST").unwrap_or_else(|_| "metadata.google.internal".to_owned());
        let request = self.http.client().get(format!("http://{host}/computeMetadata/v1/{path}")).header("Metadata-Flavor", "Google");
        let reply = self.http.send(request).await.map_err(|error| no_metadata(text_of(&error)))?;
        match (reply.status, String::from_utf8(reply.body)) {
            (StatusCode::OK, Ok(text)) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            (status, _) => Err(no_metadata(&format!("HTTP {} for {path}", status.as_u16()))),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").finish_non_exhaustive()
    }
}

/// The file of the application default credentials; `None` leaves the metadata server.
fn default_file() -> Option<PathBuf> {
    if let Some(path) = env::var_os("GOOGLE_APPLICATION_CREDENTIALS").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path = PathBuf::from(env::var_os("HOME")?).join(".config/gcloud/application_default_credentials.json");
    path.exists().then_some(path)
}

/// The address in a service account's key, if the key has all its parts.
fn usable_key(json: &Value) -> Option<String> {
    let field = |name: &str| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    PrivatePkcs8KeyDer::from_pem_slice(field("private_key")?.as_bytes()).ok()?;
    field("private_key_id").and(field("project_id"))?;
    field("client_email").map(str::to_owned)
}

/// google-cloud-auth signs with the process's cryptography, and panics where none was chosen; the binary chooses this one first of all.
fn ready_to_sign() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Whoever was faster chose.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

/// The account in `…/serviceAccounts/ACCOUNT:generateAccessToken`.
fn account_in(url: &str) -> Option<String> {
    let (_, rest) = url.rsplit_once('/')?;
    rest.strip_suffix(":generateAccessToken").filter(|account| account.contains('@')).map(str::to_owned)
}

/// The project of a service account, which its address names.
fn project_of(account: &str) -> Option<String> {
    let (_, domain) = account.split_once('@')?;
    domain.strip_suffix(".iam.gserviceaccount.com").map(str::to_owned)
}

/// Why no token could be had. The crate's own text can hold whatever a server answered, and so a secret: of an answer, only OAuth's error is taken.
fn refused(ready: &Ready, error: &CredentialsError) -> Error {
    let mut said = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(words) = words_of(&error.to_string()) {
            said = format!(": {words}");
        } else if let Some(error) = error.downcast_ref::<std::io::Error>()
            && said.is_empty()
        {
            said = format!(": {}", error.kind());
        }
        cause = error.source();
    }
    match (&ready.text, error.is_transient()) {
        (Text::Metadata, true) => no_metadata("it cannot be reached, or is not ready"),
        (_, true) => {
            Error::Unsent(format!("{} has no token yet, as the server that gives it cannot be reached or is not well{said}", ready.who))
        }
        (Text::Metadata, false) => {
            Error::Auth(format!("the metadata server gives {} no token: has this machine a service account?", ready.who))
        }
        (Text::File { place, .. }, false) => Error::Auth(format!("{} gets no token{said} (the credential is {place})", ready.who)),
    }
}

fn no_metadata(why: &str) -> Error {
    Error::Unsent(format!(
        "no answer from Google's metadata server ({why}): where this is not Google Cloud, write `service_account` or `workload_identity`"
    ))
}

/// OAuth's words (RFC 6749, 5.2; RFC 8693, 2.2.2) or the IAM API's, in a text of google-cloud-auth that holds an answer as `body=<…>`. Long numbers in them
/// are times and identifiers, and go: the same error has the same text.
fn words_of(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("body=<")?;
    let answer: Value = serde_json::from_str(rest.get(..rest.rfind('>')?)?).ok()?;
    let error = answer.get("error")?;
    let words = match error.as_str() {
        Some(code) => match answer.get("error_description").and_then(Value::as_str) {
            Some(description) => format!("{code}: {description}"),
            None => code.to_owned(),
        },
        None => error.get("message")?.as_str()?.to_owned(),
    };
    let words: String = words.chars().filter(|c| !c.is_control()).take(200).collect();
    let words = words.split(' ').map(|word| if word.chars().filter(char::is_ascii_digit).count() > 5 { "…" } else { word });
    Some(words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_name_their_projects() {
        let url =
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/dns@infra.iam.gserviceaccount.com:generateAccessToken";
        let account = account_in(url).expect("an account");
        assert_eq!((account.as_str(), project_of(&account).as_deref()), ("dns@infra.iam.gserviceaccount.com", Some("infra")));
        assert_eq!(project_of("1234-compute@developer.gserviceaccount.com"), None);
        assert_eq!(account_in("https://example.com/other"), None);
    }

    #[test]
    fn impersonation_takes_addresses_alone() {
        assert!(Impersonation::new("a@b.iam.gserviceaccount.com", &["c@d.iam.gserviceaccount.com".to_owned()]).is_ok());
        for bad in ["a", "a@b/../c", "a@b:x", "a@b\n"] {
            assert!(Impersonation::new(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_an_answer_only_the_error_is_told() {
        let text = r#"failed to exchange token, body=<{"error":"invalid_grant","error_description":"ID Token issued at 1700000000 is stale to sign-in.","subject_token":"s3cret"}> but"#;
        assert_eq!(words_of(text).as_deref(), Some("invalid_grant: ID Token issued at … is stale to sign-in."));
        assert_eq!(words_of(r#"body=<{"error":{"code":403,"message":"Permission denied"}}>"#).as_deref(), Some("Permission denied"));
        assert_eq!(words_of("body=<s3cret>"), None);
        assert_eq!(words_of("nothing"), None);
    }
}
