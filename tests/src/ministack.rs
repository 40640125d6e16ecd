//! ministack: AWS on loopback. Its Route 53 has exact DELETE and batches that are all or nothing; its token service has roles with trust policies.

use std::net::SocketAddr;

use crate::{http, ports::Port, process::Process, python::clouds_program, temporary_folder, wait::until};

/// A running ministack.
pub struct Ministack {
    port: Port,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Ministack {
    /// Starts one that takes any credential.
    ///
    /// # Panics
    /// When it does not start to answer.
    pub async fn start() -> Self {
        Self::started(false).await
    }

    /// Starts one that knows its credentials and evaluates policies.
    ///
    /// # Panics
    /// When it does not start to answer.
    pub async fn start_strict() -> Self {
        Self::started(true).await
    }

    async fn started(strict: bool) -> Self {
        let (port, folder) = (Port::reserve(), temporary_folder("ministack"));
        let mut command = clouds_program("ministack");
        command.env("GATEWAY_PORT", port.address().port().to_string()).env("BIND_HOST", port.address().ip().to_string());
        command.env("AUTH", if strict { "true" } else { "false" });
        // It would take a port of its own for MQTT.
        command.env("IOT_MTLS_ENABLED", "0").env("LOG_LEVEL", "WARNING");
        command.env("HOME", folder.path()).env("TMPDIR", folder.path()).current_dir(folder.path());
        let ministack = Self { port, process: Process::spawn("ministack", command), _folder: folder };
        until("ministack", || async {
            match http::exchange(ministack.address(), &http::request("GET", "/_ministack/ready", &[], b"")).await {
                Ok(Some(answer)) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("it answers {:?}", answer.map(|answer| answer.status))),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        ministack
    }

    /// Where it answers, for all its services.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The base URL of all its services.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Its process, for measurements.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
