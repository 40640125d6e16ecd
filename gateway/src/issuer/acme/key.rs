//! An account's key, and what it signs with (RFC 7518; RFC 8037 for Ed25519).

use aws_lc_rs::{
    digest,
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{AcmeError, jws::encode};
use crate::config::AccountKeyType;

/// An account's key.
pub(in crate::issuer) struct AccountKey {
    pair: Pair,
    /// The public key as RFC 7638 has it: its members in alphabetical order, no white space.
    canonical: String,
}

enum Pair {
    Ecdsa { pair: EcdsaKeyPair, alg: &'static str },
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl AccountKey {
    /// A new key, PKCS#8 DER: what is to be stored before it is used. One of RSA takes a second.
    ///
    /// # Errors
    /// [`AcmeError::Crypto`] if the system gives no random bytes.
    pub(super) fn generate(kind: AccountKeyType) -> Result<Zeroizing<Vec<u8>>, AcmeError> {
        let failed = |_| AcmeError::Crypto("an account key could not be made".into());
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new());
        let rsa = |size: KeySize| {
            let der: Pkcs8V1Der<'static> = RsaKeyPair::generate(size).and_then(|pair| pair.as_der())?;
            Ok(Zeroizing::new(der.as_ref().to_vec()))
        };
        let document = match kind {
            AccountKeyType::EcdsaP256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            AccountKeyType::EcdsaP384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            AccountKeyType::Ed25519 => Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()),
            AccountKeyType::Rsa2048 => return rsa(KeySize::Rsa2048).map_err(failed),
            AccountKeyType::Rsa3072 => return rsa(KeySize::Rsa3072).map_err(failed),
            AccountKeyType::Rsa4096 => return rsa(KeySize::Rsa4096).map_err(failed),
        };
        Ok(Zeroizing::new(document.map_err(failed)?.as_ref().to_vec()))
    }

    /// The key in a PKCS#8 DER document, whatever its type.
    ///
    /// # Errors
    /// [`AcmeError::Crypto`] if it is no key that accounts have.
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, AcmeError> {
        let unusable =
            || AcmeError::Crypto("the stored account key cannot be used: it is no P-256, P-384, RSA or Ed25519 key in PKCS#8".into());
        for (algorithm, alg, crv) in
            [(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256"), (&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384")]
        {
            let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, der) else { continue };
            // An uncompressed point (SEC 1, 2.3.3): 0x04, x, y.
            let canonical = match pair.public_key().as_ref() {
                [4, point @ ..] if point.len().is_multiple_of(2) => {
                    let (x, y) = point.split_at(point.len() / 2);
                    format!(r#"{{"crv":"{crv}","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y))
                }
                _ => return Err(unusable()),
            };
            return Ok(Self { pair: Pair::Ecdsa { pair, alg }, canonical });
        }
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            let (e, n) = (pair.public_key().exponent(), pair.public_key().modulus());
            let number = |bytes: &[u8]| encode(bytes);
            let canonical = format!(
                r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
                number(e.big_endian_without_leading_zero()),
                number(n.big_endian_without_leading_zero())
            );
            return Ok(Self { pair: Pair::Rsa(pair), canonical });
        }
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| unusable())?;
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(pair.public_key().as_ref()));
        Ok(Self { pair: Pair::Ed25519(pair), canonical })
    }

    /// The value of a DNS-01 challenge: the digest of the key authorization (RFC 8555, 8.1 and 8.4).
    pub(in crate::issuer) fn dns01_value(&self, token: &str) -> String {
        let key_authorization = format!("{token}.{}", self.thumbprint());
        encode(digest::digest(&digest::SHA256, key_authorization.as_bytes()).as_ref())
    }

    /// RFC 7638, SHA-256.
    pub(in crate::issuer) fn thumbprint(&self) -> String {
        encode(digest::digest(&digest::SHA256, self.canonical.as_bytes()).as_ref())
    }

    /// The public key (RFC 7517).
    pub(super) fn jwk(&self) -> Value {
        serde_json::from_str(&self.canonical).unwrap_or_else(|_| json!({}))
    }

    /// The name of its algorithm in JWS.
    pub(super) fn alg(&self) -> &'static str {
        match &self.pair {
            Pair::Ecdsa { alg, .. } => alg,
            Pair::Rsa(_) => "RS256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// What it is, for people.
    pub(super) fn describe(&self) -> String {
        match &self.pair {
            Pair::Ecdsa { alg: "ES256", .. } => "ECDSA P-256".to_owned(),
            Pair::Ecdsa { .. } => "ECDSA P-384".to_owned(),
            Pair::Rsa(pair) => format!("RSA {}", pair.public_modulus_len() * 8),
            Pair::Ed25519(_) => "Ed25519".to_owned(),
        }
    }

    /// Signs.
    ///
    /// # Errors
    /// [`AcmeError::Crypto`] if the key does not.
    pub(super) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, AcmeError> {
        let random = SystemRandom::new();
        let signed = match &self.pair {
            Pair::Ecdsa { pair, .. } => pair.sign(&random, input).map(|signature| signature.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, input, &mut signature).map(|()| signature)
            }
            Pair::Ed25519(pair) => Ok(pair.sign(input).as_ref().to_vec()),
        };
        signed.map_err(|_| AcmeError::Crypto("the account key did not sign".into()))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    impl AccountKey {
        fn public(&self) -> Vec<u8> {
            match &self.pair {
                Pair::Ecdsa { pair, .. } => pair.public_key().as_ref().to_vec(),
                Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
                Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            }
        }

        /// Checks a signature by what stands in RFC 7518.
        pub(in crate::issuer::acme) fn verify(&self, input: &[u8], signature: &[u8]) -> bool {
            let algorithm: &'static dyn VerificationAlgorithm = match self.alg() {
                "ES256" => &ECDSA_P256_SHA256_FIXED,
                "ES384" => &ECDSA_P384_SHA384_FIXED,
                "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                _ => &ED25519,
            };
            UnparsedPublicKey::new(algorithm, self.public()).verify(input, signature).is_ok()
        }

        /// The key of RFC 7515, A.3.
        pub(in crate::issuer::acme) fn of_rfc_7515() -> Self {
            let d = decode("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI");
            let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
            let point = [vec![4], decode(x), decode(y)].concat();
            let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &d, &point).unwrap();
            Self::from_pkcs8(pair.to_pkcs8v1().unwrap().as_ref()).unwrap()
        }
    }

    fn decode(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    #[test]
    fn every_type_is_made_kept_and_signs() {
        for kind in AccountKeyType::ALL {
            // The larger ones of RSA take their time, and are the same code.
            if matches!(kind, AccountKeyType::Rsa3072 | AccountKeyType::Rsa4096) {
                continue;
            }
            assert_eq!(kind.to_string().parse(), Ok(kind));
            let der = AccountKey::generate(kind).unwrap();
            let key = AccountKey::from_pkcs8(&der).unwrap();
            let again = AccountKey::from_pkcs8(&der).unwrap();
            assert_eq!(key.thumbprint(), again.thumbprint());
            let signature = key.sign(b"message").unwrap();
            assert!(again.verify(b"message", &signature) && !again.verify(b"another", &signature), "{kind}");
            assert_eq!(key.jwk().to_string(), key.canonical, "{kind}");
        }
        assert!("dsa".parse::<AccountKeyType>().is_err());
        assert!(AccountKey::from_pkcs8(b"nothing").is_err());
    }

    #[test]
    fn a_public_rsa_key_reads_as_in_rfc_7638() {
        // What it looks like; the RFC's example has no private part.
        let key = AccountKey::from_pkcs8(&AccountKey::generate(AccountKeyType::Rsa2048).unwrap()).unwrap();
        let jwk = key.jwk();
        assert_eq!((&jwk["e"], &jwk["kty"], decode(jwk["n"].as_str().unwrap()).len()), (&json!("AQAB"), &json!("RSA"), 256));
        assert_eq!(key.describe(), "RSA 2048");
    }

    #[test]
    fn the_challenge_value_is_the_digest_of_token_and_thumbprint() {
        let key = AccountKey::of_rfc_7515();
        assert_eq!(key.thumbprint(), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
        assert_eq!(key.dns01_value("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA").len(), 43);
        assert_ne!(key.dns01_value("a"), key.dns01_value("b"));
    }
}
