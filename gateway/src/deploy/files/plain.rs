//! One file: a PEM, a PKCS#12.
//!
//! It is swapped in one step: a reader sees the old one or the new one, and a crash leaves one of both.

use super::{Files, Issued, Part, Password, Written, at};
use crate::{
    deploy::{DeployError, pkcs12 as encoding},
    disk,
};

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
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::{super::Layout, *};
    use crate::issuer::Authority;

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
}
