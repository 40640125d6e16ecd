//! The data folder: made with mode 0700, proven writable, and locked for one process.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::StoreError;

/// A data folder that this process holds. The lock goes with the value, and with the process however it ends.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if need be and takes its lock.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process holds it; [`StoreError::Unusable`] if it cannot be made or written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let unusable = |what: &str, error: io::Error| {
            StoreError::Unusable(format!(
                "the data folder {} {what}: {error}; give acmegate a folder that it may write (data: in the configuration)",
                path.display()
            ))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| unusable("cannot be made", e))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|e| unusable("cannot be written", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(in_use(path, &mut lock))),
            Err(TryLockError::Error(error)) => return Err(unusable("cannot be locked", error)),
        }
        // The number is for people who read the message of the process that comes second; a full disk is no reason not to start.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        let path = fs::canonicalize(path).map_err(|e| unusable("cannot be found", e))?;
        Ok(Self { path, _lock: lock })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn in_use(path: &Path, lock: &mut File) -> String {
    let mut holder = String::new();
    let _ = lock.take(20).read_to_string(&mut holder);
    let who = match holder.trim() {
        "" => "another acmegate".to_owned(),
        pid => format!("another acmegate (process {pid})"),
    };
    format!("the data folder {} is in use by {who}: stop it first, or give this one a folder of its own", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_process_holds_a_folder() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("a/b");
        let first = DataFolder::open(&path).expect("fresh");
        assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o700);
        let second = DataFolder::open(&path).expect_err("held");
        let text = second.to_string();
        assert!(matches!(second, StoreError::Locked(_)), "{text}");
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        drop(first);
        DataFolder::open(&path).expect("free again");
    }

    #[test]
    fn a_file_in_its_place_is_said() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let text = DataFolder::open(file.path()).expect_err("a file").to_string();
        assert!(text.contains("cannot be made"), "{text}");
    }
}
