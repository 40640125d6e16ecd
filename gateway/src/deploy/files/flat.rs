//! Four files in a folder, which change together.
//!
//! ```text
//!  FOLDER/privkey.pem ──▶ ..data/privkey.pem    …and the other three: they are made once
//!  FOLDER/..data ──▶ ..acmegate.7               one link, and the only thing that a renewal replaces
//!  FOLDER/..acmegate.7/privkey.pem              …and the other three, of one version
//! ```
//!
//! Four regular files cannot change together: no call of the system renames more than one, and a crash between two of them would leave a key beside another key's certificate for
//! a service that starts at boot. Exchanging the whole folder would change them together, but it also takes away what else stands in it, the watches that programs have
//! on it, and mounts, and needs the right to write above it. So they are links, as Kubernetes mounts Secrets, by Kubernetes' name `..data` for what is replaced, which programs know to watch.
//!
//! Servers follow links (nginx, Apache httpd, HAProxy, Postfix, Dovecot, PostgreSQL…). What has to be known of them:
//! - A container gets the *folder* mounted, not its files one by one: a mounted file never changes, whether it is a link or is replaced by a rename.
//! - What copies the folder takes all of it (the links lead nowhere else) or follows links (`cp -L`, `rsync -L`).
//! - Rules by path (`AppArmor`) see `FOLDER/..acmegate.7/privkey.pem`: they need `FOLDER/**`.
//! - Whoever needs regular files takes the layouts of one file. A file system without symbolic links is refused before anything is ordered.
//!
//! A reader that opens two of the paths may at worst meet the rename between them, and no longer; one that opens the folder `..data` once never does.
//!
//! What stands at the four names from before (files of an older acmegate, of somebody's own, links elsewhere) is taken over without an instant at which they differ: each file
//! gets a second name in the version that `..data` leads to, and only then is its first name replaced by a link to it. When all four are links, to the same contents as
//! before, `..data` moves. Where nothing stands, the links are made first, and lead nowhere until `..data` is there.
//!
//! What a crash leaves: any version that `..data` does not lead to is for nobody, and the next write removes it. Whoever writes holds a lock on the folder; on file systems without locks, one
//! program at a time may write there.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{FOUR, Files, Issued, Written, at};
use crate::{deploy::DeployError, disk};

/// The link that a renewal replaces.
const DATA: &str = "..data";

/// What the folders of versions begin with.
const VERSION: &str = "..acmegate.";

/// Proves that the folder can hold links, and that those of the names that are taken can be replaced.
///
/// # Errors
/// [`DeployError`].
pub(super) fn prove(files: &Files) -> Result<(), DeployError> {
    check(files)?;
    let probe = files.folder.join(format!("{VERSION}probe"));
    // One that a crash left proves as much.
    let made = symlink(DATA, &probe);
    let _ = fs::remove_file(&probe);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(DeployError::Foreign {
            path: files.folder.clone(),
            reason: format!(
                "the four files change together by symbolic links, and none can be made there ({error}); choose another folder, or layout pem"
            ),
        }),
        _ => Ok(()),
    }
}

/// Writes the next version, and leads the four names to it.
pub(super) fn write(files: &Files, issued: &Issued) -> Result<Written, DeployError> {
    let folder = &files.folder;
    disk::make_folder(folder).map_err(at(folder))?;
    let _lock = disk::lock_folder(folder).map_err(at(folder))?;
    check(files)?;
    let place = Place { folder };
    if place.is_new() {
        // They lead nowhere until the version is led to, and are on disk before it is.
        place.link()?;
    }
    let version = place.store(files, issued)?;
    let led = place.adopt(&version).and_then(|()| version.lead());
    if let Err(error) = led {
        version.remove();
        return Err(error);
    }
    disk::sync_folder(folder).map_err(at(folder))?;
    place.prune(&version);
    Ok(Written { folder: folder.clone(), files: FOUR.map(|(part, name)| (part, place.name(name))).to_vec() })
}

fn check(files: &Files) -> Result<(), DeployError> {
    let place = Place { folder: &files.folder };
    let data = files.folder.join(DATA);
    if place.current().map_err(at(&data))?.is_none() && fs::symlink_metadata(&data).is_ok() {
        return Err(DeployError::Foreign { path: data, reason: "it is not acmegate's; choose another folder".into() });
    }
    // The one thing that a rename cannot replace.
    for (_, name) in FOUR {
        let path = place.name(name);
        if fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir()) {
            return Err(at(&path)(io::ErrorKind::IsADirectory.into()));
        }
    }
    Ok(())
}

struct Place<'a> {
    folder: &'a Path,
}

/// The folder of one version, which is not led to yet.
struct Version<'a> {
    place: &'a Place<'a>,
    name: String,
    path: PathBuf,
}

impl Place<'_> {
    /// Makes the next version; it is on disk when it returns.
    fn store(&self, files: &Files, issued: &Issued) -> Result<Version<'_>, DeployError> {
        let version = self.make().map_err(at(self.folder))?;
        let stored = version.fill(files, issued);
        if stored.is_err() {
            version.remove();
        }
        stored.map(|()| version)
    }

    /// Makes the folder of a version, under the first number above all others, and in it the link that leads to it.
    fn make(&self) -> io::Result<Version<'_>> {
        let last = self.versions()?.into_iter().filter_map(|name| number(&name)).max();
        let name = format!("{VERSION}{}", last.map_or(1, |last| last.saturating_add(1)));
        let path = self.folder.join(&name);
        fs::create_dir(&path)?;
        let version = Version { place: self, name, path };
        let made = disk::open_to_all(&version.path).and_then(|()| symlink(&version.name, version.path.join(DATA)));
        if made.is_err() {
            version.remove();
        }
        made.map(|()| version)
    }

    /// Whether nothing stands at the four names, nor at [`DATA`].
    fn is_new(&self) -> bool {
        let names = FOUR.into_iter().map(|(_, name)| self.name(name));
        names
            .chain([self.folder.join(DATA)])
            .all(|path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound))
    }

    /// Makes the four names, of which none is there.
    fn link(&self) -> Result<(), DeployError> {
        FOUR.into_iter().map(|(_, name)| format!("{name}.pem")).try_for_each(|name| {
            let path = self.folder.join(&name);
            symlink(link_text(&name), &path).map_err(at(&path))
        })
    }

    /// Makes the four names links that lead through [`DATA`], to what they hold already. `next` lends its folder for what is to be renamed.
    fn adopt(&self, next: &Version<'_>) -> Result<(), DeployError> {
        self.adopt_by(next, |path, held| fs::hard_link(path, held))
    }

    fn adopt_by(&self, next: &Version<'_>, hard_link: impl Fn(&Path, &Path) -> io::Result<()>) -> Result<(), DeployError> {
        let strangers: Vec<_> = FOUR.into_iter().map(|(_, name)| format!("{name}.pem")).filter(|name| !self.is_linked(name)).collect();
        if strangers.is_empty() {
            return Ok(());
        }
        let current = self.current_folder().map_err(at(self.folder))?;
        let mut exchanged = Vec::new();
        for name in &strangers {
            if !self.hold(name, &current, &hard_link).map_err(at(&self.folder.join(name)))? {
                exchanged.push(name);
            }
        }
        disk::sync_folder(&current).map_err(at(&current))?;
        for name in &strangers {
            let (link, path) = (next.path.join(format!(".{name}")), self.folder.join(name));
            let replace = || {
                if exchanged.contains(&name) {
                    return Ok(renameat_with(CWD, current.join(name), CWD, &path, RenameFlags::EXCHANGE)?);
                }
                symlink(link_text(name), &link)?;
                fs::rename(&link, &path)
            };
            replace().map_err(at(&path))?;
        }
        // No name may be on disk as it was once the link that the others follow has moved.
        disk::sync_folder(self.folder).map_err(at(self.folder))
    }

    /// Gives what stands at a name a second name in the current version, which nobody reads by this name yet. False: it may not have one (it belongs to somebody else), and a link
    /// stands there that it has to change places with.
    fn hold(&self, name: &str, current: &Path, hard_link: impl Fn(&Path, &Path) -> io::Result<()>) -> io::Result<bool> {
        let (path, held) = (self.folder.join(name), current.join(name));
        match fs::remove_file(&held) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let data = match fs::symlink_metadata(&path) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        if data.is_symlink() {
            // One folder down; what begins at the root stays as it is.
            return symlink(Path::new("..").join(fs::read_link(&path)?), &held).map(|()| true);
        }
        if hard_link(&path, &held).is_ok() {
            return Ok(true);
        }
        symlink(link_text(name), &held).map(|()| false)
    }

    /// The folder that [`DATA`] leads to; an empty one if there was none.
    fn current_folder(&self) -> io::Result<PathBuf> {
        if let Some(current) = self.current()?.map(|current| self.folder.join(current)).filter(|current| current.is_dir()) {
            return Ok(current);
        }
        let empty = self.make()?;
        disk::sync_folder(&empty.path)?;
        disk::sync_folder(self.folder)?;
        empty.step()?;
        disk::sync_folder(self.folder)?;
        Ok(empty.path)
    }

    /// Removes all versions but this one. That one cannot be removed is no reason to fail: the certificate is in place.
    fn prune(&self, current: &Version<'_>) {
        for name in self.versions().unwrap_or_default() {
            if name != current.name {
                let _ = fs::remove_dir_all(self.folder.join(name));
            }
        }
    }

    fn versions(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(self.folder)?.map(|entry| Ok(entry?.file_name().into_string().ok().filter(|name| number(name).is_some())));
        names.filter_map(Result::transpose).collect()
    }

    /// The version that [`DATA`] leads to, if it is ours.
    fn current(&self) -> io::Result<Option<String>> {
        match fs::read_link(self.folder.join(DATA)) {
            Ok(target) => Ok(target.into_os_string().into_string().ok().filter(|name| number(name).is_some())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_linked(&self, name: &str) -> bool {
        fs::read_link(self.folder.join(name)).is_ok_and(|target| target == link_text(name))
    }

    fn name(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }
}

impl Version<'_> {
    fn fill(&self, files: &Files, issued: &Issued) -> Result<(), DeployError> {
        for (part, name) in FOUR {
            let path = self.path.join(format!("{name}.pem"));
            // The path that the reader of a message knows.
            disk::create(&path, part.text(issued).as_bytes(), files.access(part)).map_err(at(&self.place.name(name)))?;
        }
        // The link that readers follow must not be on disk before what it leads to.
        for folder in [&self.path, self.place.folder] {
            disk::sync_folder(folder).map_err(at(folder))?;
        }
        Ok(())
    }

    /// Leads readers to this version: the one step that they see.
    fn lead(&self) -> Result<(), DeployError> {
        self.step().map_err(at(&self.place.folder.join(DATA)))
    }

    fn step(&self) -> io::Result<()> {
        fs::rename(self.path.join(DATA), self.place.folder.join(DATA))
    }

    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn link_text(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

fn number(version: &str) -> Option<u64> {
    version.strip_prefix(VERSION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::issuer::Authority;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn holds(folder: &Path, issued: &Issued) {
        for (part, name) in FOUR {
            let path = folder.join(format!("{name}.pem"));
            assert_eq!(fs::read_to_string(&path).unwrap(), part.text(issued), "{}", path.display());
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(&format!("..data/{name}.pem")));
        }
    }

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
        // Nothing else stays behind: no older version, no temporary file.
        assert_eq!(names(&out), ["..acmegate.2", "..data", "cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"]);
        assert_eq!(names(&out.join("..acmegate.2")), ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"]);
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
        assert_eq!(files.prepare().unwrap_err().to_string(), error);
        assert!(error.contains("chain.pem could not be written"), "{error}");
        assert_eq!(fs::read_to_string(out.path().join("privkey.pem")).unwrap(), old.private_key_pem.expose());
        assert_eq!(names(out.path()).len(), 6, "nothing is left of it");
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

    /// Of an older acmegate, of somebody's own, led elsewhere, or not there: it is read through the links, and then the new one is.
    #[test]
    fn what_stands_at_the_names_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("privkey.pem"), "old key").unwrap();
        fs::write(folder.path().join("elsewhere"), "old certificate").unwrap();
        symlink("../elsewhere", out.join("cert.pem")).unwrap();
        symlink(folder.path().join("elsewhere"), out.join("chain.pem")).unwrap();
        fs::write(out.join("dhparam.pem"), "foreign").unwrap();
        let files = Files::flat(out.clone(), "one.test");
        let issued = Authority::new().issue(&["one.test"]);
        let place = Place { folder: &out };
        let next = place.store(&files, &issued).unwrap();
        place.adopt(&next).unwrap();
        let read = |name: &str| fs::read_to_string(out.join(name)).ok();
        let old = ["privkey.pem", "cert.pem", "chain.pem", "fullchain.pem"].map(read);
        assert_eq!(old, [Some("old key"), Some("old certificate"), Some("old certificate"), None].map(|text| text.map(str::to_owned)));
        assert!(FOUR.iter().all(|(_, name)| place.is_linked(&format!("{name}.pem"))));
        files.write(&issued).unwrap();
        holds(&out, &issued);
        assert_eq!(names(&out).len(), 7);
        assert_eq!(
            (read("dhparam.pem").unwrap(), fs::read_to_string(folder.path().join("elsewhere")).unwrap().as_str()),
            ("foreign".to_owned(), "old certificate")
        );

        // Somebody puts a file of his own there again.
        fs::remove_file(out.join("cert.pem")).unwrap();
        fs::write(out.join("cert.pem"), "his own").unwrap();
        let issued = Authority::new().issue(&["one.test"]);
        files.write(&issued).unwrap();
        holds(&out, &issued);
        assert_eq!(names(&out).len(), 7);
    }

    /// As it is where the system refuses a second name for a file of somebody else.
    #[test]
    fn a_file_that_may_not_have_a_second_name_changes_places_with_the_link() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("cert.pem"), "old").unwrap();
        let place = Place { folder: out.path() };
        let issued = Authority::new().issue(&["one.test"]);
        let next = place.store(&Files::flat(out.path().to_owned(), "one.test"), &issued).unwrap();
        let refused = |path: &Path, _: &Path| if path.ends_with("cert.pem") { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) };
        place.adopt_by(&next, refused).unwrap();
        assert_eq!(fs::read_to_string(out.path().join("cert.pem")).unwrap(), "old");
        assert!(place.is_linked("cert.pem"));
        next.lead().unwrap();
        holds(out.path(), &issued);
    }

    #[test]
    fn folders_of_versions_let_everybody_pass_and_keep_the_group() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o2750)).unwrap();
        Files::flat(out.clone(), "one.test").write(&Authority::new().issue(&["one.test"])).unwrap();
        assert_eq!(fs::metadata(out.join("..data")).unwrap().permissions().mode() & 0o7777, 0o2755);
        assert_eq!(fs::metadata(out.join("privkey.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_nobodys_is_not_replaced() {
        let out = tempfile::tempdir().unwrap();
        let files = Files::flat(out.path().to_owned(), "one.test");
        let data = out.path().join("..data");
        let refused = || {
            for error in [files.prepare().unwrap_err(), files.write(&Authority::new().issue(&["one.test"])).unwrap_err()] {
                assert!(matches!(&error, DeployError::Foreign { path, .. } if *path == data), "{error}");
            }
        };
        symlink("..2026_11_23", &data).unwrap();
        refused();
        fs::remove_file(&data).unwrap();
        fs::write(&data, "").unwrap();
        refused();
        fs::remove_file(&data).unwrap();
        fs::create_dir(&data).unwrap();
        refused();
        assert_eq!(names(out.path()), ["..data"]);
    }

    #[test]
    fn one_writes_at_a_time_and_what_another_left_goes() {
        let out = tempfile::tempdir().unwrap();
        let files = Files::flat(out.path().to_owned(), "one.test");
        let issued = Authority::new().issue(&["one.test"]);
        files.write(&issued).unwrap();
        let lock = disk::lock_folder(out.path()).unwrap();
        let error = files.write(&issued).unwrap_err();
        assert!(error.to_string().contains("another program is writing there") && error.may_pass(), "{error}");
        drop(lock);
        // What a crash leaves.
        fs::create_dir_all(out.path().join("..acmegate.7/nested")).unwrap();
        files.write(&issued).unwrap();
        holds(out.path(), &issued);
        assert_eq!(names(out.path())[..2], ["..acmegate.8", "..data"]);
        assert_eq!(names(out.path()).len(), 6);
    }
}
