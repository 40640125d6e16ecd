//! Files that are replaced where they stand: the four of a folder, one PEM, one PKCS#12.
//!
//! One file is swapped in one step: a reader sees the old one or the new one, and a crash leaves one of both. A folder of four files cannot be: what can be had is that nothing is
//! renamed before everything is on disk, that the key goes first, and `fullchain.pem`, which most servers read, right after it. A crash between the renames leaves a new
//! key beside an old certificate: repeating the deployment mends that, and programs that cannot wait for it are better off with one of the other layouts.

use std::io;

use super::{Files, Issued, Part, Password, Written, at};
use crate::{
    deploy::{DeployError, pkcs12 as encoding},
    disk::{self, Pending},
};

/// The four files, in the order in which they are put in place.
pub(super) const FOUR: [(Part, &str); 4] =
    [(Part::Key, "privkey"), (Part::Fullchain, "fullchain"), (Part::Certificate, "cert"), (Part::Chain, "chain")];

pub(super) fn flat(files: &Files, issued: &Issued) -> Result<Written, DeployError> {
    let folder = &files.folder;
    disk::make_folder(folder).map_err(at(folder))?;
    let mut beside = Vec::with_capacity(FOUR.len());
    for (part, name) in FOUR {
        let path = folder.join(format!("{name}.pem"));
        let pending = Pending::write(&path, part.text(issued).as_bytes(), files.access(part)).map_err(at(&path))?;
        beside.push((part, pending));
    }
    for (_, pending) in &beside {
        pending.sync().map_err(at(pending.place()))?;
    }
    // The one thing that a rename cannot replace is found before the first one.
    for (_, pending) in &beside {
        if pending.place().is_dir() {
            return Err(at(pending.place())(io::ErrorKind::IsADirectory.into()));
        }
    }
    let mut written = Vec::with_capacity(FOUR.len());
    for (part, pending) in beside {
        let path = pending.place().to_owned();
        pending.put().map_err(at(&path))?;
        written.push((part, path));
    }
    disk::sync_folder(folder).map_err(at(folder))?;
    Ok(Written { folder: folder.clone(), files: written })
}

pub(super) fn pem(files: &Files, issued: &Issued) -> Result<Written, DeployError> {
    let text = zeroize::Zeroizing::new(format!("{}{}", issued.private_key_pem.expose(), issued.fullchain_pem));
    one(files, Part::Pem, "pem", text.as_bytes())
}

pub(super) fn pkcs12(files: &Files, issued: &Issued, password: &Password) -> Result<Written, DeployError> {
    let bytes = encoding::encode(issued, &files.name, password).map_err(DeployError::Pkcs12)?;
    one(files, Part::Pkcs12, "p12", &bytes)
}

fn one(files: &Files, part: Part, extension: &str, bytes: &[u8]) -> Result<Written, DeployError> {
    let folder = &files.folder;
    disk::make_folder(folder).map_err(at(folder))?;
    let path = folder.join(format!("{}.{extension}", files.name));
    disk::replace(&path, bytes, files.access(part)).map_err(at(&path))?;
    Ok(Written { folder: folder.clone(), files: vec![(part, path)] })
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use super::{super::Layout, *};
    use crate::issuer::Authority;

    #[test]
    fn a_certificate_is_written_whole_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/folder");
        let authority = Authority::new();
        for round in ["one.test", "two.test"] {
            let issued = authority.issue(&[round]);
            let written = Files::flat(out.clone(), round).write(&issued).unwrap();
            assert_eq!((written.folder, written.files.len()), (out.clone(), 4));
            assert_eq!(fs::read_to_string(out.join("privkey.pem")).unwrap(), issued.private_key_pem.expose());
            assert_eq!(fs::read_to_string(out.join("cert.pem")).unwrap(), issued.certificate_pem);
            assert_eq!(fs::read_to_string(out.join("chain.pem")).unwrap(), issued.chain_pem);
            assert_eq!(fs::read_to_string(out.join("fullchain.pem")).unwrap(), issued.fullchain_pem);
        }
        let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode("privkey.pem"), mode("cert.pem"), mode("chain.pem"), mode("fullchain.pem")], [0o600, 0o644, 0o644, 0o644]);
        // No temporary file stays behind.
        assert_eq!(fs::read_dir(&out).unwrap().count(), 4);
    }

    #[test]
    fn one_file_holds_key_and_chain() {
        let out = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let files = Files { layout: Layout::Pem, key_mode: "640".parse().unwrap(), ..Files::flat(out.path().to_owned(), "one.test") };
        for _ in 0..2 {
            let issued = authority.issue(&["one.test"]);
            let written = files.write(&issued).unwrap();
            let path = out.path().join("one.test.pem");
            assert_eq!(written.files, [(Part::Pem, path.clone())]);
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}{}", issued.private_key_pem.expose(), issued.fullchain_pem));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        }
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_without_its_certificate_changes_nothing() {
        let out = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let good = authority.issue(&["one.test"]);
        let files = Files::flat(out.path().to_owned(), "one.test");
        files.write(&good).unwrap();
        let mut bad = authority.issue(&["one.test"]);
        bad.private_key_pem = good.private_key_pem.clone();
        assert!(matches!(files.write(&bad), Err(DeployError::Mismatch(_))));
        assert_eq!(fs::read_to_string(out.path().join("fullchain.pem")).unwrap(), good.fullchain_pem);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_found_before_the_key_moves() {
        let out = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let files = Files::flat(out.path().to_owned(), "one.test");
        let old = authority.issue(&["one.test"]);
        files.write(&old).unwrap();
        fs::remove_file(out.path().join("chain.pem")).unwrap();
        fs::create_dir(out.path().join("chain.pem")).unwrap();
        let error = files.write(&authority.issue(&["one.test"])).unwrap_err().to_string();
        assert!(error.contains("chain.pem could not be written"), "{error}");
        assert_eq!(fs::read_to_string(out.path().join("privkey.pem")).unwrap(), old.private_key_pem.expose());
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 4, "nothing is left of it");
    }

    /// Root may give files away; anybody else is refused, and nothing has changed.
    #[test]
    fn files_are_given_to_their_owner_or_not_written() {
        let out = tempfile::tempdir().unwrap();
        let files = Files { owner: Some("12345:23456".parse().unwrap()), ..Files::flat(out.path().to_owned(), "one.test") };
        let written = files.write(&Authority::new().issue(&["one.test"]));
        if rustix::process::geteuid().is_root() {
            for (_, path) in written.unwrap().files {
                let data = fs::metadata(path).unwrap();
                assert_eq!((data.uid(), data.gid()), (12345, 23456));
            }
        } else {
            assert!(matches!(written, Err(DeployError::Io { .. })));
            assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
        }
    }
}
