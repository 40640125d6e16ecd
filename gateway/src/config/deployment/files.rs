//! Files: where they lie, and whose they are.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{Owner, SecretSource};

/// A folder, and how a certificate lies in it.
#[derive(Debug, Clone)]
pub struct Files {
    /// The folder.
    pub folder: PathBuf,
    /// The certificate's own name there, where the layout has one: a plain file name.
    pub name: String,
    /// What stands in the folder.
    pub layout: Layout,
    /// Whose the files are; by default who acmegate runs as. Giving files away takes root (`CAP_CHOWN`).
    pub owner: Option<Owner>,
    /// The mode of files with a key.
    pub key_mode: KeyMode,
}

/// What stands in a folder.
#[derive(Debug, Clone)]
pub enum Layout {
    /// `privkey.pem`, `cert.pem`, `chain.pem` and `fullchain.pem`.
    Flat,
    /// As certbot has it: `live/NAME/privkey.pem` and so on, links to `archive/NAME/privkey7.pem` and so on.
    Live {
        /// How many older versions stay in the archive.
        keep: usize,
    },
    /// `NAME.pem`: the key, then the certificate and its chain, as HAProxy reads it.
    Pem,
    /// `NAME.p12`: PKCS#12 with key, certificate and chain.
    Pkcs12 {
        /// What opens it: a [`super::Password`].
        password: SecretSource,
    },
}

/// The mode of files with a key: none that lets others than owner and group in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMode(u32);

/// The text is no mode for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a mode for a key: three octal digits such as 600, or 640 where a group may read it; others may never")]
pub struct BadMode;

impl Files {
    /// The four files, for nobody but their owner.
    pub fn flat(folder: PathBuf, name: &str) -> Self {
        Self { folder, name: name.to_owned(), layout: Layout::Flat, owner: None, key_mode: KeyMode::default() }
    }

    /// Whether a certificate may have this name in a folder: it leads to no other folder, and is none of those that a write uses for itself.
    pub fn is_file_name(name: &str) -> bool {
        !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
    }
}

impl fmt::Display for Files {
    /// For messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files in {}", self.folder.display())
    }
}

impl KeyMode {
    /// The permission bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for KeyMode {
    fn default() -> Self {
        Self(0o600)
    }
}

impl FromStr for KeyMode {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Self, BadMode> {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
        let mode = u32::from_str_radix(digits, 8).map_err(|_| BadMode)?;
        let fits = digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
        if fits && mode & 0o117 == 0 && mode & 0o400 != 0 { Ok(Self(mode)) } else { Err(BadMode) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_for_a_key_lets_no_others_in() {
        for (text, mode) in [("600", 0o600), ("0640", 0o640), ("660", 0o660), ("400", 0o400)] {
            assert_eq!(text.parse(), Ok(KeyMode(mode)), "{text}");
        }
        for wrong in ["", "644", "604", "700", "040", "8", "6400", "+60", "1600", "00600", "rw"] {
            assert_eq!(wrong.parse::<KeyMode>(), Err(BadMode), "{wrong}");
        }
    }
}
