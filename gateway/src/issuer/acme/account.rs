//! Our account at a CA (RFC 8555, 7.3).

use std::sync::Arc;

use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    AcmeError,
    client::Session,
    jws::{Signer, bind, key_change},
    key::AccountKey,
    patience::Again,
};
use crate::{
    config::{AccountKeyType, Directory},
    issuer::metrics::Action,
    store::{AccountChange, DirectoryAccount, Store},
};

/// An account that the CA knows.
pub(in crate::issuer) struct Account {
    pub(in crate::issuer) key: AccountKey,
    pub(in crate::issuer) url: String,
}

/// What a CA says of an account.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in crate::issuer) struct AccountObject {
    /// `valid`, `deactivated` or `revoked`.
    pub(in crate::issuer) status: String,
    /// URLs such as `mailto:ops@example.org`; many CAs keep none.
    pub(in crate::issuer) contact: Vec<String>,
    /// Where its orders are listed, at CAs that do so.
    pub(super) orders: Option<String>,
}

impl Session {
    /// Signs in: with the account at hand, the one in the store, or a new one. A new key is in the store before the CA sees it; if a crash came
    /// between, the same registration is sent again, and the CA answers with the account that is there (RFC 8555, 7.3.1). A change of the key that was cut off is settled
    /// first. Gives the account's URL if it was registered.
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
            Some(stored) => self.settled(store, stored).await?,
            // Whatever another process wrote meanwhile is what we get back.
            None => store.save_directory_account(new_account(directory).await?).await?,
        };
        let key = AccountKey::from_pkcs8(&stored.key)?;
        let (account, registered) = match stored.url.clone() {
            Some(url) => (Account { key, url }, None),
            None => {
                let account = self.register(store, directory, &stored, key).await?;
                let url = account.url.clone();
                (account, Some(url))
            }
        };
        let account = Arc::new(account);
        *kept = Some(account.clone());
        *self.account.lock() = Some(account);
        drop(kept);
        if registered.is_none() && directory.contact.is_some() && directory.contact != stored.contact {
            // A certificate does not wait for an e-mail address.
            if let Err(error) = self.tell_contact(store, directory).await {
                tracing::warn!(directory = directory.url, %error, "the CA was not told the account's new e-mail address");
            }
        }
        Ok(registered)
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
                let stored = store.directory_account(&directory.url).await?.ok_or_else(gone)?;
                let key = AccountKey::from_pkcs8(&stored.key)?;
                Arc::new(self.register(store, directory, &stored, key).await?)
            }
        };
        *kept = Some(account.clone());
        let url = account.url.clone();
        *self.account.lock() = Some(account);
        Ok(url)
    }

    /// What the CA says of the account (RFC 8555, 7.1.2).
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn account_object(&self) -> Result<AccountObject, AcmeError> {
        self.read(Action::Account, &self.signed_in()?.url).await
    }

    /// Tells the CA the e-mail address of the configuration, or that there is none (RFC 8555, 7.3.2).
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn tell_contact(&self, store: &dyn Store, directory: &Directory) -> Result<(), AcmeError> {
        let url = self.signed_in()?.url.clone();
        let contact = json!({"contact": contacts(directory)});
        self.persist(Again::Harmless, || self.post(Action::Account, &url, &contact)).await?;
        store.change_directory_account(&directory.url, AccountChange::Contact(directory.contact.clone())).await?;
        Ok(())
    }

    /// Gives the account a new key (RFC 8555, 7.3.5). The new one is in the store before the CA sees it, and the old one stays there until the CA has answered: whoever starts
    /// after a crash asks the CA which one it knows.
    ///
    /// # Errors
    /// [`AcmeError`]. The account has its old key, or, if no answer came, the one that the CA names when it is asked next.
    pub(in crate::issuer) async fn roll_over(
        &self,
        store: &dyn Store,
        directory: &Directory,
        kind: AccountKeyType,
    ) -> Result<(), AcmeError> {
        let account = self.signed_in()?;
        // Nobody signs in meanwhile.
        let mut kept = self.client.account.lock().await;
        let Some(url) = self.document().await?.key_change.clone() else {
            return Err(AcmeError::Unusable { directory: directory.url.clone(), text: "this CA changes no account keys".to_owned() });
        };
        let next = store.change_directory_account(&directory.url, AccountChange::NextKey(new_key(kind).await?)).await?;
        let next = next.and_then(|stored| stored.next_key).ok_or_else(gone)?;
        let new = AccountKey::from_pkcs8(&next)?;
        let inner = key_change(&new, &account.key, &account.url, &url)?;
        let answered = match self
            .signed(Action::KeyChange, Signer::Account(&account.key, &account.url), &url, "application/json", Some(&inner))
            .await
        {
            Ok(_) => Ok(()),
            // It may have been done, and may not: the CA is asked.
            Err(error) if error.is_lost() => {
                *kept = None;
                let stored = store.directory_account(&directory.url).await?.ok_or_else(gone)?;
                let settled = self.settled(store, stored).await?;
                let changed = settled.key == next;
                *kept = Some(self.use_key(&settled.key, &account.url)?);
                return if changed { Ok(()) } else { Err(AcmeError::Transport("the CA did not answer, and has kept the old key".into())) };
            }
            Err(refused) => Err(refused),
        };
        store.change_directory_account(&directory.url, AccountChange::KeyAnswered(answered.is_ok())).await?;
        answered?;
        *kept = Some(self.use_key(&next, &account.url)?);
        Ok(())
    }

    /// Closes the account for ever (RFC 8555, 7.3.6), and forgets it. Certificates stay valid.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub(in crate::issuer) async fn deactivate(&self, store: &dyn Store, directory: &Directory) -> Result<(), AcmeError> {
        let url = self.signed_in()?.url.clone();
        let mut kept = self.client.account.lock().await;
        let end = json!({"status": "deactivated"});
        match self.persist(Again::Harmless, || self.post(Action::Account, &url, &end)).await {
            Ok(_) => {}
            // It was closed before, by somebody else or by a run that was cut off.
            Err(error) if error.is("unauthorized") || error.is("accountDoesNotExist") => {}
            Err(error) => return Err(error),
        }
        store.change_directory_account(&directory.url, AccountChange::Closed).await?;
        *kept = None;
        *self.account.lock() = None;
        Ok(())
    }

    /// The account that is signed in.
    ///
    /// # Errors
    /// [`AcmeError::Crypto`] before [`Session::sign_in`].
    pub(in crate::issuer) fn signed_in(&self) -> Result<Arc<Account>, AcmeError> {
        self.account.lock().clone().ok_or_else(|| AcmeError::Crypto("no account is signed in".into()))
    }

    /// The value that a DNS-01 challenge with `token` wants to see.
    ///
    /// # Errors
    /// [`AcmeError::Crypto`] before [`Session::sign_in`].
    pub(in crate::issuer) fn dns01_value(&self, token: &str) -> Result<String, AcmeError> {
        Ok(self.signed_in()?.key.dns01_value(token))
    }

    /// The stored account, after the CA was asked which key it knows, if it was asked to take another one and its answer was lost.
    async fn settled(&self, store: &dyn Store, stored: DirectoryAccount) -> Result<DirectoryAccount, AcmeError> {
        let Some(next) = &stored.next_key else { return Ok(stored) };
        let key = AccountKey::from_pkcs8(next)?;
        let url = self.document().await?.new_account.clone();
        // RFC 8555, 7.3.1: the account of a key, if there is one.
        let look = json!({"onlyReturnExisting": true});
        let found =
            self.persist(Again::Harmless, || self.signed(Action::Account, Signer::Key(&key), &url, "application/json", Some(&look))).await;
        let taken = match found {
            Ok(_) => true,
            Err(error) if error.is("accountDoesNotExist") => false,
            Err(error) => return Err(error),
        };
        tracing::info!(directory = stored.directory, taken, "the change of the account's key had been cut off");
        store.change_directory_account(&stored.directory, AccountChange::KeyAnswered(taken)).await?.ok_or_else(gone)
    }

    fn use_key(&self, key: &[u8], url: &str) -> Result<Arc<Account>, AcmeError> {
        let account = Arc::new(Account { key: AccountKey::from_pkcs8(key)?, url: url.to_owned() });
        *self.account.lock() = Some(account.clone());
        Ok(account)
    }

    async fn register(
        &self,
        store: &dyn Store,
        directory: &Directory,
        stored: &DirectoryAccount,
        key: AccountKey,
    ) -> Result<Account, AcmeError> {
        let document = self.document().await?;
        if document.meta.external_account_required && directory.eab.is_none() {
            let text = "the CA wants external account binding: set eab (kid and hmac_file) as the CA's console shows them".to_owned();
            return Err(AcmeError::Unusable { directory: directory.url.clone(), text });
        }
        let mut payload = json!({"termsOfServiceAgreed": true});
        if let Value::Object(members) = &mut payload {
            if directory.contact.is_some() {
                members.insert("contact".into(), json!(contacts(directory)));
            }
            if let Some(eab) = &directory.eab {
                let bound = bind(&key, &eab.kid, eab.hmac.expose_secret(), &document.new_account);
                let unusable = |text| AcmeError::Unusable { directory: directory.url.clone(), text };
                members.insert("externalAccountBinding".into(), bound.map_err(unusable)?);
            }
        }
        // Registering a key that is known gives the account that is there.
        let register = || async {
            let reply = self.signed(Action::Account, Signer::Key(&key), &document.new_account, "application/json", Some(&payload)).await?;
            reply.location.ok_or_else(|| AcmeError::Malformed("the CA gave no URL for the account".into()))
        };
        let url = self.persist(Again::Harmless, register).await?;
        let registered = DirectoryAccount { url: Some(url.clone()), contact: directory.contact.clone(), ..stored.clone() };
        store.save_directory_account(registered).await?;
        Ok(Account { key, url })
    }
}

fn gone() -> AcmeError {
    AcmeError::Crypto("the account is gone from the store".into())
}

fn contacts(directory: &Directory) -> Vec<String> {
    directory.contact.iter().map(|contact| format!("mailto:{contact}")).collect()
}

/// An account that no CA has seen.
async fn new_account(directory: &Directory) -> Result<DirectoryAccount, AcmeError> {
    let key = new_key(directory.account_key).await?;
    Ok(DirectoryAccount { directory: directory.url.clone(), key, url: None, contact: None, next_key: None })
}

/// A new key. One of RSA takes a second, which is not the runtime's.
async fn new_key(kind: AccountKeyType) -> Result<Zeroizing<Vec<u8>>, AcmeError> {
    let made = tokio::task::spawn_blocking(move || AccountKey::generate(kind)).await;
    made.map_err(|_panic| AcmeError::Crypto("an account key could not be made".into()))?
}

#[cfg(test)]
mod tests {
    use std::sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    };

    use futures_util::future::join_all;
    use parking_lot::Mutex;
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
        assert!(shown.len() > 1 && shown.iter().all(|key| *key == shown[0]), "{shown:?}");
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

    /// A CA with one account, which knows the key that it should know; what it does with a change of it is for the test to say.
    struct KeyChange {
        ca: FakeCa,
        store: Arc<dyn Store>,
        session: Session,
        _folder: tempfile::TempDir,
    }

    impl KeyChange {
        /// `answer` answers the change; `takes` is whether the CA knows the new key afterwards.
        async fn with(answer: (u16, &'static str), takes: bool) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = store(folder.path());
            let (first, base): (Arc<Mutex<Option<Value>>>, Arc<OnceLock<String>>) = Default::default();
            let here = base.clone();
            let at_home =
                move || (201, vec![format!("Location: {}/account/1", here.get().unwrap()), "Replay-Nonce: n".into()], b"{}".to_vec());
            let ca = FakeCa::start(move |asked| match asked.line.as_str() {
                "POST /account HTTP/1.1" => {
                    let key = asked.protected()["jwk"].clone();
                    let mut first = first.lock();
                    // The first key is registered; another one is known if the CA has taken it.
                    if *first.get_or_insert_with(|| key.clone()) == key || takes {
                        at_home()
                    } else {
                        let none = br#"{"type":"urn:ietf:params:acme:error:accountDoesNotExist"}"#;
                        (400, vec!["Replay-Nonce: n".into()], none.to_vec())
                    }
                }
                "POST /key-change HTTP/1.1" => (answer.0, vec!["Replay-Nonce: n".into()], answer.1.as_bytes().to_vec()),
                _ => (200, vec!["Replay-Nonce: n".into()], b"{}".to_vec()),
            })
            .await;
            base.set(ca.url("")).unwrap();
            let session = Clients::default().session(&ca.directory).await.unwrap();
            session.sign_in(&*store, &ca.directory).await.unwrap();
            Self { ca, store, session, _folder: folder }
        }

        async fn stored(&self) -> DirectoryAccount {
            self.store.directory_account(&self.ca.directory.url).await.unwrap().unwrap()
        }

        async fn roll_over(&self) -> Result<(), AcmeError> {
            self.session.roll_over(&*self.store, &self.ca.directory, AccountKeyType::EcdsaP384).await
        }
    }

    #[tokio::test]
    async fn a_new_key_takes_over_when_the_ca_has_taken_it() {
        let change = KeyChange::with((200, "{}"), true).await;
        let before = change.stored().await;
        change.roll_over().await.unwrap();
        let after = change.stored().await;
        assert!(after.key != before.key && after.next_key.is_none() && after.url == before.url);
        assert_eq!(change.session.signed_in().unwrap().key.alg(), "ES384");
        // The outer signature is of the old key, by its account; the inner one shows the new key.
        let asked = change.ca.asked().into_iter().find(|asked| asked.line.contains("key-change")).unwrap();
        assert_eq!((asked.protected()["alg"].as_str(), asked.protected()["kid"].as_str()), (Some("ES256"), before.url.as_deref()));
        // Other sessions of this process use it, too.
        change.session.get(Action::Order, &change.ca.url("/a"), "application/json").await.unwrap();
        assert_eq!(change.ca.asked().last().unwrap().protected()["alg"], "ES384");
    }

    #[tokio::test]
    async fn a_key_that_the_ca_refuses_is_forgotten() {
        let change = KeyChange::with((409, r#"{"type":"urn:ietf:params:acme:error:malformed","detail":"known already"}"#), false).await;
        let before = change.stored().await;
        assert!(change.roll_over().await.unwrap_err().to_string().contains("known already"));
        let after = change.stored().await;
        assert!(after.key == before.key && after.next_key.is_none());
        assert_eq!(change.session.signed_in().unwrap().key.alg(), "ES256");
    }

    #[tokio::test]
    async fn after_a_lost_answer_the_ca_is_asked_which_key_it_knows() {
        for takes in [true, false] {
            let change = KeyChange::with((200, "{}"), takes).await;
            let before = change.stored().await;
            // As a process that was killed before the answer came.
            let next = new_key(AccountKeyType::EcdsaP384).await.unwrap();
            change.store.change_directory_account(&change.ca.directory.url, AccountChange::NextKey(next.clone())).await.unwrap();
            let session = Clients::default().session(&change.ca.directory).await.unwrap();
            session.sign_in(&*change.store, &change.ca.directory).await.unwrap();
            let after = change.stored().await;
            assert_eq!((after.key == next, after.key == before.key, after.next_key.is_none()), (takes, !takes, true));
            assert_eq!(session.signed_in().unwrap().key.alg(), if takes { "ES384" } else { "ES256" });
        }
    }

    #[tokio::test]
    async fn a_closed_account_is_forgotten_and_a_new_contact_is_told_once() {
        let change = KeyChange::with((200, "{}"), true).await;
        let directory = Directory { contact: Some("new@example.org".into()), ..change.ca.directory.clone() };
        for _ in 0..2 {
            Clients::default().session(&directory).await.unwrap().sign_in(&*change.store, &directory).await.unwrap();
        }
        assert_eq!(change.stored().await.contact.as_deref(), Some("new@example.org"));
        assert_eq!(change.ca.lines().iter().filter(|line| *line == "POST /account/1").count(), 1);
        change.session.deactivate(&*change.store, &change.ca.directory).await.unwrap();
        assert!(change.store.directory_account(&change.ca.directory.url).await.unwrap().is_none());
        assert!(change.session.signed_in().is_err());
    }
}
