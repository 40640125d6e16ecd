//! Certbot's layout, with one step from one version to the next.
//!
//! ```text
//!  FOLDER/live/NAME ──▶ .NAME.7                                  one link, and the only thing that is ever replaced
//!  FOLDER/live/.NAME.7/privkey.pem ──▶ ../../archive/NAME/privkey7.pem   …and the other three, of the same version
//!  FOLDER/archive/NAME/privkey7.pem                              …and the other three
//! ```
//!
//! Certbot itself moves four links in a folder `live/NAME`, one after the other, so that a reader between two of them gets a key beside another certificate, and a crash there
//! leaves that for good. Here `live/NAME` is itself a link, which one rename moves: whoever opens the folder once gets files of one version; a reader that opens the four
//! paths anew may at worst meet the rename between two of them, and no longer. What reads the layout works as before: paths are the same, and
//! the links in the folder still say `../../archive/NAME/privkey7.pem`, which is right from the folder's path and from where it really is (`certbot certificates`
//! looks at that). A folder that certbot made is taken over in one step, too (`RENAME_EXCHANGE`), once certbot renews it no longer; its README comes along. A file system that has no such step
//! (NFS) could do it only with an instant at which nothing stands there, and a crash could make that last: there it is refused before anything is ordered, and whoever moves the
//! folder away chooses the instant. Nothing else needs it.
//!
//! What a crash leaves, by the step after which it comes:
//! 1. *Files in the archive*, some or all: no link leads to them. They count as a version: the next write takes the next number, and they go when they are old.
//! 2. *The folder `.NAME.7` with its links*: the same.
//! 3. *The link `.NAME.7.next`*: the same.
//! 4. *The rename*: all is in place, as if there had been no crash; older versions stay until the next write.
//!
//! Each of them is on disk before the next one begins, so a loss of power leaves no more than that.
//!
//! Whoever writes holds a lock on the archive. Where the file system has no locks, two writes at a time take different numbers all the same, since a file of the archive is made only where there is
//! none; the later rename wins.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{FOUR, Files, Issued, Part, Written, at};
use crate::{deploy::DeployError, disk};

/// Versions that others may take while we look for a free one.
const TRIES: u64 = 100;

/// What certbot leaves beside its links.
const README: &str = "README";

/// The folders that a certificate needs.
pub(super) fn folders(files: &Files) -> [PathBuf; 2] {
    [files.folder.join("live"), files.folder.join("archive").join(&files.name)]
}

/// Whether `live/NAME` may be replaced.
///
/// # Errors
/// [`DeployError::Foreign`].
pub(super) fn check(files: &Files) -> Result<(), DeployError> {
    let place = files.folder.join("live").join(&files.name);
    let foreign = |reason: String| DeployError::Foreign { path: place.clone(), reason };
    match standing(&place, &files.name).map_err(at(&place))? {
        Standing::Nothing | Standing::Ours => Ok(()),
        Standing::Other => Err(foreign("it is neither acmegate's nor certbot's; move it away, or choose another folder".into())),
        Standing::Certbots => {
            let renewal = files.folder.join("renewal").join(format!("{}.conf", files.name));
            if renewal.exists() {
                let renewal = renewal.display();
                return Err(foreign(format!("certbot renews it; move {renewal} away (certbot then forgets it), or choose another folder")));
            }
            exchanges(&files.folder.join("live"), &files.name).map_err(|error| {
                foreign(format!(
                    "it is a folder of certbot's, and the file system cannot exchange it for a link in one step ({error}); move it away, or choose another folder"
                ))
            })
        }
    }
}

/// Writes the next version, leads `live/NAME` to it, and removes versions beyond the `keep` older ones.
pub(super) fn write(files: &Files, issued: &Issued, keep: usize) -> Result<Written, DeployError> {
    let [live, archive] = folders(files);
    for folder in [&live, &archive] {
        disk::make_folder(folder).map_err(at(folder))?;
    }
    let _lock = disk::lock_folder(&archive).map_err(at(&archive))?;
    check(files)?;
    let lineage = Lineage { name: &files.name, live: &live, archive: &archive };
    let version = lineage.store(files, issued)?;
    lineage.link(version)?;
    lineage.swap(version)?;
    lineage.prune(version, keep);
    let folder = live.join(&files.name);
    let written = FOUR.map(|(part, name)| (part, folder.join(format!("{name}.pem")))).to_vec();
    Ok(Written { folder, files: written })
}

struct Lineage<'a> {
    name: &'a str,
    live: &'a Path,
    archive: &'a Path,
}

impl Lineage<'_> {
    /// Puts the four files into the archive, under the first number above all others; on disk when it returns.
    fn store(&self, files: &Files, issued: &Issued) -> Result<u64, DeployError> {
        let first = self.versions().map_err(at(self.archive))?.last().map_or(1, |last| last.saturating_add(1));
        let [key, others @ ..] = FOUR;
        for version in first..first.saturating_add(TRIES) {
            // The key's name is taken before anything else: whoever has it has the number.
            match self.store_part(files, issued, version, key) {
                Ok(()) => {}
                Err(DeployError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let stored = others.into_iter().try_for_each(|part| self.store_part(files, issued, version, part));
            let stored = stored.and_then(|()| disk::sync_folder(self.archive).map_err(at(self.archive)));
            if stored.is_err() {
                self.remove(version);
            }
            return stored.map(|()| version);
        }
        Err(at(self.archive)(io::ErrorKind::AlreadyExists.into()))
    }

    fn store_part(&self, files: &Files, issued: &Issued, version: u64, (part, name): (Part, &str)) -> Result<(), DeployError> {
        let path = self.archived(name, version);
        disk::create(&path, part.text(issued).as_bytes(), files.access(part)).map_err(at(&path))
    }

    /// Makes the folder of a version, with its links.
    fn link(&self, version: u64) -> Result<(), DeployError> {
        let folder = self.live.join(self.folder_name(version));
        let make = || {
            fs::create_dir(&folder)?;
            disk::open_to_all(&folder)?;
            for (_, name) in FOUR {
                symlink(format!("../../archive/{}/{name}{version}.pem", self.name), folder.join(format!("{name}.pem")))?;
            }
            // Certbot's words to whoever looks there; the certificate does not depend on them.
            let _ = fs::hard_link(self.live.join(self.name).join(README), folder.join(README));
            disk::sync_folder(&folder)?;
            // The link that readers follow must not be on disk before what it leads to.
            disk::sync_folder(self.live)
        };
        let made = make();
        if made.is_err() {
            self.remove(version);
        }
        made.map_err(at(&folder))
    }

    /// Leads `live/NAME` to a version: the one step that readers see.
    fn swap(&self, version: u64) -> Result<(), DeployError> {
        let place = self.live.join(self.name);
        let next = self.live.join(self.next_name(version));
        let step = || {
            symlink(self.folder_name(version), &next)?;
            if fs::symlink_metadata(&place).is_ok_and(|data| data.is_dir()) { exchange(&next, &place) } else { fs::rename(&next, &place) }
        };
        let swapped = step();
        if swapped.is_err() {
            self.remove(version);
        }
        swapped.map_err(at(&place))?;
        disk::sync_folder(self.live).map_err(at(self.live))?;
        // Certbot's links, if they were there, and not before the exchange is on disk; what they lead to stays in the archive. If they stay, they are removed with this version.
        let _ = fs::remove_dir_all(&next);
        Ok(())
    }

    /// Removes what is older than the `keep` versions before this one. That a file cannot be removed is no reason to fail: the certificate is in place.
    fn prune(&self, current: u64, keep: usize) {
        let Ok(versions) = self.versions() else { return };
        for version in versions.into_iter().rev().filter(|&version| version < current).skip(keep) {
            self.remove(version);
        }
    }

    fn remove(&self, version: u64) {
        for (_, name) in FOUR {
            let _ = fs::remove_file(self.archived(name, version));
        }
        let next = self.live.join(self.next_name(version));
        let _ = fs::remove_file(&next).or_else(|_| fs::remove_dir_all(&next));
        let _ = fs::remove_dir_all(self.live.join(self.folder_name(version)));
    }

    /// All versions of which there is any part.
    fn versions(&self) -> io::Result<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(self.archive)? {
            let file = entry?.file_name();
            let number = |(_, name): (_, &str)| file.to_str()?.strip_prefix(name)?.strip_suffix(".pem")?.parse::<u64>().ok();
            found.extend(FOUR.into_iter().find_map(number));
        }
        for entry in fs::read_dir(self.live)? {
            found.extend(entry?.file_name().to_str().and_then(|name| version_of(name.strip_suffix(".next").unwrap_or(name), self.name)));
        }
        Ok(found)
    }

    fn archived(&self, name: &str, version: u64) -> PathBuf {
        self.archive.join(format!("{name}{version}.pem"))
    }

    fn folder_name(&self, version: u64) -> String {
        format!(".{}.{version}", self.name)
    }

    fn next_name(&self, version: u64) -> String {
        format!(".{}.{version}.next", self.name)
    }
}

/// Proves that the file system can exchange two names.
fn exchanges(live: &Path, name: &str) -> io::Result<()> {
    let [one, other] = ["one", "other"].map(|end| live.join(format!(".{name}.probe.{end}")));
    let made = || {
        for probe in [&one, &other] {
            match symlink(name, probe) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                // One that a crash left serves as well.
                _ => {}
            }
        }
        exchange(&one, &other)
    };
    let made = made();
    for probe in [one, other] {
        let _ = fs::remove_file(probe);
    }
    made
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// What stands at `live/NAME`.
enum Standing {
    Nothing,
    Ours,
    Certbots,
    Other,
}

fn standing(place: &Path, name: &str) -> io::Result<Standing> {
    let data = match fs::symlink_metadata(place) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Nothing),
        Err(error) => return Err(error),
    };
    if data.is_symlink() {
        let target = fs::read_link(place)?;
        let ours = target.to_str().is_some_and(|target| version_of(target, name).is_some());
        return Ok(if ours { Standing::Ours } else { Standing::Other });
    }
    if !data.is_dir() {
        return Ok(Standing::Other);
    }
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        if !entry.file_type()?.is_symlink() && entry.file_name() != README {
            return Ok(Standing::Other);
        }
    }
    Ok(Standing::Certbots)
}

/// The number in `.NAME.7`.
fn version_of(folder: &str, name: &str) -> Option<u64> {
    folder.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::Layout, *};
    use crate::issuer::Authority;

    fn files(folder: &Path) -> Files {
        Files { layout: Layout::Live { keep: 2 }, ..Files::flat(folder.to_owned(), "one.test") }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn holds(folder: &Path, issued: &Issued) {
        for (part, name) in FOUR {
            let path = folder.join("live/one.test").join(format!("{name}.pem"));
            assert_eq!(fs::read_to_string(&path).unwrap(), part.text(issued), "{}", path.display());
        }
    }

    #[test]
    fn each_version_is_new_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        for round in 1..=4 {
            let issued = authority.issue(&["one.test"]);
            let written = files(folder.path()).write(&issued).unwrap();
            assert_eq!(written.folder, folder.path().join("live/one.test"));
            assert_eq!(written.files.len(), 4);
            holds(folder.path(), &issued);
            // Certbot looks at what the links say, from the path of the folder.
            let link = fs::read_link(folder.path().join("live/one.test/cert.pem")).unwrap();
            assert_eq!(link, Path::new(&format!("../../archive/one.test/cert{round}.pem")));
        }
        assert_eq!(names(&folder.path().join("live")), [".one.test.2", ".one.test.3", ".one.test.4", "one.test"]);
        let archive = names(&folder.path().join("archive/one.test"));
        assert_eq!(archive.len(), 12);
        assert!(!archive.contains(&"privkey1.pem".to_owned()) && archive.contains(&"privkey2.pem".to_owned()), "{archive:?}");
    }

    #[test]
    fn what_a_crash_left_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let first = authority.issue(&["one.test"]);
        files(folder.path()).write(&first).unwrap();
        // After the first file of the archive, after the folder, after the link: readers see the first version.
        fs::write(folder.path().join("archive/one.test/privkey2.pem"), "half").unwrap();
        fs::create_dir(folder.path().join("live/.one.test.3")).unwrap();
        symlink(".one.test.4", folder.path().join("live/.one.test.4.next")).unwrap();
        holds(folder.path(), &first);
        let next = authority.issue(&["one.test"]);
        files(folder.path()).write(&next).unwrap();
        holds(folder.path(), &next);
        assert_eq!(fs::read_link(folder.path().join("live/one.test")).unwrap(), Path::new(".one.test.5"));
        // Two are kept, whole or not; the rest goes.
        assert_eq!(names(&folder.path().join("live")), [".one.test.3", ".one.test.4.next", ".one.test.5", "one.test"]);
        assert_eq!(names(&folder.path().join("archive/one.test")), ["cert5.pem", "chain5.pem", "fullchain5.pem", "privkey5.pem"]);
    }

    #[test]
    fn a_failed_write_leaves_no_version_and_the_old_one_stands() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let first = authority.issue(&["one.test"]);
        files(folder.path()).write(&first).unwrap();
        // The second file of the next version cannot be put there.
        fs::create_dir(folder.path().join("archive/one.test/fullchain2.pem")).unwrap();
        fs::create_dir(folder.path().join("live/.one.test.3")).unwrap();
        let lineage = Lineage { name: "one.test", live: &folder.path().join("live"), archive: &folder.path().join("archive/one.test") };
        let second = authority.issue(&["one.test"]);
        assert!(lineage.store_part(&files(folder.path()), &second, 2, FOUR[0]).is_ok());
        assert!(lineage.store_part(&files(folder.path()), &second, 2, FOUR[1]).is_err());
        assert!(lineage.link(3).is_err());
        lineage.remove(2);
        holds(folder.path(), &first);
        assert_eq!(names(&folder.path().join("live")), [".one.test.1", "one.test"]);
        assert_eq!(names(&folder.path().join("archive/one.test")).len(), 5, "the folder that stood in the way, and the first version");
    }

    #[test]
    fn a_folder_of_certbot_is_taken_over_once_certbot_lets_it_go() {
        let folder = tempfile::tempdir().unwrap();
        let (live, archive) = (folder.path().join("live/one.test"), folder.path().join("archive/one.test"));
        for made in [&live, &archive, &folder.path().join("renewal")] {
            fs::create_dir_all(made).unwrap();
        }
        fs::write(live.join("README"), "of certbot").unwrap();
        for (_, name) in FOUR {
            fs::write(archive.join(format!("{name}7.pem")), "old").unwrap();
            symlink(format!("../../archive/one.test/{name}7.pem"), live.join(format!("{name}.pem"))).unwrap();
        }
        let renewal = folder.path().join("renewal/one.test.conf");
        fs::write(&renewal, "").unwrap();
        let issued = Authority::new().issue(&["one.test"]);
        let error = files(folder.path()).prepare().unwrap_err().to_string();
        assert!(error.contains("certbot renews it") && error.contains("renewal/one.test.conf"), "{error}");
        assert!(files(folder.path()).write(&issued).is_err());
        assert_eq!(fs::read_to_string(live.join("cert.pem")).unwrap(), "old");
        fs::remove_file(renewal).unwrap();
        files(folder.path()).write(&issued).unwrap();
        holds(folder.path(), &issued);
        assert_eq!(fs::read_link(&live).unwrap(), Path::new(".one.test.8"));
        assert_eq!(names(&folder.path().join("live")), [".one.test.8", "one.test"]);
        assert!(archive.join("privkey7.pem").exists(), "an older version");
    }

    #[test]
    fn what_is_nobodys_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("live/one.test");
        let refused = || {
            let error = files(folder.path()).prepare().unwrap_err();
            assert!(matches!(error, DeployError::Foreign { .. }), "{error}");
        };
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("index.html"), "").unwrap();
        refused();
        fs::remove_dir_all(&place).unwrap();
        fs::write(&place, "").unwrap();
        refused();
        fs::remove_file(&place).unwrap();
        symlink("/etc", &place).unwrap();
        refused();
    }
}
