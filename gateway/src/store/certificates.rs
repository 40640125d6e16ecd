//! What is kept of certificates: the material, how each stands, orders that are under way, and what the CAs' rate limits leave.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::claim::{Holder, Timestamp};

/// A certificate of the list, as it was issued.
#[derive(Clone)]
pub struct StoredCertificate {
    /// Its name in the list.
    pub name: String,
    /// The DNS names in it, in the order they were asked for.
    pub names: Vec<String>,
    /// The URL of the directory of the CA that issued it.
    pub directory: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: Zeroizing<String>,
    /// The leaf, PEM.
    pub certificate_pem: String,
    /// The intermediates, PEM, the leaf's issuer first; may be empty. Stored once for all certificates that share it.
    pub chain_pem: String,
    /// Its URL at the CA.
    pub url: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

/// How a certificate of the list stands: all that decides what is done with it next. Stored as JSON; a field that an older acmegate did not write gets its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Renewal {
    /// Its name in the list.
    pub name: String,
    /// The certificate that is stored; `None` before the first.
    pub standing: Option<Standing>,
    /// When the CA would like it to be renewed (RFC 9773).
    pub window: Option<Window>,
    /// When the CA is asked for that again.
    pub poll_at: Option<Timestamp>,
    /// When it is renewed, if nothing changes.
    pub renew_at: Option<Timestamp>,
    /// Somebody asked to have it renewed now.
    pub forced: bool,
    /// It was revoked.
    pub revoked: bool,
    /// Attempts in a row that failed, and how the last one did.
    pub failures: u32,
    /// What the last attempt failed of: a deterministic text.
    pub failure: Option<String>,
    /// No attempt before this.
    pub not_until: Option<Timestamp>,
    /// Where a person has to tell the CA that it goes on, after too many failures.
    pub unpause_url: Option<String>,
    /// When it was last tried.
    pub tried: Option<Timestamp>,
    /// The wish of then, as [`Standing::wish`]: what failed for another one is tried at once.
    pub tried_wish: Option<String>,
    /// What was last deployed, and where: a fingerprint. Another one than that of what is stored and configured means that it has to be deployed.
    pub deployed: Option<String>,
    /// Deployments in a row that failed.
    pub deploy_failures: u32,
    /// What the last one failed of.
    pub deploy_failure: Option<String>,
    /// No deployment before this.
    pub deploy_not_until: Option<Timestamp>,
    /// What was last tried to deploy, and where, as [`Self::deployed`].
    pub deploy_tried: Option<String>,
}

/// What of a stored certificate decides when it is renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its identifier for the CA's renewal information (RFC 9773, 4.1); `None` where it has none.
    pub id: Option<String>,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// The URL of the directory of the CA that issued it.
    pub directory: String,
    /// The DNS names in it, in the order they were asked for.
    pub names: Vec<String>,
    /// A fingerprint of what was asked for, so that a changed configuration is seen.
    pub wish: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// When it was stored.
    pub issued: Timestamp,
}

/// When a CA would like a certificate to be renewed (RFC 9773, 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// From.
    pub start: Timestamp,
    /// To.
    pub end: Timestamp,
    /// A page that says why.
    pub explanation: Option<String>,
}

/// An order that is under way, as far as it is on disk.
#[derive(Clone)]
pub struct OrderEntry {
    /// What it is for: one order at a time for one job at one directory.
    pub job: String,
    /// The directory's URL.
    pub directory: String,
    /// What was asked for, as a fingerprint: an entry for something else is no help.
    pub wish: String,
    /// The holder of its claims in the ledger.
    pub run: Uuid,
    /// The order's URL; `None` until the CA has answered.
    pub url: Option<String>,
    /// The key that its certificate gets, PKCS#8 PEM; `None` until it is made.
    pub key_pem: Option<Zeroizing<String>>,
    /// When it was begun.
    pub begun: Timestamp,
}

/// What is known of one limit of a CA, for one of those that it counts by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BudgetRow {
    /// The URL of the CA's directory: there is one account at each.
    pub directory: String,
    /// The limit.
    pub limit: String,
    /// What it counts by: a registered domain, a set of names, …; empty where it is the account.
    pub subject: String,
    /// When all of it is there again. After that the row is worth nothing.
    pub full_at: Timestamp,
}

/// The end of an order, in one transaction.
#[derive(Clone, Default)]
pub struct OrderEnd {
    /// The job, at whatever directory.
    pub job: String,
    /// The certificate, if there is one and it is of the list.
    pub certificate: Option<StoredCertificate>,
    /// How it stands now.
    pub renewal: Option<Renewal>,
    /// Whose claims have done their work.
    pub holder: Option<Holder>,
    /// What it taught of the CA's limits.
    pub learned: Vec<BudgetRow>,
}

/// Names as one text: they hold no blanks.
pub(super) fn join(names: &[String]) -> String {
    names.join(" ")
}

/// The names of [`join`].
pub(super) fn split(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
