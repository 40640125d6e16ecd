//! The certificates and keys of a cluster, and authorities to make more of them: right ones and forged ones.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::write;

/// A certificate authority of a test, with P-256 keys.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, both in PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS #8.
    pub key: String,
}

/// What may be told of it: not the key.
impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes one of this common name.
    ///
    /// # Panics
    /// When that fails.
    pub fn new(name: &str) -> Self {
        let mut params = params(name, None, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = key();
        let certificate = params.self_signed(&key).unwrap_or_else(|e| panic!("cannot make the authority {name}: {e}"));
        Self { certificate: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A client's certificate: who it is, and the group that it is in.
    ///
    /// # Panics
    /// When that fails.
    pub fn client(&self, name: &str, group: Option<&str>) -> Pair {
        self.sign(params(name, group, &[]), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A server's certificate for these names and addresses.
    ///
    /// # Panics
    /// When that fails.
    pub fn server(&self, names: &[&str]) -> Pair {
        self.sign(params(names.first().copied().unwrap_or("server"), None, names), ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(&self, mut params: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Pair {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = key();
        let signed = params.signed_by(&key, &self.issuer).unwrap_or_else(|e| panic!("cannot sign a certificate: {e}"));
        Pair { certificate: signed.pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes `NAME.crt` and `NAME.key` into a folder, and gives their paths.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        write(&certificate, &self.certificate);
        write(&key, &self.key);
        (certificate, key)
    }
}

/// Who is who in one cluster, and the files of all of it.
pub struct Pki {
    folder: PathBuf,
    clients: Authority,
    front_proxy: Authority,
    admin: Pair,
    controllers: Pair,
    accounts: KeyPair,
}

/// The name in the certificate with which the API server calls aggregated ones.
pub const FRONT_PROXY: &str = "front-proxy-client";

impl Pki {
    /// Makes it all in `folder`; `service` is the address of the service `kubernetes`.
    pub(super) fn make(folder: PathBuf, service: IpAddr) -> Self {
        std::fs::create_dir(&folder).unwrap_or_else(|e| panic!("cannot make {}: {e}", folder.display()));
        let (clients, front_proxy) = (Authority::new("kubernetes"), Authority::new("front-proxy"));
        write(&folder.join("ca.crt"), clients.certificate());
        let service = service.to_string();
        let names = ["localhost", "127.0.0.1", &service, "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        clients.server(&names).write(&folder, "apiserver");
        let admin = clients.client("admin", Some("system:masters"));
        admin.write(&folder, "admin");
        let controllers = clients.client("system:kube-controller-manager", None);
        let accounts = key();
        write(&folder.join("service-accounts.key"), &accounts.serialize_pem());
        write(&folder.join("service-accounts.pub"), &accounts.public_key_pem());
        let pki = Self { folder, clients, front_proxy, admin, controllers, accounts };
        pki.write_front_proxy();
        pki
    }

    /// The folder of its files: `ca.crt`, `front-proxy-ca.crt`, and `.crt` and `.key` of `apiserver`, `admin` and `front-proxy-client`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The authority of the API server's own certificate and of all clients.
    pub fn clients(&self) -> &Authority {
        &self.clients
    }

    /// The authority of the certificate with which the API server calls aggregated ones.
    pub fn front_proxy(&self) -> &Authority {
        &self.front_proxy
    }

    /// Who may do everything.
    pub fn admin(&self) -> &Pair {
        &self.admin
    }

    /// Who runs the controllers.
    pub(super) fn controllers(&self) -> &Pair {
        &self.controllers
    }

    /// Signs what stands before the last dot of a ServiceAccount's token, as the API server does (ES256, RFC 7518, 3.4).
    pub(super) fn sign_token(&self, signed: &[u8]) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, self.accounts.serialized_der());
        let signature = key.ok().and_then(|key| key.sign(&SystemRandom::new(), signed).ok());
        signature.unwrap_or_else(|| panic!("cannot sign a token")).as_ref().to_vec()
    }

    /// Puts another authority in the place of the front proxy's; the API server reads the files when it starts.
    pub(super) fn renew_front_proxy(&mut self) {
        self.front_proxy = Authority::new("front-proxy renewed");
        self.write_front_proxy();
    }

    fn write_front_proxy(&self) {
        write(&self.folder.join("front-proxy-ca.crt"), self.front_proxy.certificate());
        self.front_proxy.client(FRONT_PROXY, None).write(&self.folder, FRONT_PROXY);
    }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap_or_else(|e| panic!("cannot make a key: {e}"))
}

/// rcgen takes what looks like an address for one.
fn params(name: &str, group: Option<&str>, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap_or_else(|e| panic!("names of a certificate: {e}"));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params
}
