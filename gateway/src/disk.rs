//! Files that are there whole or not at all, whatever happens meanwhile.
//!
//! A file is written beside its place, given its owner and mode, flushed, and renamed, and its folder is flushed: [`replace`]. Files that have to change together need more than that: they
//! are written where nobody reads ([`create`]), and change by one link to them.
//!
//! A crash before the rename leaves the old file, and beside it at most the new one under a name that begins with a dot, for nobody's eyes but its owner's (what
//! reads whole folders, such as HAProxy, leaves such names out); the next write to the same place removes it. A crash after the rename leaves the new file or, if the
//! folder was not flushed yet, after a loss of power the old one: whole in both cases.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{FlockOperation, Gid, Uid, fchown, flock},
    io::Errno,
};
use tempfile::NamedTempFile;

/// How old a file beside another one is when it is taken for what a crash left. No write takes so long.
const LEFTOVER: Duration = Duration::from_secs(3600);

/// Whose a file is and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    mode: u32,
    user: Option<Uid>,
    group: Option<Gid>,
}

impl Access {
    /// This mode, and the owner that new files have.
    pub(crate) const fn mode(mode: u32) -> Self {
        Self { mode, user: None, group: None }
    }

    /// The same for another owner, where one is given.
    #[must_use]
    pub(crate) const fn owned_by(self, user: Option<Uid>, group: Option<Gid>) -> Self {
        Self { mode: self.mode, user, group }
    }

    /// Nobody gets more than this mode gives, not even between two of the steps.
    fn give(self, file: &File) -> io::Result<()> {
        if self.user.is_some() || self.group.is_some() {
            fchown(file, self.user, self.group)?;
        }
        file.set_permissions(Permissions::from_mode(self.mode))
    }
}

/// A file that is written and not in its place yet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Pending {
    place: PathBuf,
    file: NamedTempFile,
}

impl Pending {
    /// Writes beside `place`, whose folder exists.
    ///
    /// # Errors
    /// What the system said; nothing is left of it.
    pub(crate) fn write(place: &Path, bytes: &[u8], access: Access) -> io::Result<Self> {
        let folder = folder_of(place);
        let prefix = prefix(place)?;
        remove_leftovers(folder, &prefix);
        // Made with mode 0600, so that a key is at no instant readable by others.
        let mut file = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder)?;
        file.write_all(bytes)?;
        access.give(file.as_file())?;
        Ok(Self { place: place.to_owned(), file })
    }

    /// Waits until it is on disk.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Puts it in its place; what stood there is gone.
    ///
    /// # Errors
    /// What the system said; what stood there still does.
    pub(crate) fn put(self) -> io::Result<()> {
        self.file.persist(&self.place).map(drop).map_err(|error| error.error)
    }
}

/// Writes one file in all steps.
///
/// # Errors
/// What the system said. Unless flushing the folder failed, the old file is there as it was.
pub(crate) fn replace(place: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let pending = Pending::write(place, bytes, access)?;
    pending.sync()?;
    pending.put()?;
    sync_folder(folder_of(place))
}

/// Writes a file that is not there yet, for names that nobody reads yet; its contents are on disk when it returns, its name is not.
///
/// # Errors
/// It is there already ([`io::ErrorKind::AlreadyExists`]), or what the system said; nothing is left of it.
pub(crate) fn create(place: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    // As in `Pending::write`: a key is at no instant readable by others.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(place)?;
    let written = file.write_all(bytes).and_then(|()| access.give(&file)).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(place);
    }
    written
}

/// Waits until the names in a folder are on disk.
///
/// # Errors
/// What the system said.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder and those above it, as far as they are missing, and waits until they are on disk. Gives those that it made, the lowest first.
///
/// # Errors
/// What the system said.
pub(crate) fn make_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).map(Path::to_owned).collect();
    fs::create_dir_all(folder)?;
    for made in &missing {
        sync_folder(folder_of(made))?;
    }
    Ok(missing)
}

/// Takes the place of the only writer in a folder, until what it gives is dropped or the program ends. Nothing, where the file system has no locks.
///
/// # Errors
/// Somebody else has it ([`io::ErrorKind::WouldBlock`]), or what the system said.
pub(crate) fn lock_folder(folder: &Path) -> io::Result<Option<File>> {
    let folder = File::open(folder)?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(Errno::WOULDBLOCK) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "another program is writing there; try again when it is done"))
        }
        Err(_) => Ok(None),
    }
}

/// Lets everybody pass through a folder that was just made, whatever the umask: its files have modes of their own. What it has from the folder above (its group) stays.
///
/// # Errors
/// What the system said.
pub(crate) fn open_to_all(folder: &Path) -> io::Result<()> {
    let mode = fs::metadata(folder)?.permissions().mode() & 0o7777;
    fs::set_permissions(folder, Permissions::from_mode(mode | 0o755))
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn prefix(place: &Path) -> io::Result<String> {
    let name = place.file_name().and_then(|name| name.to_str());
    name.map(|name| format!(".{name}.")).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))
}

/// A file beside another one is in use for moments only.
fn remove_leftovers(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let old = SystemTime::now().checked_sub(LEFTOVER);
    for entry in entries.flatten() {
        // As `tempfile` names them.
        let random = entry.file_name().to_str().and_then(|name| name.strip_prefix(prefix).map(str::len));
        let written = entry.metadata().ok().filter(fs::Metadata::is_file).and_then(|data| data.modified().ok());
        if random == Some(6) && written.is_some_and(|written| Some(written) < old) {
            // Whether or not it goes, the write goes on.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_what_a_crash_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("key.pem");
        replace(&place, b"old", Access::mode(0o600)).unwrap();
        let left = |name: &str, age: u64| {
            let path = folder.path().join(name);
            fs::write(&path, "left").unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        left(".key.pem.AAAAAA", 7200);
        left(".key.pem.BBBBBB", 60);
        left(".key.pem.notours", 7200);
        left("key.pem.CCCCCC", 7200);
        replace(&place, b"new", Access::mode(0o640)).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o640);
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, [".key.pem.BBBBBB", ".key.pem.notours", "key.pem", "key.pem.CCCCCC"]);
    }

    #[test]
    fn what_is_not_put_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        fs::write(&place, "old").unwrap();
        let pending = Pending::write(&place, b"new", Access::mode(0o644)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        drop(pending);
        assert_eq!((fs::read_dir(folder.path()).unwrap().count(), fs::read(&place).unwrap()), (1, b"old".to_vec()));
        // The place is a folder: it cannot be put there.
        let taken = folder.path().join("folder");
        fs::create_dir(&taken).unwrap();
        assert!(replace(&taken, b"new", Access::mode(0o644)).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_new_file_is_whole_and_another_ones_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        create(&place, b"first", Access::mode(0o640)).unwrap();
        assert_eq!(create(&place, b"second", Access::mode(0o600)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&place).unwrap(), b"first");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn folders_are_made_as_far_as_they_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("a/b");
        assert_eq!(make_folder(&wanted).unwrap(), [wanted.clone(), folder.path().join("a")]);
        assert!(make_folder(&wanted).unwrap().is_empty());
    }
}
