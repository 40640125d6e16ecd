//! Signed requests (RFC 7515, flattened JSON; RFC 8555, 6.2) and the account's key.

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::AcmeError;

/// An account's key: ECDSA on P-256, which every CA takes.
pub(in crate::issuer) struct AccountKey {
    pair: EcdsaKeyPair,
    x: String,
    y: String,
}

/// Who signs: a new account shows its key, a known one its URL (RFC 8555, 6.2).
#[derive(Clone, Copy)]
pub(super) enum Signer<'a> {
    /// `jwk`.
    Key(&'a AccountKey),
    /// `kid`.
    Account(&'a AccountKey, &'a str),
}

impl AccountKey {
    /// A new key, PKCS#8 DER: what is to be stored before it is used.
    ///
    /// # Errors
    /// [`AcmeError::Crypto`] if the system gives no random bytes.
    pub(super) fn generate() -> Result<Zeroizing<Vec<u8>>, AcmeError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| AcmeError::Crypto("an account key could not be made".into()))?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// The key in a PKCS#8 DER document.
    ///
    /// # Errors
    /// [`AcmeError::Crypto`] if it is no key on P-256.
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, AcmeError> {
        let unusable = || AcmeError::Crypto("the stored account key cannot be used: it is no P-256 key in PKCS#8".into());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| unusable())?;
        // An uncompressed point (SEC 1, 2.3.3): 0x04, x, y.
        let (x, y) = match pair.public_key().as_ref() {
            [4, point @ ..] if point.len() == 64 => (encode(&point[..32]), encode(&point[32..])),
            _ => return Err(unusable()),
        };
        Ok(Self { pair, x, y })
    }

    /// The value of a DNS-01 challenge: the digest of the key authorization (RFC 8555, 8.1 and 8.4).
    pub(in crate::issuer) fn dns01_value(&self, token: &str) -> String {
        let key_authorization = format!("{token}.{}", self.thumbprint());
        encode(digest::digest(&digest::SHA256, key_authorization.as_bytes()).as_ref())
    }

    /// RFC 7638: members in alphabetical order, no white space.
    fn thumbprint(&self) -> String {
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, self.x, self.y);
        encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
    }

    fn jwk(&self) -> Value {
        json!({"crv": "P-256", "kty": "EC", "x": self.x, "y": self.y})
    }
}

/// A signed request to `url`; `None` is the empty payload of a POST-as-GET (RFC 8555, 6.3).
///
/// # Errors
/// [`AcmeError::Crypto`] if the key does not sign.
pub(super) fn sign<P: Serialize>(signer: Signer<'_>, nonce: &str, url: &str, payload: Option<&P>) -> Result<Vec<u8>, AcmeError> {
    let (key, protected) = match signer {
        Signer::Key(key) => (key, json!({"alg": "ES256", "nonce": nonce, "url": url, "jwk": key.jwk()})),
        Signer::Account(key, kid) => (key, json!({"alg": "ES256", "nonce": nonce, "url": url, "kid": kid})),
    };
    let payload = match payload {
        Some(payload) => {
            serde_json::to_vec(payload).map_err(|error| AcmeError::Crypto(format!("a request could not be written: {error}")))?
        }
        None => Vec::new(),
    };
    let signature = |input: &[u8]| {
        let signature = key.pair.sign(&SystemRandom::new(), input);
        signature.map(|signature| signature.as_ref().to_vec()).map_err(|_| AcmeError::Crypto("the account key did not sign".into()))
    };
    Ok(flattened(&protected, &payload, signature)?.to_string().into_bytes())
}

/// The external account binding (RFC 8555, 7.3.4): our public key under the MAC key that the CA handed out.
///
/// # Errors
/// A text if `mac_key` is no base64url.
pub(super) fn bind(key: &AccountKey, kid: &str, mac_key: &str, url: &str) -> Result<Value, String> {
    // Some CAs show the key with padding or in the other alphabet.
    let plain: Zeroizing<String> = Zeroizing::new(mac_key.trim().trim_end_matches('=').replace('+', "-").replace('/', "_"));
    let mac_key = Zeroizing::new(URL_SAFE_NO_PAD.decode(plain.as_bytes()).map_err(|_| "the EAB HMAC key is not base64url".to_owned())?);
    let mac_key = hmac::Key::new(hmac::HMAC_SHA256, &mac_key);
    let protected = json!({"alg": "HS256", "kid": kid, "url": url});
    flattened(&protected, key.jwk().to_string().as_bytes(), |input| Ok(hmac::sign(&mac_key, input).as_ref().to_vec()))
}

fn flattened<E>(protected: &Value, payload: &[u8], signature: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Value, E> {
    let protected = encode(protected.to_string().as_bytes());
    let payload = encode(payload);
    let signature = signature(format!("{protected}.{payload}").as_bytes())?;
    Ok(json!({"protected": protected, "payload": payload, "signature": encode(&signature)}))
}

/// base64url without padding, as everything in ACME.
pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    fn decode(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    fn parts(jws: &Value) -> (Value, Vec<u8>, Vec<u8>, String) {
        let text = |member: &str| jws[member].as_str().unwrap().to_owned();
        let protected = serde_json::from_slice(&decode(&text("protected"))).unwrap();
        (protected, decode(&text("payload")), decode(&text("signature")), format!("{}.{}", text("protected"), text("payload")))
    }

    /// The key of RFC 7515, A.3.
    fn rfc_key() -> AccountKey {
        let d = decode("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI");
        let point = [vec![4], decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"), decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0")]
            .concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &d, &point).unwrap();
        AccountKey::from_pkcs8(pair.to_pkcs8v1().unwrap().as_ref()).unwrap()
    }

    #[test]
    fn es256_agrees_with_rfc_7515() {
        let key = rfc_key();
        assert_eq!(key.jwk()["x"], "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
        // The RFC's own signature under our key, then ours.
        let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key().as_ref());
        let input = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let theirs = decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
        verifier.verify(input.as_bytes(), &theirs).unwrap();
        let jws =
            sign(Signer::Account(&key, "https://ca.test/account/1"), "n0nce", "https://ca.test/order", Some(&json!({"a": 1}))).unwrap();
        let (protected, payload, signature, input) = parts(&serde_json::from_slice(&jws).unwrap());
        assert_eq!(
            protected,
            json!({"alg": "ES256", "kid": "https://ca.test/account/1", "nonce": "n0nce", "url": "https://ca.test/order"})
        );
        assert_eq!(payload, br#"{"a":1}"#);
        verifier.verify(input.as_bytes(), &signature).unwrap();
    }

    #[test]
    fn a_new_account_shows_its_key_and_a_post_as_get_has_no_payload() {
        let key = AccountKey::from_pkcs8(&AccountKey::generate().unwrap()).unwrap();
        let jws = sign::<()>(Signer::Key(&key), "n", "u", None).unwrap();
        let (protected, payload, ..) = parts(&serde_json::from_slice(&jws).unwrap());
        assert_eq!(protected["jwk"], key.jwk());
        assert_eq!(protected.get("kid"), None);
        assert!(payload.is_empty());
    }

    #[test]
    fn the_challenge_value_is_the_digest_of_token_and_thumbprint() {
        let key = rfc_key();
        assert_eq!(key.thumbprint(), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
        assert_eq!(key.dns01_value("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA").len(), 43);
        assert_ne!(key.dns01_value("a"), key.dns01_value("b"));
    }

    #[test]
    fn the_external_account_binding_is_hs256_over_our_key() {
        let key = rfc_key();
        let mac = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let bound = bind(&key, "kid-1", mac, "https://ca.test/new-account").unwrap();
        let (protected, payload, signature, input) = parts(&bound);
        assert_eq!(protected, json!({"alg": "HS256", "kid": "kid-1", "url": "https://ca.test/new-account"}));
        assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap(), key.jwk());
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &decode(mac)), input.as_bytes(), &signature).unwrap();
        // Padding and the other alphabet are the same key.
        let padded = mac.replace('-', "+").replace('_', "/") + "==";
        assert_eq!(bind(&key, "kid-1", &padded, "https://ca.test/new-account").unwrap(), bound);
        assert!(bind(&key, "kid-1", "not base64!", "u").is_err());
    }

    #[test]
    fn hs256_agrees_with_rfc_7515() {
        let key = decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
        let input = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), input.as_bytes());
        assert_eq!(encode(signature.as_ref()), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    }
}
