//! testca: Pebble as a certificate authority for tests, which checks DNS-01 for real through a resolver.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{peers::peer, process::Process, temporary_folder, wait::bounded};

/// A running certificate authority. It refuses 5 % of the nonces, as Pebble does unless told otherwise.
pub struct TestCa {
    directory: String,
    management: String,
    process: Process,
    folder: TempDir,
}

/// How it shall run.
#[derive(Debug, Default)]
pub struct Options {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Options {
    /// It validates by asking `resolver`, over TCP.
    pub fn resolver(resolver: SocketAddr) -> Self {
        Self::default().argument("-dnsserver").argument(&resolver.to_string())
    }

    /// It takes every challenge as met, without asking DNS.
    pub fn always_valid() -> Self {
        Self::default().variable("PEBBLE_VA_ALWAYS_VALID", "1")
    }

    /// It takes new accounts only with this external account binding: a key identifier, and the MAC key in base64url.
    #[must_use]
    pub fn external_account(self, kid: &str, mac_key: &str) -> Self {
        self.argument("-eab").argument(&format!("{kid}={mac_key}"))
    }

    /// It refuses this name (a policy refusal, HTTP 400).
    #[must_use]
    pub fn block(self, name: &str) -> Self {
        self.argument("-block").argument(name)
    }

    /// Any flag or value of testca (`testca -h`).
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// It refuses no nonce: for clients that give up when two in a row are refused, as certbot does, and where requests are counted.
    #[must_use]
    pub fn every_nonce(self) -> Self {
        self.variable("PEBBLE_WFE_NONCEREJECT", "0")
    }

    /// What was proved is proved again in the next order.
    #[must_use]
    pub fn no_reuse(self) -> Self {
        self.variable("PEBBLE_AUTHZREUSE", "0")
    }

    /// Any environment variable of Pebble, such as `PEBBLE_VA_NOSLEEP`.
    #[must_use]
    pub fn variable(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(self) -> TestCa {
        let folder = temporary_folder("testca");
        let mut command = Command::new(peer("testca"));
        command.arg("-v").arg("-dir").arg(folder.path()).args(&self.arguments);
        command.env("PEBBLE_VA_NOSLEEP", "1").envs(self.environment);
        let process = Process::spawn("testca", command);
        let directory = process.stdout_line("its directory", |l| l.strip_prefix("directory ").map(str::to_owned)).await;
        let management = process.stdout_line("its management address", |l| l.strip_prefix("management ").map(str::to_owned)).await;
        process.stdout_line("its line \"ready\"", |l| (l == "ready").then_some(())).await;
        TestCa { directory, management, process, folder }
    }
}

impl TestCa {
    /// The URL of its directory.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The file of the root of its HTTPS certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("https-ca.pem")
    }

    /// The base URL of its management interface (Pebble's: `/roots/0`, `/intermediates/0`, `/cert-status-by-serial/<hex>`, …).
    pub fn management(&self) -> &str {
        &self.management
    }

    /// The root under which it issues, in PEM.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn issuing_root(&self) -> String {
        self.get("/roots/0").await
    }

    /// What its management interface answers at `path`.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> String {
        let url = format!("{}{path}", self.management);
        let get = async { http_client(&self.ca_file())?.get(&url).send().await?.text().await };
        bounded(&url, get).await.unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    /// Makes it answer `answer`, whatever that is, when it is asked for the renewal information of a certificate (PEM).
    ///
    /// # Panics
    /// When it does not take it.
    pub async fn set_renewal_info(&self, certificate: &str, answer: &str) {
        let url = format!("{}/set-renewal-info/", self.management);
        let body = serde_json::json!({"Certificate": certificate, "ARIResponse": answer});
        // Pebble wants to know who asks.
        let post =
            async { http_client(&self.ca_file())?.post(&url).header("User-Agent", "test").json(&body).send().await?.error_for_status() };
        bounded(&url, post).await.unwrap_or_else(|e| panic!("{url}: {e}"));
    }

    /// What it says of a certificate by its serial number: `Valid` or `Revoked`.
    ///
    /// # Panics
    /// When it does not know it.
    pub async fn status_of(&self, serial: &str) -> String {
        let answer = self.get(&format!("/cert-status-by-serial/{}", serial.trim_start_matches('0'))).await;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{answer}: {e}"));
        answer["Status"].as_str().unwrap_or_default().to_owned()
    }

    /// Lets every authorization that was read be over.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn end_authorizations(&self) {
        assert_eq!(self.get("/end-authorizations").await, "", "testca ends authorizations");
    }

    /// Its process, to be measured.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its log so far: Pebble's own lines.
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}

/// An HTTPS client that trusts only the roots in `ca_file`.
///
/// # Errors
/// When the file holds no certificates.
pub fn http_client(ca_file: &Path) -> reqwest::Result<reqwest::Client> {
    let roots = reqwest::Certificate::from_pem_bundle(crate::read(ca_file).as_bytes())?;
    reqwest::Client::builder().tls_certs_only(roots).build()
}
