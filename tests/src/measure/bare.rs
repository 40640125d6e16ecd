//! The yardstick of issuance: an ACME client (RFC 8555) that makes the fewest requests, keeps nothing on disk and checks nothing.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::testca::{TestCa, http_client};

/// An ACME client with nothing that could be left out, and an account of its own.
pub struct Bare {
    http: Client,
    directory: Value,
    key: EcdsaKeyPair,
    jwk: Value,
    account: Option<String>,
    nonce: Option<String>,
}

/// Between two questions whether the authority is done.
const POLL: Duration = Duration::from_millis(1);
/// Questions before it is given up.
const POLLS: usize = 5_000;

impl Bare {
    /// Makes its account; the connection stays open.
    ///
    /// # Errors
    /// When the authority does not answer as expected.
    pub async fn new(ca: &TestCa) -> anyhow::Result<Self> {
        let http = http_client(&ca.ca_file())?;
        let agent = |request: reqwest::RequestBuilder| request.header(header::USER_AGENT, AGENT);
        let directory: Value = agent(http.get(ca.directory())).send().await?.json().await?;
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let point = key.public_key().as_ref();
        let (x, y) = point.get(1..).context("no point")?.split_at(32);
        let jwk = json!({ "crv": "P-256", "kty": "EC", "x": encode(x), "y": encode(y) });
        let mut client = Self { http, directory, key, jwk, account: None, nonce: None };
        let url = client.url("newAccount")?;
        let (location, _) = client.post(&url, Some(json!({ "termsOfServiceAgreed": true }))).await?;
        client.account = Some(location.context("an account without a URL")?);
        Ok(client)
    }

    /// A certificate for `names`: its chain, PEM. `place` puts a value of a challenge where the authority will look for it.
    ///
    /// # Errors
    /// When the authority does not answer as expected, or `place` fails.
    pub async fn issue<P>(&mut self, names: &[String], mut place: impl FnMut(String) -> P) -> anyhow::Result<String>
    where
        P: Future<Output = anyhow::Result<()>>,
    {
        let identifiers: Vec<_> = names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        let url = self.url("newOrder")?;
        let (order_url, order) = self.post(&url, Some(json!({ "identifiers": identifiers }))).await?;
        let (order_url, order) = (order_url.context("an order without a URL")?, parse(&order)?);
        let authorizations: Vec<String> = serde_json::from_value(field(&order, "authorizations")?.clone())?;
        let thumbprint = encode(digest::digest(&digest::SHA256, self.jwk.to_string().as_bytes()).as_ref());
        let mut challenges = Vec::new();
        for url in &authorizations {
            let authorization = self.get(url).await?;
            let offered = field(&authorization, "challenges")?.as_array().context("challenges are no list")?;
            let challenge = offered.iter().find(|one| one["type"] == "dns-01").context("no dns-01 challenge")?;
            let key_authorization = format!("{}.{thumbprint}", text(challenge, "token")?);
            place(encode(digest::digest(&digest::SHA256, key_authorization.as_bytes()).as_ref())).await?;
            challenges.push(text(challenge, "url")?.to_owned());
        }
        for url in &challenges {
            self.post(url, Some(json!({}))).await?;
        }
        for url in &authorizations {
            self.wait(url, "valid").await?;
        }
        let key = rcgen::KeyPair::generate()?;
        let csr = rcgen::CertificateParams::new(names.to_vec())?.serialize_request(&key)?;
        self.post(text(&order, "finalize")?, Some(json!({ "csr": encode(csr.der()) }))).await?;
        let order = self.wait(&order_url, "valid").await?;
        Ok(self.post(text(&order, "certificate")?, None).await?.1)
    }

    async fn wait(&mut self, url: &str, wanted: &str) -> anyhow::Result<Value> {
        for _ in 0..POLLS {
            let resource = self.get(url).await?;
            match text(&resource, "status")? {
                status if status == wanted => return Ok(resource),
                "invalid" => bail!("{url} is invalid: {resource}"),
                _ => sleep(POLL).await,
            }
        }
        bail!("{url} does not become {wanted}")
    }

    async fn get(&mut self, url: &str) -> anyhow::Result<Value> {
        parse(&self.post(url, None).await?.1)
    }

    /// A signed request; without a payload it only reads (RFC 8555, 6.3). Gives `Location` and the body.
    async fn post(&mut self, url: &str, payload: Option<Value>) -> anyhow::Result<(Option<String>, String)> {
        let payload = payload.map(|payload| encode(payload.to_string().as_bytes())).unwrap_or_default();
        loop {
            let nonce = match self.nonce.take() {
                Some(nonce) => nonce,
                None => self.new_nonce().await?,
            };
            let mut protected = json!({ "alg": "ES256", "nonce": nonce, "url": url });
            match &self.account {
                Some(account) => protected["kid"] = json!(account),
                None => protected["jwk"] = self.jwk.clone(),
            }
            let protected = encode(protected.to_string().as_bytes());
            let signed = format!("{protected}.{payload}");
            let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes())?;
            let body = json!({ "protected": protected, "payload": payload, "signature": encode(signature.as_ref()) });
            let request = self.http.post(url).header(header::USER_AGENT, AGENT).header(header::CONTENT_TYPE, "application/jose+json");
            let response = request.body(body.to_string()).send().await?;
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            self.nonce = header("replay-nonce");
            let (status, location) = (response.status(), header("location"));
            let body = response.text().await?;
            match status {
                status if status.is_success() => return Ok((location, body)),
                StatusCode::BAD_REQUEST if body.contains("badNonce") => {}
                _ => bail!("{url} answered {status}: {body}"),
            }
        }
    }

    async fn new_nonce(&self) -> anyhow::Result<String> {
        let response = self.http.head(self.url("newNonce")?).header(header::USER_AGENT, AGENT).send().await?;
        let nonce = response.headers().get("replay-nonce").context("no nonce")?;
        Ok(nonce.to_str()?.to_owned())
    }

    fn url(&self, name: &str) -> anyhow::Result<String> {
        Ok(text(&self.directory, name)?.to_owned())
    }
}

/// Pebble wants one.
const AGENT: &str = "bare";

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn parse(body: &str) -> anyhow::Result<Value> {
    serde_json::from_str(body).with_context(|| body.to_owned())
}

fn field<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    value.get(name).ok_or_else(|| anyhow!("no {name} in {value}"))
}

fn text<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    field(value, name)?.as_str().with_context(|| format!("{name} is no text in {value}"))
}
