//! A certificate in a plain folder.
//!
//! A folder of four files cannot be swapped in one step. What can be had: every file is whole at any instant (written beside, flushed, renamed),
//! nothing is renamed before everything is on disk, and a key is never renamed before its certificate was checked against it. Between the first and the last rename a
//! reader may see an old file beside a new one; `fullchain.pem`, which most servers read, moves right after `privkey.pem`.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{certificate, issued::Issued};

/// The files, in the order in which they are put in place: name, mode.
const FILES: [(&str, u32); 4] = [("privkey.pem", 0o600), ("fullchain.pem", 0o644), ("cert.pem", 0o644), ("chain.pem", 0o644)];

/// Why the files were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Key and certificate are not a pair; nothing was touched.
    #[error("the files were not written: {0}")]
    Mismatch(String),
    /// The folder could not be written.
    #[error("{path} could not be written: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes `privkey.pem` (mode 0600), `cert.pem`, `chain.pem` and `fullchain.pem` (0644) into `out`, which is made if it is not there. Gives the
/// paths. Blocks: it waits for the disk.
///
/// # Errors
/// [`WriteError`]. After [`WriteError::Mismatch`], and after [`WriteError::Io`] on a temporary file, the folder is as it was.
pub fn write_files(issued: &Issued, out: &Path) -> Result<Vec<PathBuf>, WriteError> {
    certificate::check_pair(issued.private_key_pem.expose(), &issued.fullchain_pem).map_err(WriteError::Mismatch)?;
    fs::create_dir_all(out).map_err(at(out))?;
    let texts = [issued.private_key_pem.expose(), &issued.fullchain_pem, &issued.certificate_pem, &issued.chain_pem];
    let mut beside = Vec::with_capacity(FILES.len());
    for ((name, mode), text) in FILES.into_iter().zip(texts) {
        let path = out.join(name);
        let file = write_beside(out, name, mode, text).map_err(at(&path))?;
        beside.push((path, file));
    }
    for (path, file) in &beside {
        file.as_file().sync_all().map_err(at(path))?;
    }
    let mut written = Vec::with_capacity(FILES.len());
    for (path, file) in beside {
        file.persist(&path).map_err(|error| WriteError::Io { path: path.clone(), source: error.error })?;
        written.push(path);
    }
    File::open(out).and_then(|folder| folder.sync_all()).map_err(at(out))?;
    Ok(written)
}

fn write_beside(folder: &Path, name: &str, mode: u32, text: &str) -> io::Result<NamedTempFile> {
    // Made with mode 0600, so that the key is at no instant readable by others.
    let mut file = tempfile::Builder::new().prefix(&format!(".{name}.")).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::{super::certificate::tests::Authority, *};

    #[test]
    fn a_certificate_is_written_whole_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/folder");
        let authority = Authority::new();
        for round in ["one.test", "two.test"] {
            let issued = authority.issue(&[round]);
            let written = write_files(&issued, &out).unwrap();
            assert_eq!(written.len(), 4);
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
    fn a_key_without_its_certificate_changes_nothing() {
        let out = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let good = authority.issue(&["one.test"]);
        write_files(&good, out.path()).unwrap();
        let mut bad = authority.issue(&["one.test"]);
        bad.private_key_pem = good.private_key_pem.clone();
        assert!(matches!(write_files(&bad, out.path()), Err(WriteError::Mismatch(_))));
        assert_eq!(fs::read_to_string(out.path().join("fullchain.pem")).unwrap(), good.fullchain_pem);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = write_files(&Authority::new().issue(&["one.test"]), &file.join("out")).unwrap_err();
        assert!(error.to_string().contains("file/out could not be written"), "{error}");
    }
}
