//! The account file, as lego, cert-manager and certbot's plugins keep it: a JSON map from a domain to the account that serves its challenges.
//!
//! ```json
//! { "www.example.com": { "username": "…", "password": "…", "fulldomain": "d420….auth.acme-dns.io", "subdomain": "d420…", "server_url": "…" } }
//! ```
//! What else stands in an account (`allowfrom`, keys of other programs) stays there.

use std::{fs, io::Write, path::Path};

use authdns::Name;
use secrecy::SecretString;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Largest file: some 60,000 accounts.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// The accounts of one server.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// In order of their domains.
    pub(super) all: Vec<Account>,
    /// What is wrong with others, for a person.
    pub(super) broken: Vec<String>,
}

/// One account.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// What it is for, as the file says.
    pub(super) domain: String,
    /// Where its values stand.
    pub(super) fulldomain: Name,
    pub(super) subdomain: String,
    pub(super) username: String,
    pub(super) password: SecretString,
}

impl Accounts {
    /// Reads the text of a file. Accounts of another server than `server` (a URL) are left out; those that do not say are of this one.
    ///
    /// # Errors
    /// A text that says what is wrong with the whole, without a part of it.
    pub(super) fn parse(text: &str, server: &str) -> Result<Self, String> {
        let mut accounts = Self::default();
        for (domain, stored) in &map(text)? {
            let of_another = field(stored, "server_url").is_some_and(|url| !url.is_empty() && !is_same(url, server));
            if of_another {
                continue;
            }
            match Account::read(domain, stored) {
                Ok(account) => accounts.all.push(account),
                Err(reason) => accounts.broken.push(format!("the account of {domain} {reason}")),
            }
        }
        accounts.all.sort_by(|a, b| a.domain.cmp(&b.domain));
        Ok(accounts)
    }

    /// The account whose values stand at `owner`.
    pub(super) fn at(&self, owner: &Name) -> Option<&Account> {
        self.all.iter().find(|account| account.fulldomain == *owner)
    }

    /// The account for a domain.
    pub(super) fn of(&self, domain: &str) -> Option<&Account> {
        self.all.iter().find(|account| account.domain.trim_end_matches('.').eq_ignore_ascii_case(domain))
    }
}

impl Account {
    /// Reads an account as the file or a registration has it.
    ///
    /// # Errors
    /// What is wrong with it, after the words "the account of DOMAIN".
    pub(super) fn read(domain: &str, stored: &Value) -> Result<Self, String> {
        let text = |key: &str| field(stored, key).filter(|text| is_word(text)).ok_or_else(|| format!("has no good `{key}`"));
        let fulldomain = text("fulldomain")?.parse().map_err(|_| "has no name as its `fulldomain`".to_owned())?;
        Ok(Self {
            domain: domain.to_owned(),
            fulldomain,
            subdomain: text("subdomain")?.to_owned(),
            username: text("username")?.to_owned(),
            password: text("password")?.into(),
        })
    }
}

/// The text of the file; `None` if there is no file.
///
/// # Errors
/// A text that says what to do.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<String>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("the file {} cannot be read: {error}", path.display());
    let length = match fs::metadata(path) {
        Ok(data) => data.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
    };
    if length > MOST_BYTES {
        return Err(wrong(&format!("it is larger than {MOST_BYTES} bytes")));
    }
    fs::read_to_string(path).map(|text| Some(Zeroizing::new(text))).map_err(|error| wrong(&error))
}

/// A place for a file that is to take the place of `path`: to be had before an account is registered that could not be kept.
///
/// # Errors
/// A text that says what to do.
pub(super) fn prepare(path: &Path) -> Result<tempfile::NamedTempFile, String> {
    // Only its owner can read what tempfile makes.
    tempfile::NamedTempFile::new_in(folder(path))
        .map_err(|error| format!("no account can be kept beside {}: {error}: let acmegate write to that folder", path.display()))
}

/// Adds an account to the file, as a whole or not at all; a domain that has one meanwhile keeps it. Returns the file's new text.
///
/// # Errors
/// A text that says what to do.
pub(super) fn add(path: &Path, mut prepared: tempfile::NamedTempFile, domain: &str, account: Value) -> Result<Zeroizing<String>, String> {
    let mut accounts = match read(path)? {
        Some(text) => map(&text).map_err(|reason| format!("the file {} {reason}", path.display()))?,
        None => Map::new(),
    };
    accounts.entry(domain).or_insert(account);
    let text = Zeroizing::new(serde_json::to_string_pretty(&accounts).map_err(|error| error.to_string())?);
    let written = prepared.write_all(text.as_bytes()).and_then(|()| prepared.as_file().sync_all());
    let kept = written.and_then(|()| prepared.persist(path).map_err(|error| error.error));
    // The new name is on the disk when the folder is.
    kept.and_then(|_| fs::File::open(folder(path))?.sync_all())
        .map_err(|error| format!("the account could not be kept in {}: {error}", path.display()))?;
    Ok(text)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn map(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    // The parser's own words may show a part of the text.
    serde_json::from_str(text).map_err(|error| {
        format!(
            "is no JSON map from domains to accounts (line {}, column {}): compare it with what lego writes",
            error.line(),
            error.column()
        )
    })
}

/// A text of an account, whatever the case of its key: early clients wrote `SubDomain`.
fn field<'v>(stored: &'v Value, key: &str) -> Option<&'v str> {
    stored.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?.1.as_str()
}

/// True for what can stand in a header, a name and a log.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;

    fn account(name: &str) -> Value {
        json!({"fulldomain": format!("{name}.auth.test"), "subdomain": name, "username": format!("user-{name}"), "password": "hunter2"})
    }

    #[test]
    fn files_of_every_client_are_read() {
        let mut of_another = account("b");
        of_another["server_url"] = "https://other.test".into();
        let mut of_lego = account("c");
        of_lego["server_url"] = "https://auth.test/".into();
        let file = json!({
            "cert-manager.test": {"username": "u", "password": "p", "fulldomain": "a.auth.test", "subdomain": "a", "allowfrom": []},
            "other.test": of_another,
            "lego.test": of_lego,
            "early.test": {"FullDomain": "d.auth.test", "SubDomain": "d", "Username": "u", "Password": "hunter2"},
            "half.test": {"fulldomain": "e.auth.test", "subdomain": "e", "username": "u"},
            "header.test": {"fulldomain": "f.auth.test", "subdomain": "f", "username": "u", "password": "p\r\nX-Injected: header"},
            "text.test": "none",
        });
        let accounts = Accounts::parse(&file.to_string(), "https://auth.test").expect("a map");
        let domains: Vec<&str> = accounts.all.iter().map(|account| account.domain.as_str()).collect();
        assert_eq!(domains, ["cert-manager.test", "early.test", "lego.test"]);
        assert_eq!(
            accounts.broken,
            [
                "the account of half.test has no good `password`",
                "the account of header.test has no good `password`",
                "the account of text.test has no good `fulldomain`"
            ]
        );
        let found = accounts.at(&"d.auth.test".parse().expect("a name")).expect("an account");
        assert_eq!((found.subdomain.as_str(), found.password.expose_secret()), ("d", "hunter2"));
        assert_eq!(accounts.of("LEGO.test").map(|account| account.subdomain.as_str()), Some("c"));
        assert!(!format!("{accounts:?}").contains("hunter2"));
        for bad in ["[]", "{\"hunter2\": ", "hunter2"] {
            let error = Accounts::parse(bad, "").expect_err(bad);
            assert!(error.contains("no JSON map") && !error.contains("hunter2"), "{error}");
        }
        assert!(Accounts::parse(" \n", "").expect("nothing yet").all.is_empty());
    }

    #[test]
    fn accounts_are_added_whole_for_their_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("accounts.json");
        assert!(read(&path).expect("no file is no error").is_none());
        let add = |domain: &str, account: Value| add(&path, prepare(&path).expect("a place"), domain, account);
        add("a.test", account("a")).expect("kept");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut noted = account("b");
        noted["note"] = "somebody's".into();
        add("b.test", noted.clone()).expect("kept");
        add("b.test", account("c")).expect("the first one stays");
        let stored: Value = serde_json::from_str(&fs::read_to_string(&path).expect("text")).expect("JSON");
        assert_eq!(stored, json!({"a.test": account("a"), "b.test": noted}));
        fs::write(&path, "broken hunter2").expect("written");
        let error = add("d.test", account("d")).expect_err("not to be overwritten");
        assert!(error.contains("no JSON map") && !error.contains("hunter2"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left beside it");
        let error = prepare(&folder.path().join("none/accounts.json")).expect_err("no folder");
        assert!(error.contains("let acmegate write"), "{error}");
    }
}
