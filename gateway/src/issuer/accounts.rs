//! The accounts at CAs, for those who look after them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Issuer, acme::Session, error::IssueError, request::DirectoryForm};
use crate::{
    config::{AccountKeyType, Directory},
    store::DirectoryAccount,
};

/// What is to be done with the account at one directory. Travels over the admin socket as JSON, as [`super::IssueRequest`] does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccountRequest {
    /// What to do.
    pub action: AccountAction,
    /// The CA.
    #[serde(with = "DirectoryForm")]
    pub directory: Directory,
}

/// What can be done with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum AccountAction {
    /// Ask the CA about it.
    Show,
    /// Register one, if there is none.
    Register,
    /// Tell the CA the e-mail address of the configuration, or that there is none (RFC 8555, 7.3.2).
    Contact,
    /// Give it a new key (RFC 8555, 7.3.5).
    Rollover {
        /// The kind of the new key.
        key: AccountKeyType,
    },
    /// Close it for ever (RFC 8555, 7.3.6).
    Deactivate,
}

/// An account, as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountReport {
    /// The directory's URL.
    pub directory: String,
    /// Its URL at the CA, which CAA records can name (`accounturi`, RFC 8657); absent before it is registered.
    pub url: Option<String>,
    /// The kind of its key.
    pub key: String,
    /// The SHA-256 thumbprint of its key (RFC 7638).
    pub thumbprint: String,
    /// The e-mail address that the CA was told.
    pub contact: Option<String>,
    /// What the CA says of it: `valid`, `deactivated` or `revoked`; absent where the CA was not asked.
    pub status: Option<String>,
    /// The contacts that the CA keeps; many keep none.
    pub contacts_at_ca: Vec<String>,
    /// A change of its key was cut off: the CA is asked at its next use which key it knows.
    pub key_change_pending: bool,
}

impl Issuer {
    /// The accounts in the store. No CA is asked.
    ///
    /// # Errors
    /// [`IssueError::Store`], or [`IssueError::Internal`] if a key cannot be read.
    pub async fn accounts(&self) -> Result<Vec<AccountReport>, IssueError> {
        self.engine.store.directory_accounts().await?.iter().map(known).collect()
    }

    /// Does something with an account, and gives it as it is then; `None` if it is closed.
    ///
    /// # Errors
    /// [`IssueError`]; [`IssueError::NoAccount`] if there is none and none was to be registered.
    pub async fn account(&self, request: &AccountRequest) -> Result<Option<AccountReport>, IssueError> {
        let AccountRequest { action, directory } = request;
        let store = &*self.engine.store;
        let registered = store.directory_account(&directory.url).await?.is_some_and(|account| account.url.is_some());
        if !registered && *action != AccountAction::Register {
            return Err(IssueError::NoAccount { directory: directory.url.clone() });
        }
        let failed = |action: &'static str| move |error| IssueError::from_acme(action, error);
        let session = self.clients.session(directory).await.map_err(failed("connect"))?;
        session.sign_in(store, directory).await.map_err(failed("the account's registration"))?;
        match action {
            AccountAction::Show | AccountAction::Register => {}
            AccountAction::Contact => session.tell_contact(store, directory).await.map_err(failed("the account's contact"))?,
            AccountAction::Rollover { key } => {
                session.roll_over(store, directory, *key).await.map_err(failed("the account's new key"))?;
                tracing::info!(directory = directory.url, key = key.as_str(), "the account has a new key");
            }
            AccountAction::Deactivate => {
                session.deactivate(store, directory).await.map_err(failed("the account's end"))?;
                tracing::warn!(directory = directory.url, "the account is closed");
                return Ok(None);
            }
        }
        self.asked(&session, directory).await.map(Some)
    }

    async fn asked(&self, session: &Session, directory: &Directory) -> Result<AccountReport, IssueError> {
        let stored = self.engine.store.directory_account(&directory.url).await?;
        let stored = stored.ok_or_else(|| IssueError::NoAccount { directory: directory.url.clone() })?;
        let said = session.account_object().await.map_err(|error| IssueError::from_acme("a look at the account", error))?;
        Ok(AccountReport { status: Some(said.status), contacts_at_ca: said.contact, ..known(&stored)? })
    }
}

/// What is known without the CA.
fn known(account: &DirectoryAccount) -> Result<AccountReport, IssueError> {
    let (key, thumbprint) = super::acme::describe_key(&account.key).map_err(|error| IssueError::from_acme("the account", error))?;
    Ok(AccountReport {
        directory: account.directory.clone(),
        url: account.url.clone(),
        key,
        thumbprint,
        contact: account.contact.clone(),
        status: None,
        contacts_at_ca: Vec::new(),
        key_change_pending: account.next_key.is_some(),
    })
}

impl fmt::Display for AccountReport {
    /// Some lines for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.directory)?;
        writeln!(f, "  account:    {}", self.url.as_deref().unwrap_or("not registered yet"))?;
        if let Some(status) = &self.status {
            writeln!(f, "  status:     {status}")?;
        }
        writeln!(f, "  key:        {} ({})", self.key, self.thumbprint)?;
        write!(f, "  contact:    {}", self.contact.as_deref().unwrap_or("none"))?;
        if !self.contacts_at_ca.is_empty() {
            write!(f, "\n  at the CA:  {}", self.contacts_at_ca.join(", "))?;
        }
        if self.key_change_pending {
            f.write_str("\n  a change of its key was cut off; the next use asks the CA which key it knows")?;
        }
        Ok(())
    }
}
