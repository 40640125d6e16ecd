//! Revocation (RFC 8555, 7.6).

use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::Serialize;

use super::{
    AcmeError,
    client::Session,
    http::Reply,
    jws::{Signer, encode},
    key::AccountKey,
    patience::Again,
};
use crate::issuer::{
    issued::PrivateKeyPem,
    metrics::Action,
    revocation::{RevocationReason, Revoked},
};

#[derive(Serialize)]
struct Revocation {
    certificate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<u8>,
}

impl Session {
    /// Revokes a certificate (DER) in the name of the account.
    ///
    /// # Errors
    /// [`AcmeError`]; `unauthorized` if it is not for this account to do.
    pub(in crate::issuer) async fn revoke_by_account(&self, der: &[u8], reason: RevocationReason) -> Result<Revoked, AcmeError> {
        let url = self.revoke_url().await?;
        let revocation = Revocation::new(der, reason);
        ended(self.persist(Again::Harmless, || self.post(Action::Revocation, &url, &revocation)).await)
    }

    /// Revokes a certificate (DER) by its own key, which shows that it may.
    ///
    /// # Errors
    /// [`AcmeError`]; [`AcmeError::Crypto`] if the key cannot be used.
    pub(in crate::issuer) async fn revoke_by_key(
        &self,
        der: &[u8],
        key: &PrivateKeyPem,
        reason: RevocationReason,
    ) -> Result<Revoked, AcmeError> {
        let unusable = || AcmeError::Crypto("the certificate's key cannot be used: it is no P-256, P-384 or RSA key in PKCS#8".into());
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| unusable())?;
        let key = AccountKey::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| unusable())?;
        let url = self.revoke_url().await?;
        let revocation = Revocation::new(der, reason);
        let revoke = || self.signed(Action::Revocation, Signer::Key(&key), &url, "application/json", Some(&revocation));
        ended(self.persist(Again::Harmless, revoke).await)
    }

    async fn revoke_url(&self) -> Result<String, AcmeError> {
        let unusable = || AcmeError::Unusable {
            directory: self.directory_url().to_owned(),
            text: "it says nowhere how to revoke (revokeCert): revoke the certificate by the CA's own means".into(),
        };
        self.document().await?.revoke_cert.clone().ok_or_else(unusable)
    }
}

impl Revocation {
    fn new(der: &[u8], reason: RevocationReason) -> Self {
        // "Unspecified" is better left out than said (RFC 5280, 5.3.1).
        let reason = (reason != RevocationReason::Unspecified).then(|| reason.code());
        Self { certificate: encode(der), reason }
    }
}

fn ended(answered: Result<Reply, AcmeError>) -> Result<Revoked, AcmeError> {
    match answered {
        Ok(_) => Ok(Revoked::Now),
        Err(error) if error.is("alreadyRevoked") => Ok(Revoked::Before),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::fake::FakeCa, *};

    fn problem(status: u16, kind: &str) -> (u16, Vec<String>, Vec<u8>) {
        let body = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "no"});
        (status, vec!["Replay-Nonce: n".into()], body.to_string().into_bytes())
    }

    #[tokio::test]
    async fn the_request_is_as_the_rfc_has_it() {
        let ca = FakeCa::start(|_| (200, vec!["Replay-Nonce: n".into()], Vec::new())).await;
        let session = ca.signed_in().await;
        assert_eq!(session.revoke_by_account(&[0x30, 0x00], RevocationReason::Superseded).await.unwrap(), Revoked::Now);
        let asked = ca.asked().pop().unwrap();
        assert_eq!(asked.line, "POST /revoke-cert HTTP/1.1");
        assert_eq!(asked.payload(), json!({"certificate": "MAA", "reason": 4}));
        assert_eq!(asked.protected()["kid"], ca.url("/me"));
        session.revoke_by_account(&[0x30, 0x00], RevocationReason::Unspecified).await.unwrap();
        assert_eq!(ca.asked().pop().unwrap().payload(), json!({"certificate": "MAA"}));
    }

    #[tokio::test]
    async fn the_certificate_s_key_signs_whatever_its_kind() {
        let ca = FakeCa::start(|_| (200, vec!["Replay-Nonce: n".into()], Vec::new())).await;
        let session = ca.signed_in().await;
        for (kind, alg) in [("p256", "ES256"), ("p384", "ES384"), ("rsa2048", "RS256")] {
            let pair = crate::issuer::certificate::new_key(kind.parse().unwrap()).unwrap();
            let key = PrivateKeyPem::new(pair.serialize_pem());
            session.revoke_by_key(b"der", &key, RevocationReason::KeyCompromise).await.unwrap();
            let protected = ca.asked().pop().unwrap().protected();
            assert_eq!((protected["alg"].as_str(), protected.get("kid")), (Some(alg), None));
            assert!(protected["jwk"].is_object());
        }
        let nonsense = PrivateKeyPem::new("no key".into());
        assert!(session.revoke_by_key(b"der", &nonsense, RevocationReason::default()).await.is_err());
    }

    #[tokio::test]
    async fn what_was_revoked_before_is_no_error() {
        let ca = FakeCa::start(|_| problem(400, "alreadyRevoked")).await;
        let revoked = ca.signed_in().await.revoke_by_account(b"der", RevocationReason::default()).await;
        assert_eq!(revoked.unwrap(), Revoked::Before);
        let other = FakeCa::start(|_| problem(403, "unauthorized")).await;
        assert!(other.signed_in().await.revoke_by_account(b"der", RevocationReason::default()).await.unwrap_err().is("unauthorized"));
    }
}
