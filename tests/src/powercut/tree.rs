//! A folder as it would be found.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::fails;

/// A folder and all below it, by their paths; a file that has two names is there twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tree(pub BTreeMap<PathBuf, Entry>);

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// A folder.
    Folder,
    /// A symbolic link, and what it says.
    Link(PathBuf),
    /// A file.
    File {
        /// What it holds.
        contents: Vec<u8>,
        /// Its permission bits, as last given.
        mode: u32,
    },
}

impl Tree {
    /// Makes it in a real folder, its files last written two hours ago.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn restore(&self, to: &Path) {
        let before = SystemTime::now() - Duration::from_secs(2 * 3600);
        // A folder comes before what is in it.
        for (path, entry) in &self.0 {
            let path = to.join(path);
            let made = match entry {
                Entry::Folder => fs::create_dir(&path),
                Entry::Link(target) => symlink(target, &path),
                Entry::File { contents, mode } => fs::write(&path, contents)
                    .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(*mode)))
                    .and_then(|()| fs::File::options().append(true).open(&path)?.set_modified(before)),
            };
            made.unwrap_or_else(|error| fails(&path, &error));
        }
    }
}
