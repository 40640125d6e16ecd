//! Certificates in folders, in the layouts that programs read.
//!
//! What holds for all of them: key and certificate were checked to be a pair; readers get from the old files to the new ones by one rename, so that key and certificate match at every
//! instant, whether acmegate or the machine stops there; nothing takes its place before everything is on disk; no key is at any instant readable by others; what was there before
//! stays whole if anything fails. A crash leaves, beside what each layout says of itself, names that begin with a dot, which the next write removes ([`crate::disk`]).

mod flat;
mod live;
mod plain;

use std::{
    fs,
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret;

use super::{BadPassword, DeployError, Files, Layout, Password, SecretSource};
use crate::{
    disk::{self, Access, Pending},
    issuer::{Issued, check_pair},
};

/// Certificates and chains are for everybody.
const CERTIFICATE_MODE: u32 = 0o644;

/// The files of the layouts that have several.
const FOUR: [(Part, &str); 4] =
    [(Part::Key, "privkey"), (Part::Fullchain, "fullchain"), (Part::Certificate, "cert"), (Part::Chain, "chain")];

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

impl Files {
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
        let folders = match &self.layout {
            Layout::Live { .. } => live::folders(self).to_vec(),
            Layout::Flat | Layout::Pem => vec![self.folder.clone()],
            Layout::Pkcs12 { password } => {
                read_password(password)?;
                vec![self.folder.clone()]
            }
        };
        for folder in folders {
            let new = disk::make_folder(&folder).map_err(at(&folder))?;
            made.splice(0..0, new);
            Pending::write(&folder.join("acmegate-probe"), b"", self.access(Part::Key)).map_err(at(&folder))?;
        }
        match &self.layout {
            Layout::Flat => flat::prove(self),
            Layout::Live { .. } => live::check(self),
            Layout::Pem | Layout::Pkcs12 { .. } => Ok(()),
        }
    }

    /// Puts the certificate in place. Blocks: it waits for the disk.
    ///
    /// # Errors
    /// [`DeployError`]. What was there before is there as it was, unless it was the last flush that failed.
    pub fn write(&self, issued: &Issued) -> Result<Written, DeployError> {
        self.check_name()?;
        check_pair(issued.private_key_pem.expose(), &issued.fullchain_pem).map_err(DeployError::Mismatch)?;
        match &self.layout {
            Layout::Flat => flat::write(self, issued),
            Layout::Live { keep } => live::write(self, issued, *keep),
            Layout::Pem => plain::pem(self, issued),
            Layout::Pkcs12 { password } => plain::pkcs12(self, issued, &read_password(password)?),
        }
    }

    fn access(&self, part: Part) -> Access {
        let mode = match part {
            Part::Key | Part::Pem | Part::Pkcs12 => self.key_mode.bits(),
            Part::Fullchain | Part::Certificate | Part::Chain => CERTIFICATE_MODE,
        };
        let access = Access::mode(mode);
        self.owner.map_or(access, |owner| access.owned_by(owner.user(), owner.group()))
    }

    /// A name leads to no other folder, and is none of those that a write uses for itself.
    fn check_name(&self) -> Result<(), DeployError> {
        if !Self::is_file_name(&self.name) {
            let path = self.folder.join(&self.name);
            return Err(DeployError::Foreign { path, reason: "the certificate's name there has to be a plain file name".into() });
        }
        Ok(())
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

fn read_password(from: &SecretSource) -> Result<Password, DeployError> {
    let text = from.read().map_err(|error| DeployError::Input(error.to_string()))?;
    text.expose_secret().parse().map_err(|error: BadPassword| DeployError::Input(format!("{from} holds {error}")))
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
