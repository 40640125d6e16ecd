//! Access tokens of Microsoft Entra for the resource manager: asked for when they are needed, kept until shortly before they expire, renewed by one
//! caller while the others wait.
//!
//! The crate `azure_identity` is not used: it refuses authorities without HTTPS, so that no test on loopback could ever see it work, and its certificate
//! credential wants OpenSSL. What is left are a handful of requests.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    assertion,
    credential::{Credential, Identity, Variables},
    metadata, words,
};
use crate::{
    Error,
    http::{self, Http, Reply},
    secret::Secrets,
};

/// A token is renewed so long before it expires: clocks differ, and a call may wait for its turn.
const MARGIN: Duration = Duration::from_secs(300);

/// The tokens of one credential.
pub(super) struct Tokens {
    pub(super) credential: Credential,
    /// Where tokens are asked for; `None` takes `AZURE_AUTHORITY_HOST`, and then the cloud's own.
    pub(super) authority: Option<Url>,
    pub(super) cloud_authority: &'static str,
    /// What the token is for, without a slash at its end.
    pub(super) audience: String,
    /// To the authority.
    pub(super) http: Http,
    /// To services of this machine: never through a proxy.
    pub(super) local: Http,
    pub(super) secrets: Arc<dyn Secrets>,
    pub(super) variables: Variables,
    pub(super) cached: tokio::sync::Mutex<Option<Token>>,
}

/// A token that was given.
#[derive(Clone)]
pub(super) struct Token {
    secret: SecretString,
    renew_at: Instant,
    expires_at: Instant,
}

impl Tokens {
    /// A token that is good for some time.
    ///
    /// # Errors
    /// [`Error::Auth`] if there is none to be had; nothing was changed anywhere, whatever the error.
    pub(super) async fn get(&self) -> Result<SecretString, Error> {
        let mut cached = self.cached.lock().await;
        let now = Instant::now();
        if let Some(token) = cached.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.secret.clone());
        }
        match self.ask().await {
            Ok(token) => Ok(cached.insert(token).secret.clone()),
            // The old one still does while the authority is out of reach.
            Err(error) => match cached.as_ref().filter(|token| error.is_retryable() && now < token.expires_at) {
                Some(token) => Ok(token.secret.clone()),
                None => Err(error),
            },
        }
    }

    /// The resource manager refused this token: it is forgotten, unless it has been renewed already.
    pub(super) async fn refused(&self, token: &SecretString) {
        let mut cached = self.cached.lock().await;
        if cached.as_ref().is_some_and(|kept| kept.secret.expose_secret() == token.expose_secret()) {
            *cached = None;
        }
    }

    async fn ask(&self) -> Result<Token, Error> {
        let identity = self.credential.resolve(&self.variables, &*self.secrets).await?;
        let (reply, who) = match &identity {
            Identity::Secret { tenant, client_id, secret } => {
                let form = [("client_id", client_id.as_str()), ("client_secret", secret.expose_secret())];
                (self.entra(tenant, &form).await, "Microsoft Entra")
            }
            Identity::Certificate { tenant, client_id, pem, send_chain } => {
                let audience = self.token_url(tenant)?;
                let assertion = assertion::sign(pem, client_id, audience.as_str(), *send_chain, SystemTime::now())?;
                (self.entra(tenant, &by_assertion(client_id, &assertion)).await, "Microsoft Entra")
            }
            Identity::Assertion { tenant, client_id, assertion } => {
                (self.entra(tenant, &by_assertion(client_id, assertion)).await, "Microsoft Entra")
            }
            Identity::Metadata { client_id, endpoint } => {
                let reply = metadata::virtual_machine(&self.local, endpoint.as_deref(), &self.audience, client_id.as_deref());
                (reply.await, "the metadata service")
            }
            Identity::AppService { client_id, endpoint, header } => {
                let reply = metadata::app_service(&self.local, endpoint, header, &self.audience, client_id.as_deref());
                (reply.await, "the identity service of App Service")
            }
        };
        // A token request that broke changed nothing.
        let reply = reply.map_err(|error| match error {
            Error::Transport(text) | Error::Unsent(text) => Error::Unsent(format!("{who}: {text}")),
            other => other,
        })?;
        if !reply.status.is_success() {
            return Err(words::token_error(&reply, who));
        }
        parse(&reply).ok_or_else(|| Error::Unsent(format!("{who}: the answer holds no token that could be read")))
    }

    /// The grant of client credentials (RFC 6749, 4.4).
    async fn entra(&self, tenant: &str, proof: &[(&str, &str)]) -> Result<Reply, Error> {
        let scope = format!("{}/.default", self.audience);
        let mut form = vec![("grant_type", "client_credentials"), ("scope", &scope)];
        form.extend_from_slice(proof);
        self.http.send(self.http.client().post(self.token_url(tenant)?).form(&form)).await
    }

    pub(super) fn token_url(&self, tenant: &str) -> Result<Url, Error> {
        let mut url = match (&self.authority, (self.variables)("AZURE_AUTHORITY_HOST").filter(|host| !host.is_empty())) {
            (Some(url), _) => url.clone(),
            // Microsoft's own libraries take a bare host too.
            (None, Some(host)) => {
                let text = if host.contains("://") { host } else { format!("https://{host}") };
                http::endpoint(&text).map_err(|error| Error::Auth(format!("the environment variable AZURE_AUTHORITY_HOST: {error}")))?
            }
            (None, None) => Url::parse(self.cloud_authority).map_err(|error| Error::Auth(format!("authority: {error}")))?,
        };
        url.path_segments_mut()
            .map_err(|()| Error::Auth("authority: it is no base of a URL".to_owned()))?
            .pop_if_empty()
            .extend([tenant, "oauth2", "v2.0", "token"]);
        Ok(url)
    }
}

fn by_assertion<'a>(client_id: &'a str, assertion: &'a SecretString) -> [(&'static str, &'a str); 3] {
    [
        ("client_id", client_id),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.expose_secret()),
    ]
}

/// The token in an answer; Entra writes seconds as a number, the metadata service as a text, and App Service gives no more than the point in time.
fn parse(reply: &Reply) -> Option<Token> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Number(u64),
        Text(String),
    }

    #[derive(Deserialize)]
    struct Given {
        access_token: String,
        #[serde(default)]
        expires_in: Option<Number>,
        #[serde(default)]
        expires_on: Option<Number>,
    }

    let number = |number: Option<Number>| match number? {
        Number::Number(number) => Some(number),
        Number::Text(text) => text.parse().ok(),
    };
    let given: Given = serde_json::from_slice(&reply.body).ok()?;
    // It becomes a header.
    let secret = SecretString::from(given.access_token);
    let token = secret.expose_secret();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let lifetime = match (number(given.expires_in), number(given.expires_on)) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Some(at)) => Duration::from_secs(at).saturating_sub(now),
        (None, None) => return None,
    };
    let lifetime = lifetime.min(Duration::from_secs(86_400));
    let start = Instant::now();
    // One that lives for minutes is used for half of them.
    Some(Token { renew_at: start + lifetime - MARGIN.min(lifetime / 2), expires_at: start + lifetime, secret })
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("credential", &self.credential).field("audience", &self.audience).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::{StatusCode, header::HeaderMap};

    use super::*;
    use crate::{
        limiter::Limiter,
        secret::{LocalSecrets, SecretRef},
    };

    fn given(body: &str) -> Option<Token> {
        parse(&Reply { status: StatusCode::OK, headers: HeaderMap::new(), body: body.as_bytes().to_vec() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_before_it_ends() {
        let now = Instant::now();
        let times = |body: &str| given(body).map(|token| ((token.renew_at - now).as_secs(), (token.expires_at - now).as_secs()));
        assert_eq!(times(r#"{"access_token": "t", "expires_in": 3600}"#), Some((3300, 3600)));
        assert_eq!(times(r#"{"access_token": "t", "expires_in": "120"}"#), Some((60, 120)));
        assert_eq!(times(r#"{"access_token": "t", "expires_on": "1"}"#), Some((0, 0)));
        assert_eq!(times(r#"{"access_token": "t", "expires_in": 18446744073709551615}"#), Some((86_100, 86_400)));
        for bad in [
            "",
            "{}",
            r#"{"access_token": "t"}"#,
            r#"{"access_token": "a\nb", "expires_in": 60}"#,
            r#"{"access_token": "", "expires_in": 60}"#,
        ] {
            assert!(given(bad).is_none(), "{bad}");
        }
    }

    #[tokio::test]
    async fn while_the_authority_is_out_of_reach_the_old_token_does_to_its_end() {
        let http = || Http::direct(Arc::new(Limiter::new(Duration::from_millis(1), 100))).expect("a client");
        let tokens = |authority: &str, remaining: u64| Tokens {
            credential: Credential::ClientSecret(crate::azuredns::credential::ClientSecret {
                tenant: "t".to_owned(),
                client_id: "c".to_owned(),
                secret: SecretRef::Env("PATH".to_owned()),
            }),
            authority: Some(Url::parse(authority).expect("a URL")),
            cloud_authority: "",
            audience: String::new(),
            http: http(),
            local: http(),
            secrets: Arc::new(LocalSecrets),
            variables: Arc::new(|_| None),
            cached: tokio::sync::Mutex::new(Some(Token {
                secret: "old".to_owned().into(),
                renew_at: Instant::now(),
                expires_at: Instant::now() + Duration::from_secs(remaining),
            })),
        };
        // Nobody listens there.
        let old = tokens("http://127.0.0.1:1", 3600).get().await.map(|token| token.expose_secret().to_owned());
        assert_eq!(old.as_deref(), Ok("old"));
        assert!(matches!(tokens("http://127.0.0.1:1", 0).get().await, Err(Error::Unsent(_))));
    }
}
