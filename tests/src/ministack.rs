//! ministack: AWS on loopback. Its Route 53 has exact DELETE and batches that are all or nothing; its token service has roles with trust policies.

use std::{net::SocketAddr, path::PathBuf};

use rustls::pki_types::CertificateDer;

use crate::{
    http::{self, Connection},
    ports::Port,
    process::Process,
    python::clouds_program,
    temporary_folder,
    wait::until,
    write,
};

/// A running ministack.
pub struct Ministack {
    port: Port,
    process: Process,
    /// With HTTPS, the certificate that it shows.
    certificate: Option<CertificateDer<'static>>,
    folder: tempfile::TempDir,
}

impl Ministack {
    /// Starts one that takes any credential.
    ///
    /// # Panics
    /// When it does not start to answer.
    pub async fn start() -> Self {
        Self::started(false, false).await
    }

    /// Starts one that checks signatures and evaluates policies. The key `test` with the secret `test` may do everything.
    ///
    /// # Panics
    /// When it does not start to answer.
    pub async fn start_strict() -> Self {
        Self::started(true, false).await
    }

    /// Starts one that takes any credential and speaks HTTPS, with the certificate in [`ca_file`](Self::ca_file).
    ///
    /// # Panics
    /// When it does not start to answer.
    pub async fn start_https() -> Self {
        Self::started(false, true).await
    }

    async fn started(strict: bool, https: bool) -> Self {
        let (port, folder) = (Port::reserve(), temporary_folder("ministack"));
        let path = folder.path();
        let mut command = clouds_program("ministack");
        command.env("GATEWAY_PORT", port.address().port().to_string()).env("BIND_HOST", port.address().ip().to_string());
        command.env("AUTH", if strict { "true" } else { "false" });
        // It would take a port of its own for MQTT.
        command.env("IOT_MTLS_ENABLED", "0").env("LOG_LEVEL", "WARNING");
        command.env("HOME", path).env("TMPDIR", path).current_dir(path);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            command.env_remove(name);
        }
        let certificate = https.then(|| {
            let names = vec!["localhost".to_owned(), port.address().ip().to_string()];
            let made = rcgen::generate_simple_self_signed(names).unwrap_or_else(|e| panic!("no certificate can be made: {e}"));
            write(&path.join("cert.pem"), &made.cert.pem());
            write(&path.join("key.pem"), &made.signing_key.serialize_pem());
            command.env("USE_SSL", "1").env("MINISTACK_SSL_CERT", path.join("cert.pem")).env("MINISTACK_SSL_KEY", path.join("key.pem"));
            made.cert.der().clone()
        });
        let ministack = Self { port, process: Process::spawn("ministack", command), certificate, folder };
        until("ministack", || ministack.is_ready()).await;
        ministack
    }

    async fn is_ready(&self) -> anyhow::Result<()> {
        let mut connection = match &self.certificate {
            Some(certificate) => Connection::open_tls(self.address(), certificate).await?,
            None => Connection::open(self.address()).await?,
        };
        let answer = connection.exchange(&http::request("GET", "/_ministack/ready", &[], b"")).await?;
        let status = answer.map(|answer| answer.status);
        anyhow::ensure!(status == Some(200), "it answers {status:?}");
        Ok(())
    }

    /// Where it answers, for all its services.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The base URL of all its services.
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// The certificate that it shows with HTTPS, as PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Its process, for measurements.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
