//! A client assertion: a JWT signed with the key of the application's certificate (RFC 7523, 2.2), as Entra wants it: PS256, and the certificate named
//! by its SHA-256 thumbprint (`x5t#S256`).

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa::KeyPair,
    signature::{KeyPair as _, RSA_PSS_SHA256},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::Error;

/// Entra wants it short; clocks may differ by a few minutes.
const LIFETIME: Duration = Duration::from_secs(600);

/// The assertion of `client_id` for the token endpoint `audience`; `pem` holds the key and the certificate with its chain, in any order.
pub(super) fn sign(pem: &SecretString, client_id: &str, audience: &str, send_chain: bool, now: SystemTime) -> Result<SecretString, Error> {
    let (key, chain) = parse(pem.expose_secret().as_bytes())?;
    let leaf = chain.first().ok_or_else(|| refused("the PEM holds no certificate of its private key"))?;
    let mut header = json!({
        "alg": "PS256",
        "typ": "JWT",
        "x5t#S256": BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, leaf)),
    });
    if send_chain {
        header["x5c"] = chain.iter().map(|certificate| BASE64_STANDARD.encode(certificate)).collect();
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| refused("the system gives no random numbers"))?;
    let issued = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let claims = json!({
        "aud": audience,
        "iss": client_id,
        "sub": client_id,
        "jti": data_encoding::HEXLOWER.encode(&id),
        "iat": issued.as_secs(),
        "nbf": issued.as_secs(),
        "exp": (issued + LIFETIME).as_secs(),
    });
    let signed = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header.to_string()), BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| refused("the private key does not sign"))?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)).into())
}

/// The key, and the certificates with that of the key in front.
fn parse(pem: &[u8]) -> Result<(KeyPair, Vec<CertificateDer<'static>>), Error> {
    let key = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(PrivateKeyDer::Pkcs8(key)) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
        Ok(PrivateKeyDer::Pkcs1(key)) => KeyPair::from_der(key.secret_pkcs1_der()),
        Ok(_) => return Err(refused("the private key is not RSA: Entra takes no other")),
        Err(_) => return Err(refused("the PEM holds no private key that can be read (an encrypted one has to be decrypted first)")),
    };
    let key = key.map_err(|_| refused("the private key is not RSA, or broken: Entra takes RSA of 2048 bits and more"))?;
    let mut chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| refused("the PEM holds a certificate that cannot be read"))?;
    // A certificate carries the public key in the very encoding that the key pair gives.
    let public = key.public_key().as_ref();
    let of_key = chain.iter().position(|certificate| certificate.windows(public.len()).any(|window| window == public));
    let leaf = of_key.map(|at| chain.remove(at)).ok_or_else(|| refused("the PEM holds no certificate of its private key"))?;
    chain.insert(0, leaf);
    Ok((key, chain))
}

fn refused(text: &str) -> Error {
    Error::Auth(format!("client_certificate: {text}"))
}
