//! Signed requests (RFC 7515, flattened JSON; RFC 8555, 6.2).

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{AcmeError, key::AccountKey};

/// Who signs: a new account shows its key, a known one its URL (RFC 8555, 6.2).
#[derive(Clone, Copy)]
pub(super) enum Signer<'a> {
    /// `jwk`.
    Key(&'a AccountKey),
    /// `kid`.
    Account(&'a AccountKey, &'a str),
}

/// A signed request to `url`; `None` is the empty payload of a POST-as-GET (RFC 8555, 6.3).
///
/// # Errors
/// [`AcmeError::Crypto`] if the key does not sign.
pub(super) fn sign<P: Serialize>(signer: Signer<'_>, nonce: &str, url: &str, payload: Option<&P>) -> Result<Vec<u8>, AcmeError> {
    let (key, protected) = match signer {
        Signer::Key(key) => (key, json!({"alg": key.alg(), "nonce": nonce, "url": url, "jwk": key.jwk()})),
        Signer::Account(key, kid) => (key, json!({"alg": key.alg(), "nonce": nonce, "url": url, "kid": kid})),
    };
    let payload = match payload {
        Some(payload) => {
            serde_json::to_vec(payload).map_err(|error| AcmeError::Crypto(format!("a request could not be written: {error}")))?
        }
        None => Vec::new(),
    };
    Ok(flattened(&protected, &payload, |input| key.sign(input))?.to_string().into_bytes())
}

/// The inner part of a key change (RFC 8555, 7.3.5): the new key says whose account it takes over, and from which key.
///
/// # Errors
/// [`AcmeError::Crypto`] if the key does not sign.
pub(super) fn key_change(new: &AccountKey, old: &AccountKey, account: &str, url: &str) -> Result<Value, AcmeError> {
    let protected = json!({"alg": new.alg(), "jwk": new.jwk(), "url": url});
    let payload = json!({"account": account, "oldKey": old.jwk()});
    flattened(&protected, payload.to_string().as_bytes(), |input| new.sign(input))
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
    use super::*;
    use crate::config::AccountKeyType;

    fn decode(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    fn parts(jws: &Value) -> (Value, Vec<u8>, Vec<u8>, String) {
        let text = |member: &str| jws[member].as_str().unwrap().to_owned();
        let protected = serde_json::from_slice(&decode(&text("protected"))).unwrap();
        (protected, decode(&text("payload")), decode(&text("signature")), format!("{}.{}", text("protected"), text("payload")))
    }

    #[test]
    fn es256_agrees_with_rfc_7515() {
        let key = AccountKey::of_rfc_7515();
        assert_eq!(key.jwk()["x"], "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
        // The RFC's own signature under our key, then ours.
        let input = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let theirs = decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
        assert!(key.verify(input.as_bytes(), &theirs));
        let jws =
            sign(Signer::Account(&key, "https://ca.test/account/1"), "n0nce", "https://ca.test/order", Some(&json!({"a": 1}))).unwrap();
        let (protected, payload, signature, input) = parts(&serde_json::from_slice(&jws).unwrap());
        assert_eq!(
            protected,
            json!({"alg": "ES256", "kid": "https://ca.test/account/1", "nonce": "n0nce", "url": "https://ca.test/order"})
        );
        assert_eq!(payload, br#"{"a":1}"#);
        assert!(key.verify(input.as_bytes(), &signature));
    }

    #[test]
    fn a_new_account_shows_its_key_and_a_post_as_get_has_no_payload() {
        let key = AccountKey::from_pkcs8(&AccountKey::generate(AccountKeyType::Ed25519).unwrap()).unwrap();
        let jws = sign::<()>(Signer::Key(&key), "n", "u", None).unwrap();
        let (protected, payload, ..) = parts(&serde_json::from_slice(&jws).unwrap());
        assert_eq!((&protected["jwk"], &protected["alg"]), (&key.jwk(), &json!("EdDSA")));
        assert_eq!(protected.get("kid"), None);
        assert!(payload.is_empty());
    }

    #[test]
    fn a_key_change_is_signed_by_the_new_key_and_names_the_old_one() {
        let old = AccountKey::of_rfc_7515();
        let new = AccountKey::from_pkcs8(&AccountKey::generate(AccountKeyType::EcdsaP384).unwrap()).unwrap();
        let (protected, payload, signature, input) =
            parts(&key_change(&new, &old, "https://ca.test/account/1", "https://ca.test/key-change").unwrap());
        assert_eq!(protected, json!({"alg": "ES384", "jwk": new.jwk(), "url": "https://ca.test/key-change"}));
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload, json!({"account": "https://ca.test/account/1", "oldKey": old.jwk()}));
        assert!(new.verify(input.as_bytes(), &signature));
    }

    #[test]
    fn the_external_account_binding_is_hs256_over_our_key() {
        let key = AccountKey::of_rfc_7515();
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
