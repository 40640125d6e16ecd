//! The certificate's key and signing request, and what is checked before a certificate is handed on.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData,
    RsaKeySize,
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use tokio::{sync::OnceCell, task::JoinHandle};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{error::IssueError, issued::PrivateKeyPem};
use crate::config::KeyType;

/// A new key for a certificate. RSA keys take up to seconds of CPU: call this where blocking is allowed.
///
/// # Errors
/// What the generator said.
pub(super) fn new_key(kind: KeyType) -> Result<KeyPair, String> {
    let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size);
    match kind {
        KeyType::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyType::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => rsa(RsaKeySize::_2048),
        KeyType::Rsa3072 => rsa(RsaKeySize::_3072),
        KeyType::Rsa4096 => rsa(RsaKeySize::_4096),
    }
    .map_err(|error| format!("a {kind} key could not be made: {error}"))
}

/// A certificate's key: one that is there, or one that is being made while other things are done.
pub(super) struct CertificateKey {
    making: Mutex<Option<JoinHandle<Result<KeyPair, String>>>>,
    made: OnceCell<KeyPair>,
    known: Option<PrivateKeyPem>,
}

impl CertificateKey {
    /// Begins to make a new one.
    pub(super) fn new(kind: KeyType) -> Self {
        let making = tokio::task::spawn_blocking(move || new_key(kind));
        Self { making: Mutex::new(Some(making)), made: OnceCell::new(), known: None }
    }

    /// One that is there.
    pub(super) fn known(pem: PrivateKeyPem) -> Self {
        Self { making: Mutex::new(None), made: OnceCell::new(), known: Some(pem) }
    }

    /// The key, once it is made.
    ///
    /// # Errors
    /// [`IssueError::Internal`].
    pub(super) async fn pair(&self) -> Result<&KeyPair, IssueError> {
        let make = async {
            if let Some(known) = &self.known {
                return KeyPair::from_pem(known.expose()).map_err(|error| format!("the key that was kept cannot be read: {error}"));
            }
            let making = self.making.lock().take().ok_or("the making of the key was cut off")?;
            making.await.map_err(|error| format!("a key could not be made: {error}"))?
        };
        self.made.get_or_try_init(|| make).await.map_err(|text| IssueError::Internal { text })
    }

    /// The key as it is kept.
    ///
    /// # Errors
    /// [`IssueError::Internal`].
    pub(super) async fn pem(&self) -> Result<PrivateKeyPem, IssueError> {
        Ok(key_pem(self.pair().await?))
    }
}

/// The signing request (PKCS#10, DER) for `names`: names as subject alternative names, an empty subject (CAs fill in a common name where they use one).
///
/// # Errors
/// What the encoder said.
pub(super) fn signing_request(names: &[String], key: &KeyPair) -> Result<Vec<u8>, String> {
    let fail = |error: rcgen::Error| format!("the signing request could not be made: {error}");
    let mut params = CertificateParams::new(names).map_err(fail)?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key).map_err(fail)?.der().to_vec())
}

/// A chain that was checked, cut into its files.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) certificate_pem: String,
    pub(super) chain_pem: String,
    pub(super) fullchain_pem: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// What is odd but does not stop anything.
    pub(super) warnings: Vec<String>,
}

/// Checks what a CA sent: PEM certificates and nothing else, each signed by the next, all valid now, the leaf for exactly `names` and `key`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(sent: &str, names: &[String], key: &KeyPair) -> Result<Checked, String> {
    let chain = read_chain(sent)?;
    let parsed = chain.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let (Some(leaf), Some(leaf_der)) = (parsed.first(), chain.first()) else {
        return Err("it holds no certificate".into());
    };
    if leaf.tbs_certificate.subject_pki.raw != key.subject_public_key_info() {
        return Err("its public key is not ours".into());
    }
    check_names(leaf, names)?;
    let not_before = time_of(leaf.validity().not_before.timestamp());
    let not_after = time_of(leaf.validity().not_after.timestamp());
    let mut warnings = Vec::new();
    let now = SystemTime::now();
    if not_after <= now {
        return Err(format!("it expired on {}, or the clock of this machine is wrong", httpdate::fmt_http_date(not_after)));
    }
    if not_before > now {
        warnings.push(format!(
            "the certificate is valid from {} on, which this machine's clock has not reached: check the clock",
            httpdate::fmt_http_date(not_before)
        ));
    }
    match chain.get(1..) {
        None | Some([]) => warnings.push("the CA sent no intermediate certificate: clients may not be able to build a chain".into()),
        Some(issuers) => check_links(leaf_der, issuers, &parsed, now.max(not_before))?,
    }
    let mut pems =
        sent.split_inclusive("-----END CERTIFICATE-----").filter(|part| part.contains("BEGIN")).map(|part| format!("{}\n", part.trim()));
    let certificate_pem = pems.next().unwrap_or_default();
    let chain_pem: String = pems.collect();
    Ok(Checked { fullchain_pem: format!("{certificate_pem}{chain_pem}"), certificate_pem, chain_pem, not_before, not_after, warnings })
}

/// The common name of the issuer of the last certificate in a chain (PEM): what chains are told apart by.
pub(super) fn last_issuer(chain_pem: &str) -> Option<String> {
    let chain = read_chain(chain_pem).ok()?;
    let last = parse(chain.last()?).ok()?;
    last.issuer().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

/// True to its word if `key_pem` is the key of the first certificate in `chain_pem`.
///
/// # Errors
/// What does not fit.
pub(crate) fn check_pair(key_pem: &str, chain_pem: &str) -> Result<(), String> {
    let key = KeyPair::from_pem(key_pem).map_err(|error| format!("the private key cannot be read: {error}"))?;
    let chain = read_chain(chain_pem)?;
    let leaf = chain.first().ok_or("there is no certificate")?;
    if parse(leaf)?.tbs_certificate.subject_pki.raw == key.subject_public_key_info() {
        Ok(())
    } else {
        Err("the private key does not belong to the certificate".into())
    }
}

/// What identifies the first certificate of a PEM text at its CA (RFC 9773, 4.1): the key identifier of its issuer, and the octets of its serial number as they stand in DER.
/// `None` if it names no such key, or cannot be read.
pub(super) fn issuer_key_and_serial(chain_pem: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let der = leaf_der(chain_pem).ok()?;
    let leaf = parse(&der).ok()?;
    let key = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(found) => found.key_identifier.as_ref().map(|key| key.0.to_vec()),
        _ => None,
    })?;
    Some((key, leaf.tbs_certificate.raw_serial().to_vec()))
}

/// The first certificate of a PEM text.
///
/// # Errors
/// What is wrong with it.
pub(super) fn leaf_der(chain_pem: &str) -> Result<CertificateDer<'static>, String> {
    read_chain(chain_pem)?.into_iter().next().ok_or_else(|| "there is no certificate".into())
}

/// The key as it is handed on.
pub(super) fn key_pem(key: &KeyPair) -> PrivateKeyPem {
    PrivateKeyPem::new(key.serialize_pem())
}

impl PrivateKeyPem {
    /// Which kind of key it is; `None` if it is none of those that [`new_key`] makes.
    pub(crate) fn kind(&self) -> Option<KeyType> {
        let key = KeyPair::from_pem(self.expose()).ok()?;
        let algorithm = key.algorithm();
        if algorithm == &PKCS_ECDSA_P256_SHA256 {
            return Some(KeyType::EcdsaP256);
        }
        if algorithm == &PKCS_ECDSA_P384_SHA384 {
            return Some(KeyType::EcdsaP384);
        }
        // An RSA key's modulus, and some bytes around it.
        match key.public_key_raw().len() {
            256..300 => Some(KeyType::Rsa2048),
            384..430 => Some(KeyType::Rsa3072),
            512..560 => Some(KeyType::Rsa4096),
            _ => None,
        }
    }
}

/// The serial number of the first certificate in a PEM text, hexadecimal, without the zero that keeps it positive (RFC 5280, 4.1.2.2).
pub(crate) fn serial_number(chain_pem: &str) -> Option<String> {
    let chain = read_chain(chain_pem).ok()?;
    let leaf = parse(chain.first()?).ok()?;
    let serial = leaf.raw_serial();
    Some(data_encoding::HEXLOWER.encode(serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(serial)))
}

fn read_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    // A PEM file could hold a key or a text with surprises (RFC 8555, 11.4): nothing but certificates may stand in it.
    let begins = pem.matches("-----BEGIN ").count();
    let chain =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|error| format!("it is not PEM: {error}"))?;
    if chain.len() == begins { Ok(chain) } else { Err("it holds something else than certificates".into()) }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("a certificate has bytes after its end".into()),
        Err(error) => Err(format!("a certificate cannot be read: {error}")),
    }
}

fn check_names(leaf: &X509Certificate<'_>, names: &[String]) -> Result<(), String> {
    let extension = leaf.subject_alternative_name().map_err(|error| format!("its names cannot be read: {error}"))?;
    let mut found: Vec<String> = Vec::new();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => found.push(name.to_ascii_lowercase()),
            other => return Err(format!("it has a name that was not asked for: {other}")),
        }
    }
    let mut wanted = names.to_vec();
    wanted.sort();
    found.sort();
    found.dedup();
    if wanted == found { Ok(()) } else { Err(format!("it is for {}, and was asked for {}", found.join(" "), wanted.join(" "))) }
}

/// Every certificate names the next one as its issuer, and the signatures lead from the leaf to the last one, which clients know or find the root of.
fn check_links(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    parsed: &[X509Certificate<'_>],
    at: SystemTime,
) -> Result<(), String> {
    for pair in parsed.windows(2) {
        if let [below, above] = pair
            && below.issuer().as_raw() != above.subject().as_raw()
        {
            return Err(format!(
                "its chain is broken: {} was issued by {}, and {} follows",
                below.subject(),
                below.issuer(),
                above.subject()
            ));
        }
    }
    let broken = |error: webpki::Error| format!("its chain does not hold: {error}");
    let Some((top, between)) = issuers.split_last() else { return Ok(()) };
    let anchor = anchor_from_trusted_cert(top).map_err(broken)?;
    let time = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    EndEntityCert::try_from(leaf)
        .map_err(broken)?
        .verify_for_usage(ALL_VERIFICATION_ALGS, &[anchor], between, time, KeyUsage::server_auth(), None, None)
        .map_err(broken)?;
    Ok(())
}

fn time_of(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{BasicConstraints, Certificate, IsCa, Issuer};

    use super::{
        super::issued::{Issued, Timings},
        *,
    };

    /// A root and an intermediate that issue at once.
    pub(crate) struct Authority {
        intermediate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        pub(crate) fn new() -> Self {
            let ca = |name: &str| {
                let mut params = CertificateParams::new(Vec::new()).unwrap();
                params.distinguished_name.push(rcgen::DnType::CommonName, name);
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                (params, KeyPair::generate().unwrap())
            };
            let (root, root_key) = ca("root");
            let root = Issuer::new(root, root_key);
            let (params, key) = ca("intermediate");
            let intermediate = params.signed_by(&key, &root).unwrap();
            Self { intermediate, issuer: Issuer::new(params, key) }
        }

        pub(crate) fn sign(&self, names: &[&str], key: &KeyPair) -> String {
            let params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
            params.signed_by(key, &self.issuer).unwrap().pem() + &self.intermediate.pem()
        }

        pub(crate) fn issue(&self, names: &[&str]) -> Issued {
            let key = new_key(KeyType::EcdsaP256).unwrap();
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let checked = check(&self.sign(&names.iter().map(String::as_str).collect::<Vec<_>>(), &key), &names, &key).unwrap();
            Issued {
                private_key_pem: key_pem(&key),
                certificate_pem: checked.certificate_pem,
                chain_pem: checked.chain_pem,
                fullchain_pem: checked.fullchain_pem,
                names,
                not_before: checked.not_before,
                not_after: checked.not_after,
                url: String::new(),
                directory: String::new(),
                job: String::new(),
                timings: Timings::default(),
            }
        }
    }

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_key_s_kind_is_known_from_its_pem() {
        for kind in [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::Rsa2048, KeyType::Rsa3072] {
            assert_eq!(key_pem(&new_key(kind).unwrap()).kind(), Some(kind));
        }
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert_eq!(key_pem(&other).kind(), None);
    }

    #[test]
    fn a_good_chain_is_cut_into_its_files() {
        let key = new_key(KeyType::EcdsaP384).unwrap();
        let sent = Authority::new().sign(&["*.b.test", "a.test"], &key);
        let checked = check(&sent, &names(&["a.test", "*.b.test"]), &key).unwrap();
        assert_eq!(checked.certificate_pem.matches("BEGIN CERTIFICATE").count(), 1);
        assert_eq!(checked.chain_pem.matches("BEGIN CERTIFICATE").count(), 1);
        assert_eq!(checked.fullchain_pem.replace('\r', ""), sent.replace('\r', ""));
        assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
        assert!(check_pair(key_pem(&key).expose(), &checked.fullchain_pem).is_ok());
    }

    #[test]
    fn a_certificate_that_is_not_what_was_asked_for_is_refused() {
        let authority = Authority::new();
        let key = new_key(KeyType::EcdsaP256).unwrap();
        let sent = authority.sign(&["a.test"], &key);
        let asked = names(&["a.test"]);
        let refused = |sent: &str, asked: &[String], key: &KeyPair| check(sent, asked, key).unwrap_err();
        assert!(refused(&sent, &asked, &new_key(KeyType::EcdsaP256).unwrap()).contains("not ours"));
        assert!(refused(&sent, &names(&["a.test", "b.test"]), &key).contains("asked for a.test b.test"));
        assert!(refused(&authority.sign(&["a.test", "192.0.2.1"], &key), &asked, &key).contains("not asked for"));
        assert!(refused("", &asked, &key).contains("no certificate"));
        assert!(refused(&(sent.clone() + key_pem(&key).expose()), &asked, &key).contains("something else"));
        // The right leaf under another authority: same names of the issuers, other signature.
        let stranger = Authority::new().sign(&["a.test"], &key);
        let cut = |pem: &str| pem.find("-----END CERTIFICATE-----").unwrap() + 25;
        let mixed = format!("{}\n{}", &sent[..cut(&sent)], &stranger[cut(&stranger)..]);
        assert!(refused(&mixed, &asked, &key).contains("does not hold"));
        // A chain in the wrong order.
        let twice = format!("{sent}{}", &sent[..cut(&sent)]);
        assert!(refused(&twice, &asked, &key).contains("chain is broken"));
    }

    #[test]
    fn a_leaf_alone_is_taken_with_a_warning() {
        let key = new_key(KeyType::EcdsaP256).unwrap();
        let sent = Authority::new().sign(&["a.test"], &key);
        let end = sent.find("-----END CERTIFICATE-----").unwrap() + 26;
        let checked = check(&sent[..end], &names(&["a.test"]), &key).unwrap();
        assert!(checked.chain_pem.is_empty() && checked.warnings.len() == 1);
    }

    #[test]
    fn signing_requests_carry_the_names_and_no_subject() {
        use x509_parser::certification_request::X509CertificationRequest;
        let key = new_key(KeyType::Rsa2048).unwrap();
        let der = signing_request(&names(&["a.test", "*.a.test"]), &key).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
        assert_eq!(request.certification_request_info.subject.iter().count(), 0);
        assert_eq!(request.certification_request_info.subject_pki.raw, key.subject_public_key_info());
        assert_eq!(request.requested_extensions().unwrap().count(), 1);
    }
}
