//! The webhook door as cert-manager uses it: Present and CleanUp over HTTPS.

use std::{net::SocketAddr, path::PathBuf};

use rcgen::CertifiedKey;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    acmegate::{Acmegate, Config},
    temporary_folder,
    wait::LIMIT,
    write,
};

/// Where the solver is, as an Issuer names it by default.
const PATH: &str = "/apis/acme.acmegate.io/v1alpha1/acmegate";

/// The line of the section `webhook` that lets everybody have everything written.
pub const EVERYTHING: &str = "policy: [{namespaces: [\"*\"], names: [\"*\"], targets: [\"*\"]}]";

/// The Service whose name is in the door's certificate: its namespace and name.
pub const SERVICE: (&str, &str) = ("acmegate", "acmegate");

/// A client of the door, with the certificate that the door shall show.
pub struct Webhook {
    client: reqwest::Client,
    certificate: String,
    folder: TempDir,
}

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The door said so, with this message: cert-manager would show it, and ask again.
    Said(String),
    /// No answer: the door may or may not have taken it.
    Unanswered(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Said(message) => f.write_str(message),
            Self::Unanswered(error) => write!(f, "no answer: {error}"),
        }
    }
}

impl Webhook {
    /// Makes the certificate and the client.
    ///
    /// # Panics
    /// When that fails.
    pub fn new() -> Self {
        let folder = temporary_folder("webhook");
        let service = format!("{}.{}.svc", SERVICE.1, SERVICE.0);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned(), service]);
        let CertifiedKey { cert, signing_key } = made.unwrap_or_else(|e| panic!("cannot make a certificate: {e}"));
        write(&folder.path().join("chain.pem"), &cert.pem());
        write(&folder.path().join("key.pem"), &signing_key.serialize_pem());
        // A connection a call: over HTTP/2 the door has a bound of streams, and more calls than that would wait in the client; and one that is kept may be closed by
        // the door at the moment in which it is taken again.
        let client = reqwest::Certificate::from_pem(cert.pem().as_bytes()).and_then(|root| {
            reqwest::Client::builder().tls_certs_only([root]).http1_only().pool_max_idle_per_host(0).timeout(LIMIT).build()
        });
        Self { client: client.unwrap_or_else(|e| panic!("cannot make a client: {e}")), certificate: cert.pem(), folder }
    }

    /// The door's certificate in PEM: it is its own authority.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The file of the door's certificate.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    /// Opens the door on a free port, for every name.
    #[must_use]
    pub fn configure(&self, config: Config) -> Config {
        self.configure_at(config, ([127, 0, 0, 1], 0).into(), "")
    }

    /// Opens the door here, with these lines more in its section.
    #[must_use]
    pub fn configure_at(&self, config: Config, listen: SocketAddr, more: &str) -> Config {
        self.configure_with(config, listen, &format!("{EVERYTHING}\n{more}"))
    }

    /// Opens the door here, with these lines, of which one is the policy.
    #[must_use]
    pub fn configure_with(&self, config: Config, listen: SocketAddr, lines: &str) -> Config {
        let (chain, key) = (self.certificate_file(), self.folder.path().join("key.pem"));
        config.section("webhook", &format!("listen: \"{listen}\"\ntls: {{ certificate: {chain:?}, key: {key:?} }}\n{lines}"))
    }

    /// Asks once that a value stands at a name.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn present(&self, acmegate: &Acmegate, owner: &str, value: &str) -> Result<(), Refusal> {
        self.call(&self.url(acmegate), "Present", owner, value).await
    }

    /// Asks once that a value goes.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn clean_up(&self, acmegate: &Acmegate, owner: &str, value: &str) -> Result<(), Refusal> {
        self.call(&self.url(acmegate), "CleanUp", owner, value).await
    }

    /// Where the door of a running acmegate is; another place after each start.
    ///
    /// # Panics
    /// When `serve` does not run.
    pub fn url(&self, acmegate: &Acmegate) -> String {
        format!("https://{}{PATH}", acmegate.door("webhook"))
    }

    /// One call, to a place that [`url`](Self::url) gave.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Panics
    /// When the answer is none of the protocol.
    pub async fn call(&self, url: &str, action: &str, owner: &str, value: &str) -> Result<(), Refusal> {
        let body = payload(action, owner, value);
        let sent = self.client.post(url).json(&body).send().await;
        let unanswered = |error: reqwest::Error| Refusal::Unanswered(format!("{error:?}"));
        let reply = sent.map_err(unanswered)?;
        let status = reply.status();
        let text = reply.text().await.map_err(unanswered)?;
        assert_eq!(status, StatusCode::CREATED, "{action} {owner}: {text}");
        let reply: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{action} {owner}: {e}: {text}"));
        if reply["response"]["success"] == true {
            return Ok(());
        }
        let message = reply["response"]["status"]["message"].as_str();
        Err(Refusal::Said(message.unwrap_or_else(|| panic!("{action} {owner} failed without a message: {text}")).to_owned()))
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self::new()
    }
}

fn payload(action: &str, owner: &str, value: &str) -> Value {
    let owner = owner.trim_end_matches('.');
    let name = owner.strip_prefix("_acme-challenge.").unwrap_or(owner);
    json!({"request": {
        "uid": "", "action": action, "type": "dns-01", "dnsName": name, "key": value, "resourceNamespace": "cert-manager",
        "resolvedFQDN": format!("{owner}."), "resolvedZone": "", "allowAmbientCredentials": true, "config": null,
    }})
}
