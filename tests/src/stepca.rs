//! step-ca: a certificate authority that people run in their own networks, and that is not related to Boulder or Pebble.
//!
//! What it does its own way:
//! - It looks for a challenge's value before it answers the submission, and only then: one that it has not found stays *pending*, with an error, until it is submitted again.
//! - Its orders share nothing: each one has new authorizations. Whoever lists an account's orders while none is pending ruins the account: step-ca cannot read the empty list again that
//!   it writes then, and makes no more orders for it.
//! - Several orders of one account at a time get in each other's way: it answers some requests with a 500 ("changed since last read"), which succeed when they are made again.
//! - It has no renewal information, no profiles, no other chains, no Retry-After, and names no CAA identities.
//! - Its directory names a URL for new keys of accounts, behind which nothing is.
//! - External account binding has its keys in the database of its administrators alone; without one of them no key is right.
//! - It writes neither CRLs nor OCSP answers unless told to: a revoked certificate is one that it does not renew and calls revoked.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use crate::{peers::peer, ports::Port, process::Process, read, temporary_folder, wait::until, write};

/// The provisioner that anybody may use; it offers dns-01 alone.
pub const OPEN: &str = "open";
/// The provisioner that wants external account binding, and has no key for it.
pub const BOUND: &str = "bound";

/// A running step-ca.
pub struct StepCa {
    port: Port,
    _process: Process,
    folder: TempDir,
}

impl StepCa {
    /// Starts it with an authority of its own making, whose certificates last an hour. It validates by asking `resolver`.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(resolver: SocketAddr) -> Self {
        let (folder, port) = (temporary_folder("stepca"), Port::reserve());
        let path = folder.path();
        make_authority(path);
        let claims = serde_json::json!({"minTLSCertDuration": "5m", "defaultTLSCertDuration": "1h", "maxTLSCertDuration": "24h"});
        let provisioner = |name: &str, bound: bool| serde_json::json!({"type": "ACME", "name": name, "requireEAB": bound, "challenges": ["dns-01"], "claims": claims});
        let config = serde_json::json!({
            "root": path.join("root.pem"),
            "crt": path.join("intermediate.pem"),
            "key": path.join("intermediate.key"),
            "address": port.address().to_string(),
            "dnsNames": ["localhost", "127.0.0.1"],
            "logger": {"format": "text"},
            "db": {"type": "bbolt", "dataSource": path.join("db")},
            "authority": {"provisioners": [provisioner(OPEN, false), provisioner(BOUND, true)]},
        });
        let file = path.join("ca.json");
        write(&file, &config.to_string());
        let mut command = Command::new(peer("stepca"));
        // The search list of this machine is not for names of challenges.
        command.args(["--acme-strict-fqdn", "--resolver", &resolver.to_string()]).arg(&file);
        command.env("STEPPATH", path);
        let process = Process::spawn("step-ca", command);
        let ca = Self { port, _process: process, folder };
        let client = crate::testca::http_client(&ca.ca_file()).unwrap_or_else(|e| panic!("an HTTPS client: {e}"));
        let url = ca.directory(OPEN);
        until("step-ca to show its directory", || async { client.get(&url).send().await?.error_for_status().map(drop) }).await;
        ca
    }

    /// The URL of a provisioner's directory: [`OPEN`] or [`BOUND`].
    pub fn directory(&self, provisioner: &str) -> String {
        format!("https://{}/acme/{provisioner}/directory", self.port.address())
    }

    /// The file of its root, which is that of its HTTPS certificate too.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// The root under which it issues, in PEM.
    ///
    /// # Panics
    /// When the file is gone.
    pub fn issuing_root(&self) -> String {
        read(&self.ca_file())
    }
}

/// Writes `root.pem`, `intermediate.pem` and `intermediate.key`; the root's key is forgotten.
fn make_authority(folder: &Path) {
    let (root, root_key) = authority("step-ca test root", 1);
    let (intermediate, key) = authority("step-ca test intermediate", 0);
    let root_certificate = root.self_signed(&root_key).unwrap_or_else(|e| panic!("a root: {e}"));
    let issuer = Issuer::new(root, root_key);
    let certificate = intermediate.signed_by(&key, &issuer).unwrap_or_else(|e| panic!("an intermediate certificate: {e}"));
    write(&folder.join("root.pem"), &root_certificate.pem());
    write(&folder.join("intermediate.pem"), &certificate.pem());
    write(&folder.join("intermediate.key"), &key.serialize_pem());
}

fn authority(name: &str, below: u8) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    (params, KeyPair::generate().unwrap_or_else(|e| panic!("a key: {e}")))
}
