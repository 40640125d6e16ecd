//! Our account at a CA (RFC 8555, 7.3).

use std::sync::Arc;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{
    AcmeError,
    client::Session,
    jws::{AccountKey, Signer, bind},
};
use crate::{
    config::Directory,
    store::{DirectoryAccount, Store},
};

/// An account that the CA knows.
pub(in crate::issuer) struct Account {
    pub(in crate::issuer) key: AccountKey,
    pub(in crate::issuer) url: String,
}

impl Session {
    /// Signs in: with the account at hand, the one in the store, or a new one. A new key is in the store before the CA sees it; if a crash came
    /// between, the same registration is sent again, and the CA answers with the account that is there (RFC 8555, 7.3.1). Gives the account's
    /// URL if the CA was asked.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn sign_in(&self, store: &dyn Store, directory: &Directory) -> Result<Option<String>, AcmeError> {
        let mut kept = self.client.account.lock().await;
        if let Some(account) = &*kept {
            *self.account.lock() = Some(account.clone());
            return Ok(None);
        }
        let stored = match store.directory_account(&directory.url).await? {
            Some(stored) => stored,
            // Whatever another process wrote meanwhile is what we get back.
            None => {
                store
                    .save_directory_account(DirectoryAccount { directory: directory.url.clone(), key: AccountKey::generate()?, url: None })
                    .await?
            }
        };
        let key = AccountKey::from_pkcs8(&stored.key)?;
        let (account, asked) = match stored.url.clone() {
            Some(url) => (Account { key, url }, None),
            None => {
                let account = self.register(store, directory, stored, key).await?;
                let url = account.url.clone();
                (account, Some(url))
            }
        };
        let account = Arc::new(account);
        *kept = Some(account.clone());
        *self.account.lock() = Some(account);
        Ok(asked)
    }

    /// Registers once more with the same key, after the CA said that it does not know the account: test CAs forget, and some CAs drop accounts
    /// that were idle. Gives the new URL.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn sign_in_again(&self, store: &dyn Store, directory: &Directory) -> Result<String, AcmeError> {
        let lost = self.account.lock().take();
        let mut kept = self.client.account.lock().await;
        // Another run may have been here first.
        let account = match &*kept {
            Some(account) if lost.is_some_and(|lost| lost.url != account.url) => account.clone(),
            _ => {
                let stored = store
                    .directory_account(&directory.url)
                    .await?
                    .ok_or_else(|| AcmeError::Crypto("the account key is gone from the store".into()))?;
                let key = AccountKey::from_pkcs8(&stored.key)?;
                Arc::new(self.register(store, directory, stored, key).await?)
            }
        };
        *kept = Some(account.clone());
        let url = account.url.clone();
        *self.account.lock() = Some(account);
        Ok(url)
    }

    async fn register(
        &self,
        store: &dyn Store,
        directory: &Directory,
        stored: DirectoryAccount,
        key: AccountKey,
    ) -> Result<Account, AcmeError> {
        let document = self.document().await?;
        if document.meta.external_account_required && directory.eab.is_none() {
            let text = "the CA wants external account binding: set eab (kid and hmac_file) as the CA's console shows them".to_owned();
            return Err(AcmeError::Unusable { directory: directory.url.clone(), text });
        }
        let mut payload = json!({"termsOfServiceAgreed": true});
        if let Value::Object(members) = &mut payload {
            if let Some(contact) = &directory.contact {
                members.insert("contact".into(), json!([format!("mailto:{contact}")]));
            }
            if let Some(eab) = &directory.eab {
                let bound = bind(&key, &eab.kid, eab.hmac.expose_secret(), &document.new_account);
                let unusable = |text| AcmeError::Unusable { directory: directory.url.clone(), text };
                members.insert("externalAccountBinding".into(), bound.map_err(unusable)?);
            }
        }
        let reply = self.signed(Signer::Key(&key), &document.new_account, "application/json", Some(&payload)).await?;
        let url = reply.location.ok_or_else(|| AcmeError::Malformed("the CA gave no URL for the account".into()))?;
        store.save_directory_account(DirectoryAccount { url: Some(url.clone()), ..stored }).await?;
        Ok(Account { key, url })
    }

    /// The value that a DNS-01 challenge with `token` wants to see.
    ///
    /// # Errors
    /// [`AcmeError::Crypto`] before [`Session::sign_in`].
    pub(in crate::issuer) fn dns01_value(&self, token: &str) -> Result<String, AcmeError> {
        let account = self.account.lock().clone().ok_or_else(|| AcmeError::Crypto("no account is signed in".into()))?;
        Ok(account.key.dns01_value(token))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::join_all;
    use prometheus_client::registry::Registry;
    use secrecy::SecretString;

    use super::{
        super::{client::Clients, fake::FakeCa},
        *,
    };
    use crate::{
        config::{Config, Eab},
        engine::Engine,
    };

    fn store(folder: &std::path::Path) -> Arc<dyn Store> {
        let config = Config { data: folder.to_owned(), ..Config::embedded().unwrap() };
        Engine::open(Arc::new(config), &mut Registry::default()).unwrap().store
    }

    fn registered() -> (u16, Vec<String>, Vec<u8>) {
        (201, vec!["Location: https://ca.test/account/1".into(), "Replay-Nonce: n".into()], b"{}".to_vec())
    }

    #[tokio::test]
    async fn the_key_is_on_disk_before_the_ca_sees_it_and_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let up = Arc::new(AtomicBool::new(false));
        let ca = FakeCa::start({
            let up = up.clone();
            move |_| if up.load(Ordering::Relaxed) { registered() } else { (500, Vec::new(), Vec::new()) }
        })
        .await;
        let session = Clients::default().session(&ca.directory).await.unwrap();
        session.sign_in(&*store, &ca.directory).await.unwrap_err();
        let kept = store.directory_account(&ca.directory.url).await.unwrap().unwrap();
        assert_eq!(kept.url, None);
        up.store(true, Ordering::Relaxed);
        // As after a crash: a process that knows nothing but the store.
        let session = Clients::default().session(&ca.directory).await.unwrap();
        let url = session.sign_in(&*store, &ca.directory).await.unwrap();
        assert_eq!(url.as_deref(), Some("https://ca.test/account/1"));
        let shown: Vec<_> =
            ca.asked().iter().filter(|asked| asked.line.starts_with("POST")).map(|asked| asked.protected()["jwk"].clone()).collect();
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[0], shown[1]);
        let saved = store.directory_account(&ca.directory.url).await.unwrap().unwrap();
        assert_eq!((saved.url, saved.key), (url, kept.key));
        // A third process asks nobody.
        let before = ca.lines().len();
        let session = Clients::default().session(&ca.directory).await.unwrap();
        assert_eq!(session.sign_in(&*store, &ca.directory).await.unwrap(), None);
        assert_eq!(ca.lines().len(), before);
    }

    #[tokio::test]
    async fn many_first_runs_make_one_account() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let ca = FakeCa::start(|_| registered()).await;
        let clients = Clients::default();
        let sign_in = || async { clients.session(&ca.directory).await.unwrap().sign_in(&*store, &ca.directory).await.unwrap() };
        let asked = join_all((0..20).map(|_| sign_in())).await;
        assert_eq!(asked.iter().flatten().count(), 1);
        assert_eq!(ca.lines().iter().filter(|line| *line == "POST /account").count(), 1);
    }

    #[tokio::test]
    async fn an_account_that_the_ca_forgot_is_registered_again_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let ca = FakeCa::start(|_| registered()).await;
        let session = Clients::default().session(&ca.directory).await.unwrap();
        session.sign_in(&*store, &ca.directory).await.unwrap();
        session.sign_in_again(&*store, &ca.directory).await.unwrap();
        let shown: Vec<_> =
            ca.asked().iter().filter(|asked| asked.line.starts_with("POST")).map(|asked| asked.protected()["jwk"].clone()).collect();
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[0], shown[1]);
    }

    #[tokio::test]
    async fn contact_and_external_account_binding_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let ca = FakeCa::start(|_| registered()).await;
        let eab = Eab { kid: "kid-1".into(), hmac: SecretString::from("c2VjcmV0".to_owned()) };
        let directory = Directory { contact: Some("ops@example.org".into()), eab: Some(eab), ..ca.directory.clone() };
        let session = Clients::default().session(&directory).await.unwrap();
        session.sign_in(&*store, &directory).await.unwrap();
        let asked = ca.asked();
        let jws: Value = serde_json::from_slice(&asked.last().unwrap().body).unwrap();
        let payload = data_encoding::BASE64URL_NOPAD.decode(jws["payload"].as_str().unwrap().as_bytes()).unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload["contact"], json!(["mailto:ops@example.org"]));
        assert!(payload["externalAccountBinding"]["signature"].is_string());
        // A key that is no key is the configuration's fault.
        let other = tempfile::tempdir().unwrap();
        let bad = Eab { kid: "kid-2".into(), hmac: SecretString::from("no base64!".to_owned()) };
        let directory = Directory { eab: Some(bad), ..directory };
        let session = Clients::default().session(&directory).await.unwrap();
        assert!(matches!(session.sign_in(&*self::store(other.path()), &directory).await, Err(AcmeError::Unusable { .. })));
    }
}
