//! A judge of issued certificates that is not acmegate: x509-parser for what they say, rustls for whether they hold.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use rcgen::{KeyPair, PublicKeyData};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::{read, testca::TestCa};

/// Asserts that `folder` holds a certificate of `ca` for exactly `names`: the four files agree with each other, the chain holds under the
/// authority's root for every name, the key is the certificate's, and only its owner may read it.
///
/// # Panics
/// When any of that is not so.
pub async fn assert_issued(folder: &Path, ca: &TestCa, names: &[&str]) {
    assert_issued_under(folder, &ca.issuing_root().await, names);
}

/// The same for any authority whose root (PEM) is known.
///
/// # Panics
/// When any of that is not so.
pub fn assert_issued_under(folder: &Path, root: &str, names: &[&str]) {
    let file = |name: &str| read(&folder.join(name));
    let (certificate, chain, fullchain) = (file("cert.pem"), file("chain.pem"), file("fullchain.pem"));
    let of = |pem: &str| certificates(pem);
    assert_eq!(of(&certificate).len(), 1, "cert.pem holds the leaf alone");
    assert!(!of(&chain).is_empty(), "chain.pem holds the intermediates");
    assert_eq!(of(&fullchain), [of(&certificate), of(&chain)].concat(), "fullchain.pem is cert.pem and chain.pem");

    let mode = fs::metadata(folder.join("privkey.pem")).map(|m| m.permissions().mode() & 0o777);
    assert_eq!(mode.ok(), Some(0o600), "the mode of privkey.pem");
    assert_holds_under(&fullchain, &file("privkey.pem"), root, names);
}

/// Asserts that a chain and a key (PEM) are a certificate of `ca` for exactly `names`: the chain holds under the authority's root for every name, and the key
/// is the certificate's.
///
/// # Panics
/// When any of that is not so.
pub async fn assert_holds(chain: &str, key: &str, ca: &TestCa, names: &[&str]) {
    assert_holds_under(chain, key, &ca.issuing_root().await, names);
}

fn assert_holds_under(chain: &str, key: &str, root: &str, names: &[&str]) {
    let mut chain = certificates(chain);
    let leaf = chain.remove(0);
    let expected: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(dns_names(&leaf), expected, "the names of the certificate");
    assert!(is_key_of(key, &leaf), "the private key is the certificate's");
    assert_chain_holds(&leaf, &chain, root, names);
}

/// The certificates of a PEM file.
///
/// # Panics
/// When it is not one.
pub fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let parsed: Result<_, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    parsed.unwrap_or_else(|e| panic!("no PEM of certificates: {e}"))
}

/// The serial number of the first certificate of a PEM file, hexadecimal, without the zero that keeps it positive.
///
/// # Panics
/// When it is not one.
pub fn serial_number(pem: &str) -> String {
    let chain = certificates(pem);
    let leaf = chain.first().unwrap_or_else(|| panic!("no certificate"));
    let (_, parsed) = X509Certificate::from_der(leaf).unwrap_or_else(|e| panic!("no certificate: {e}"));
    parsed.raw_serial().iter().skip_while(|byte| **byte == 0).map(|byte| format!("{byte:02x}")).collect()
}

/// The subject alternative names.
///
/// # Panics
/// When it is no certificate, has no such extension, or names other things than DNS names.
pub fn dns_names(certificate: &CertificateDer<'_>) -> BTreeSet<String> {
    let parsed = parse(certificate);
    let extension = parsed.subject_alternative_name().unwrap_or_else(|e| panic!("subject alternative names: {e}"));
    let names = extension.unwrap_or_else(|| panic!("the certificate has no subject alternative names"));
    let dns_name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        other => panic!("{other:?} is no DNS name"),
    };
    names.value.general_names.iter().map(dns_name).collect()
}

/// Whether the private key (PEM) belongs to the certificate.
///
/// # Panics
/// When one of them cannot be read.
pub fn is_key_of(key: &str, certificate: &CertificateDer<'_>) -> bool {
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap_or_else(|e| panic!("no private key in PEM: {e}"));
    let pair = KeyPair::try_from(&der).unwrap_or_else(|e| panic!("no usable private key: {e}"));
    pair.subject_public_key_info() == parse(certificate).public_key().raw
}

fn assert_chain_holds(leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], root: &str, names: &[&str]) {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(root) {
        roots.add(certificate).unwrap_or_else(|e| panic!("the root of the authority: {e}"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = verifier.unwrap_or_else(|e| panic!("the root of the authority: {e}"));
    for name in names {
        let host = name.replacen('*', "any", 1);
        let server = ServerName::try_from(host.as_str()).unwrap_or_else(|e| panic!("{host}: {e}"));
        let verdict = verifier.verify_server_cert(leaf, chain, &server, &[], UnixTime::now());
        assert!(verdict.is_ok(), "the chain does not hold for {host}: {verdict:?}");
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    X509Certificate::from_der(certificate).unwrap_or_else(|e| panic!("no certificate: {e}")).1
}
