//! Certificates in folders, in the layouts that programs read.
//!
//! What holds for all of them: key and certificate were checked to be a pair; every file is whole at any instant; nothing takes its place before everything is on
//! disk; no key is at any instant readable by others; what was there before stays whole if anything fails. A crash leaves, beside what each layout says of itself, a
//! file whose name begins with a dot, which the next write removes ([`crate::disk`]).

mod live;
mod plain;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{DeployError, Owner, Password};
use crate::{
    disk::{self, Access, Pending},
    issuer::{Issued, check_pair},
};

/// Certificates and chains are for everybody.
const CERTIFICATE_MODE: u32 = 0o644;

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
        /// What opens it.
        password: Password,
    },
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The key.
    Key,
    /// The leaf and the chain.
    Fullchain,
    /// The leaf.
    Certificate,
    /// The intermediates.
    Chain,
    /// Key, leaf and chain in PEM.
    Pem,
    /// Key, leaf and chain in PKCS#12.
    Pkcs12,
}

/// Files that are in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The folder that a reader is pointed to.
    pub folder: PathBuf,
    /// The files in it.
    pub files: Vec<(Part, PathBuf)>,
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

    /// Proves that the files can be written, with the owner that they will have; makes the folders.
    ///
    /// # Errors
    /// [`DeployError`] as [`Files::write`] would give it.
    pub fn prepare(&self) -> Result<Prepared, DeployError> {
        let mut prepared = Prepared { made: Vec::new() };
        let proven = self.prove(&mut prepared.made);
        match proven {
            Ok(()) => Ok(prepared),
            Err(error) => {
                prepared.forget();
                Err(error)
            }
        }
    }

    fn prove(&self, made: &mut Vec<PathBuf>) -> Result<(), DeployError> {
        self.check_name()?;
        let folders = match self.layout {
            Layout::Live { .. } => live::folders(self).to_vec(),
            Layout::Flat | Layout::Pem | Layout::Pkcs12 { .. } => vec![self.folder.clone()],
        };
        for folder in folders {
            let new = disk::make_folder(&folder).map_err(at(&folder))?;
            made.splice(0..0, new);
            Pending::write(&folder.join("acmegate-probe"), b"", self.access(Part::Key)).map_err(at(&folder))?;
        }
        if matches!(self.layout, Layout::Live { .. }) { live::check(self) } else { Ok(()) }
    }

    /// Puts the certificate in place. Blocks: it waits for the disk.
    ///
    /// # Errors
    /// [`DeployError`]. What was there before is there as it was, unless it was the last flush that failed.
    pub fn write(&self, issued: &Issued) -> Result<Written, DeployError> {
        self.check_name()?;
        check_pair(issued.private_key_pem.expose(), &issued.fullchain_pem).map_err(DeployError::Mismatch)?;
        match &self.layout {
            Layout::Flat => plain::flat(self, issued),
            Layout::Live { keep } => live::write(self, issued, *keep),
            Layout::Pem => plain::pem(self, issued),
            Layout::Pkcs12 { password } => plain::pkcs12(self, issued, password),
        }
    }

    fn access(&self, part: Part) -> Access {
        let mode = match part {
            Part::Key | Part::Pem | Part::Pkcs12 => self.key_mode.0,
            Part::Fullchain | Part::Certificate | Part::Chain => CERTIFICATE_MODE,
        };
        let access = Access::mode(mode);
        self.owner.map_or(access, |owner| owner.of(access))
    }

    /// A name leads to no other folder, and is none of those that a write uses for itself.
    fn check_name(&self) -> Result<(), DeployError> {
        if self.name.is_empty() || self.name.starts_with('.') || self.name.contains(['/', '\0']) {
            let path = self.folder.join(&self.name);
            return Err(DeployError::Foreign { path, reason: "the certificate's name there has to be a plain file name".into() });
        }
        Ok(())
    }
}

impl fmt::Display for Files {
    /// For messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files in {}", self.folder.display())
    }
}

/// Folders that were made before there was a certificate.
#[derive(Debug)]
pub struct Prepared {
    made: Vec<PathBuf>,
}

impl Prepared {
    /// Takes back folders that were made for nothing.
    pub fn forget(self) {
        for folder in self.made {
            // Refused by the system if there is anything in it.
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Part {
    /// The text of it; [`Part::Pkcs12`] is none.
    fn text(self, issued: &Issued) -> &str {
        match self {
            Self::Key => issued.private_key_pem.expose(),
            Self::Fullchain => &issued.fullchain_pem,
            Self::Certificate => &issued.certificate_pem,
            Self::Chain => &issued.chain_pem,
            Self::Pem | Self::Pkcs12 => "",
        }
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

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> DeployError {
    let path = path.to_owned();
    move |source| DeployError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::Authority;

    #[test]
    fn a_mode_for_a_key_lets_no_others_in() {
        for (text, mode) in [("600", 0o600), ("0640", 0o640), ("660", 0o660), ("400", 0o400)] {
            assert_eq!(text.parse(), Ok(KeyMode(mode)), "{text}");
        }
        for wrong in ["", "644", "604", "700", "040", "8", "6400", "+60", "1600", "00600", "rw"] {
            assert_eq!(wrong.parse::<KeyMode>(), Err(BadMode), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_found_before_and_leaves_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for layout in [Layout::Flat, Layout::Live { keep: 1 }, Layout::Pem] {
            let files = Files { layout, ..Files::flat(folder.path().join("a/b"), "one.test") };
            files.prepare().unwrap().forget();
            assert!(!folder.path().join("a").exists(), "{:?}", files.layout);
            let wrong = Files { folder: file.join("out"), ..files };
            let error = wrong.prepare().unwrap_err().to_string();
            assert!(error.contains("file/out") && error.contains("could not be written"), "{error}");
        }
        for name in ["", "..", ".hidden", "a/b"] {
            let files = Files::flat(folder.path().to_owned(), name);
            assert!(matches!(files.prepare(), Err(DeployError::Foreign { .. })), "{name}");
            assert!(matches!(files.write(&Authority::new().issue(&["one.test"])), Err(DeployError::Foreign { .. })), "{name}");
        }
    }
}
