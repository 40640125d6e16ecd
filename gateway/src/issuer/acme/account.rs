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
