//! Small file systems of one's own, to fill or to make read-only.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::temporary_folder;

/// A mounted tmpfs, unmounted when this is dropped.
pub struct Tmpfs {
    folder: TempDir,
}

impl Tmpfs {
    /// Mounts one of at most `size` (mount's notation, such as `4m`); `None` where mounting is not permitted.
    pub fn mount(size: &str) -> Option<Self> {
        let folder = temporary_folder("tmpfs");
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], folder.path()).then_some(Self { folder })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes it read-only.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn make_read_only(&self) {
        assert!(mount(&["-o", "remount,ro"], self.path()), "cannot make {} read-only", self.path().display());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = quiet(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    quiet(Command::new("mount").args(arguments).arg(folder))
}

fn quiet(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
