//! Secrets by reference: a file, an environment variable, a key of a Kubernetes Secret, or a key of the Secret that an issuer names. They are read when they are
//! needed, so that a rotated one is used at once, and they are never printed.

use std::{fs::File, io::Read, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Largest secret: keys and tokens are small, and a wrong path must not fill the memory.
pub const MOST_BYTES: u64 = 64 * 1024;

/// Where a secret is. Exactly one form is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[schemars(inline, example = serde_json::json!({ "file": "./secret" }))]
pub enum SecretRef {
    /// A file that holds the secret and nothing else; a line end after it is left out. Read again whenever the secret is needed.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A key of a Kubernetes Secret.
    Kubernetes(KubernetesSecret),
    /// A key of the Secret that an issuer of cert-manager names in its `config`, in the issuer's own namespace. A backend with such a secret works for those issuers alone.
    Issuer(String),
}

/// A key of a Kubernetes Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct KubernetesSecret {
    /// The Secret's name.
    pub name: String,
    /// The key in its data.
    pub key: String,
    /// Its namespace; by default the one that acmegate runs in.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// Reads secrets.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The secret's text as it is now, whole (a PEM has lines).
    ///
    /// # Errors
    /// [`Error::Auth`] with a text that says where it was looked for and what to do, never with a part of it.
    async fn read(&self, secret: &SecretRef) -> Result<SecretString, Error>;
}

/// The secret as one line that can stand in an HTTP header: without blanks around it, not empty, printable ASCII alone.
///
/// # Errors
/// [`Error::Auth`] as [`Secrets::read`], and where the secret is not such a line.
pub async fn token(secrets: &dyn Secrets, secret: &SecretRef) -> Result<SecretString, Error> {
    use secrecy::ExposeSecret;

    let text = secrets.read(secret).await?;
    let line = text.expose_secret().trim();
    if line.is_empty() {
        return Err(Error::Auth(format!("{secret} is empty: put the token there")));
    }
    // A line end would go on as another header, or show up in the client's error.
    if !line.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Auth(format!(
            "{secret} holds blanks, line ends or other characters that no token has: put the token alone there"
        )));
    }
    Ok(line.into())
}

/// Secrets of this machine: files and environment variables.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalSecrets;

#[async_trait]
impl Secrets for LocalSecrets {
    async fn read(&self, secret: &SecretRef) -> Result<SecretString, Error> {
        match secret {
            SecretRef::File(path) => {
                let mut text = String::new();
                let file = File::open(path).map_err(|error| Error::Auth(format!("{secret} cannot be read: {error}")))?;
                let read = file.take(MOST_BYTES + 1).read_to_string(&mut text);
                let read = read.map_err(|error| Error::Auth(format!("{secret} cannot be read: {error}")))?;
                if read as u64 > MOST_BYTES {
                    return Err(Error::Auth(format!("{secret} is larger than {MOST_BYTES} bytes: it is no secret")));
                }
                Ok(text.into())
            }
            SecretRef::Env(name) => {
                std::env::var(name).map(SecretString::from).map_err(|_| Error::Auth(format!("{secret} is not set, or not UTF-8")))
            }
            SecretRef::Kubernetes(_) => Err(Error::Auth(format!("{secret} cannot be read: this process does not run in a cluster"))),
            SecretRef::Issuer(_) => Err(Error::Auth(format!("{secret} cannot be read: no issuer has named a Secret here"))),
        }
    }
}

impl std::fmt::Display for SecretRef {
    /// Where it is, never what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Kubernetes(secret) => match &secret.namespace {
                Some(namespace) => write!(f, "the key {} of the Secret {namespace}/{}", secret.key, secret.name),
                None => write!(f, "the key {} of the Secret {}", secret.key, secret.name),
            },
            Self::Issuer(key) => write!(f, "the key {key} of the issuer's Secret"),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[tokio::test]
    async fn a_file_is_read_anew_each_time_and_never_printed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let secret = SecretRef::File(path.clone());
        std::fs::write(&path, "one\n").expect("written");
        assert_eq!(token(&LocalSecrets, &secret).await.expect("a token").expose_secret(), "one");
        std::fs::write(&path, "two\r\n").expect("written");
        assert_eq!(token(&LocalSecrets, &secret).await.expect("a token").expose_secret(), "two");
        std::fs::write(&path, "sec\nret").expect("written");
        let error = token(&LocalSecrets, &secret).await.expect_err("two lines").to_string();
        assert!(error.contains("line ends") && !error.contains("ret\""), "{error}");
        std::fs::write(&path, "\n").expect("written");
        assert!(token(&LocalSecrets, &secret).await.expect_err("empty").to_string().contains("is empty"));
    }

    #[test]
    fn the_forms_are_written_as_maps_of_one_key() {
        let parsed: SecretRef = serde_json::from_str(r#"{"file": "./token"}"#).expect("a file");
        assert_eq!(parsed, SecretRef::File("./token".into()));
        let parsed: SecretRef = serde_json::from_str(r#"{"kubernetes": {"name": "cf", "key": "token"}}"#).expect("a key");
        assert_eq!(parsed.to_string(), "the key token of the Secret cf");
        let parsed: SecretRef = serde_json::from_str(r#"{"issuer": "token"}"#).expect("a key");
        assert_eq!(parsed, SecretRef::Issuer("token".to_owned()));
        assert!(serde_json::from_str::<SecretRef>(r#"{"file": "a", "env": "B"}"#).is_err(), "one form only");
    }
}
