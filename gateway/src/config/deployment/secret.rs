//! Secrets that a deployment takes, by where they stand.

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Largest file with a secret: a wrong path must not fill the memory.
const MAX_FILE: u64 = 1 << 16;

/// Where a secret stands. It is read each time it is needed, so that a new one counts at once; it is never printed.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// Here: it was read from the command line's own file, which may be a pipe.
    Text(SecretString),
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
}

/// A secret that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoSecret(String);

impl SecretSource {
    /// Reads it as it stands there.
    ///
    /// # Errors
    /// [`NoSecret`], which names the place and the reason.
    pub fn read(&self) -> Result<SecretString, NoSecret> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => read_file(path).map_err(|error| NoSecret(format!("{self} cannot be read: {error}"))),
            Self::Variable(name) => std::env::var(name).map(Into::into).map_err(|_| NoSecret(format!("{self} is not set, or not text"))),
        }
    }
}

impl fmt::Display for SecretSource {
    /// The place alone, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("the text that was given"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Variable(name) => write!(f, "the environment variable {name}"),
        }
    }
}

fn read_file(path: &Path) -> io::Result<SecretString> {
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    Ok(text.as_str().into())
}

/// What opens a PKCS#12 file: one line of ASCII, since programs do not agree on how other characters are encoded. Never printed.
#[derive(Clone)]
pub struct Password(SecretString);

/// The text cannot be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no password that every program takes: it has to be one line of ASCII characters, and not empty")]
pub struct BadPassword;

impl FromStr for Password {
    type Err = BadPassword;

    /// A line end after it is left out.
    fn from_str(text: &str) -> Result<Self, BadPassword> {
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        let fits = !line.is_empty() && line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if fits { Ok(Self(line.into())) } else { Err(BadPassword) }
    }
}

impl Password {
    /// The text.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_of_ascii() {
        let text = |text: &str| text.parse::<Password>().map(|password| password.expose().to_owned());
        assert_eq!(text("s3 cret\n"), Ok("s3 cret".into()));
        assert_eq!(text("s3cret\r\n"), Ok("s3cret".into()));
        for wrong in ["", "\n", "two\nlines", "päss", "tab\there"] {
            assert_eq!(text(wrong), Err(BadPassword), "{wrong}");
        }
        assert_eq!(format!("{:?}", "s3cret".parse::<Password>().unwrap()), "Password(…)");
    }

    #[test]
    fn a_secret_is_read_anew_each_time_and_never_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = SecretSource::File(path.clone());
        let error = source.read().unwrap_err().to_string();
        assert!(error.starts_with(&format!("the file {} cannot be read: No such file", path.display())), "{error}");
        for text in ["first", "second"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(source.read().unwrap().expose_secret(), text);
        }
        std::fs::write(&path, "x".repeat(70_000)).unwrap();
        assert!(source.read().unwrap_err().to_string().ends_with("it is larger than 64 KiB"));
        let error = SecretSource::Variable("NO_SUCH_VARIABLE".into()).read().unwrap_err().to_string();
        assert_eq!(error, "the environment variable NO_SUCH_VARIABLE is not set, or not text");
        let given = SecretSource::Text("s3cret".to_owned().into());
        assert!(!format!("{given} {given:?}").contains("s3cret"));
    }
}
