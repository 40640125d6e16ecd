//! Power cuts, and kills, between any two system calls of a program: its calls are recorded once by `strace`, and replayed in prefixes in a model of a file system that promises no more than POSIX does.
//!
//! What the model takes for sure after a cut:
//! - **Contents** of a file as they were when the file itself was last flushed (`fsync`); what was written since is there, or it is lost.
//! - **Names** in a folder as they were when that folder was last flushed. Of every change since, each may be there without the others, in any combination; what one call changes in one folder is there
//!   as a whole (a rename never loses the file), but a rename from one folder into another is two changes.
//!
//! Real file systems keep an order among changes and so lose less: ext4 and XFS by their journals, btrfs by its transactions. What holds here holds there.
//!
//! A kill (SIGKILL) loses nothing: it leaves what the last call left.

mod trace;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    process::Command,
};

pub use tree::{Entry, Tree};

use crate::{
    process::{Output, run},
    temporary_folder,
    wait::LIMIT,
};

/// Up to so many changes that are not flushed, every combination of them is looked at; above that those that differ from all or nothing by one change or by a cut in time.
const COMBINED: usize = 10;

/// How deep links may lead to links.
const LINKS: usize = 16;

/// What a program did below a folder.
pub struct Recording {
    start: Disk,
    calls: Vec<Call>,
}

impl Recording {
    /// Whether programs can be recorded here: some containers forbid it.
    ///
    /// # Panics
    /// When strace is not installed.
    pub fn is_allowed() -> bool {
        trace::is_allowed()
    }

    /// Runs a command and records it. Other programs that it starts are recorded, too, but not told from it.
    ///
    /// # Panics
    /// When strace cannot be used.
    pub async fn of(name: &str, command: &Command, root: &Path) -> (Self, Output) {
        let root = fs::canonicalize(root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        let start = Disk::copy_of(&root);
        let folder = temporary_folder("trace");
        let file = folder.path().join("trace");
        let output = run(name, trace::under_strace(command, &file), LIMIT).await;
        (Self { start, calls: trace::parse(&crate::read(&file)) }, output)
    }

    /// The same without the calls that flush.
    #[must_use]
    pub fn without_flushes(&self) -> Self {
        Self { start: self.start.clone(), calls: self.calls.iter().filter(|call| !matches!(call, Call::Flush { .. })).cloned().collect() }
    }

    /// What there is to be seen before the first call that concerns the folder, and after each.
    pub fn moments(&self) -> impl Iterator<Item = Moment> {
        let mut disk = self.start.clone();
        let first = Moment { after: "nothing yet".into(), disk: disk.clone() };
        let others = self
            .calls
            .iter()
            .filter_map(move |call| if disk.apply(call) { Some(Moment { after: format!("{call:?}"), disk: disk.clone() }) } else { None });
        std::iter::once(first).chain(others)
    }
}

/// An instant between two calls.
pub struct Moment {
    /// The call before it, for messages.
    pub after: String,
    disk: Disk,
}

impl Moment {
    /// What a kill leaves here.
    pub fn killed(&self) -> Image<'_> {
        Image { disk: &self.disk, names: self.disk.names.clone(), unflushed: Unflushed::Kept }
    }

    /// What a power cut may leave here, at its worst: nothing that was not flushed.
    pub fn cut(&self) -> Image<'_> {
        Image { disk: &self.disk, names: self.disk.flushed.clone(), unflushed: Unflushed::Lost }
    }

    /// Everything that a power cut may leave here.
    pub fn cuts(&self) -> impl Iterator<Item = Image<'_>> {
        combinations(self.disk.pending.len()).into_iter().flat_map(|kept| {
            let mut names = self.disk.flushed.clone();
            for change in self.disk.pending.iter().zip(kept).filter_map(|(change, kept)| kept.then_some(change)) {
                change.apply(&mut names);
            }
            [Unflushed::Lost, Unflushed::Kept].map(|unflushed| Image { disk: &self.disk, names: names.clone(), unflushed })
        })
    }
}

fn combinations(changes: usize) -> Vec<Vec<bool>> {
    if changes <= COMBINED {
        return (0..1_usize << changes).map(|set| (0..changes).map(|at| set >> at & 1 == 1).collect()).collect();
    }
    let mut sets = BTreeSet::new();
    for cut in 0..=changes {
        let before: Vec<_> = (0..changes).map(|at| at < cut).collect();
        let alone: Vec<_> = (0..changes).map(|at| at == cut).collect();
        for set in [before, alone] {
            sets.insert(set.iter().map(|kept| !kept).collect());
            sets.insert(set);
        }
    }
    sets.into_iter().collect()
}

/// What a disk holds when the machine, or the program, is started again.
pub struct Image<'a> {
    disk: &'a Disk,
    names: Names,
    unflushed: Unflushed,
}

impl Image<'_> {
    /// The contents of a file, by its path below the folder; links are followed. `None`: nothing can be opened there.
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        let found = self.disk.find(&self.names, ROOT, Path::new(path), true)?;
        self.contents(found.inode?)
    }

    /// All that there is.
    pub fn tree(&self) -> Tree {
        let mut tree = BTreeMap::new();
        let mut folders = vec![(PathBuf::new(), ROOT)];
        while let Some((path, folder)) = folders.pop() {
            for ((_, name), &inode) in self.names.iter().filter(|((of, _), _)| *of == folder) {
                let path = path.join(name);
                let entry = match &self.disk.nodes[inode] {
                    Node::Folder { .. } => {
                        folders.push((path.clone(), inode));
                        Entry::Folder
                    }
                    Node::Link(target) => Entry::Link(target.clone()),
                    Node::File { mode, .. } => Entry::File { contents: self.contents(inode).unwrap_or_default().to_vec(), mode: *mode },
                };
                tree.insert(path, entry);
            }
        }
        Tree(tree)
    }

    fn contents(&self, inode: Inode) -> Option<&[u8]> {
        match (&self.disk.nodes[inode], self.unflushed) {
            (Node::File { contents, .. }, Unflushed::Kept) => Some(contents),
            (Node::File { flushed, .. }, Unflushed::Lost) => Some(flushed),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Unflushed {
    Kept,
    Lost,
}

type Inode = usize;

const ROOT: Inode = 0;

type Names = BTreeMap<(Inode, OsString), Inode>;

#[derive(Debug, Clone)]
enum Node {
    File { contents: Vec<u8>, flushed: Vec<u8>, mode: u32 },
    Folder { parent: Inode },
    Link(PathBuf),
}

/// Names of one folder that change together.
#[derive(Debug, Clone)]
struct Change {
    folder: Inode,
    names: Vec<(OsString, Option<Inode>)>,
}

impl Change {
    fn apply(&self, names: &mut Names) {
        for (name, inode) in &self.names {
            let key = (self.folder, name.clone());
            match inode {
                Some(inode) => names.insert(key, *inode),
                None => names.remove(&key),
            };
        }
    }
}

/// A path as a call gives it: from an open folder, or absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
struct At {
    folder: Option<i32>,
    path: PathBuf,
}

/// A call that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Open {
        at: At,
        create: bool,
        truncate: bool,
        follow: bool,
        mode: u32,
        file: i32,
    },
    Close {
        file: i32,
    },
    Duplicate {
        file: i32,
        other: i32,
    },
    Write {
        file: i32,
        bytes: Vec<u8>,
    },
    Flush {
        file: i32,
    },
    Mode {
        at: At,
        mode: u32,
    },
    MakeFolder {
        at: At,
    },
    Symlink {
        target: PathBuf,
        at: At,
    },
    Link {
        old: At,
        new: At,
    },
    Rename {
        old: At,
        new: At,
        exchange: bool,
    },
    Remove {
        at: At,
    },
    /// One that the model does not know; it must not concern the folder.
    Unknown {
        call: String,
        on: Vec<At>,
    },
}

fn fails<T>(path: &Path, error: &std::io::Error) -> T {
    panic!("{}: {error}", path.display())
}

/// Where a path leads.
struct Found {
    folder: Inode,
    name: OsString,
    inode: Option<Inode>,
}

/// A folder and all below it, in memory and on the disk.
#[derive(Debug, Clone)]
struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    /// What programs see.
    names: Names,
    /// What is sure.
    flushed: Names,
    pending: Vec<Change>,
    open: HashMap<i32, Inode>,
}

impl Disk {
    fn empty(root: &Path) -> Self {
        let (names, flushed) = (Names::new(), Names::new());
        Self {
            root: root.to_owned(),
            nodes: vec![Node::Folder { parent: ROOT }],
            names,
            flushed,
            pending: Vec::new(),
            open: HashMap::new(),
        }
    }

    /// What a folder holds, all of it flushed.
    fn copy_of(root: &Path) -> Self {
        let mut disk = Self::empty(root);
        let mut seen = HashMap::new();
        let mut folders = vec![(root.to_owned(), ROOT)];
        while let Some((path, folder)) = folders.pop() {
            for entry in fs::read_dir(&path).unwrap_or_else(|error| fails(&path, &error)) {
                let path = entry.unwrap_or_else(|error| fails(&path, &error)).path();
                let data = fs::symlink_metadata(&path).unwrap_or_else(|error| fails(&path, &error));
                let inode = *seen.entry(data.ino()).or_insert_with(|| {
                    let node = if data.is_dir() {
                        folders.push((path.clone(), disk.nodes.len()));
                        Node::Folder { parent: folder }
                    } else if data.is_symlink() {
                        Node::Link(fs::read_link(&path).unwrap_or_else(|error| fails(&path, &error)))
                    } else {
                        let contents = fs::read(&path).unwrap_or_else(|error| fails(&path, &error));
                        Node::File { flushed: contents.clone(), contents, mode: data.mode() & 0o7777 }
                    };
                    disk.nodes.push(node);
                    disk.nodes.len() - 1
                });
                disk.names.insert((folder, path.file_name().unwrap_or_default().to_owned()), inode);
            }
        }
        disk.flushed = disk.names.clone();
        disk
    }

    /// Does what a call did. False: it did nothing below the folder.
    fn apply(&mut self, call: &Call) -> bool {
        match call {
            Call::Open { at, create, truncate, follow, mode, file } => return self.open(at, (*create, *truncate, *follow), *mode, *file),
            Call::Close { file } => {
                self.open.remove(file);
                return false;
            }
            Call::Duplicate { file, other } => {
                match self.open.get(file) {
                    Some(&inode) => self.open.insert(*other, inode),
                    None => self.open.remove(other),
                };
                return false;
            }
            Call::Write { file, bytes } => match self.open.get(file).map(|&inode| &mut self.nodes[inode]) {
                Some(Node::File { contents, .. }) => contents.extend(bytes),
                _ => return false,
            },
            Call::Flush { file } => match self.open.get(file) {
                Some(&inode) => self.flush(inode),
                None => return false,
            },
            Call::Mode { at, mode: new } => match self.locate(at, true).and_then(|found| found.inode).map(|inode| &mut self.nodes[inode]) {
                Some(Node::File { mode, .. }) => *mode = *new,
                Some(_) => {}
                None => return false,
            },
            Call::MakeFolder { at } => {
                let Some(found) = self.locate(at, false) else { return false };
                let folder = self.add(Node::Folder { parent: found.folder });
                self.change(found.folder, vec![(found.name, Some(folder))]);
            }
            Call::Symlink { target, at } => {
                let Some(found) = self.locate(at, false) else { return false };
                let link = self.add(Node::Link(target.clone()));
                self.change(found.folder, vec![(found.name, Some(link))]);
            }
            Call::Link { old, new } => match (self.locate(old, false), self.locate(new, false)) {
                (Some(old), Some(new)) => self.change(new.folder, vec![(new.name, old.inode)]),
                (None, None) => return false,
                _ => panic!("{call:?}: one end is outside {}", self.root.display()),
            },
            Call::Rename { old, new, exchange } => match (self.locate(old, false), self.locate(new, false)) {
                (Some(old), Some(new)) => {
                    let stays = if *exchange { new.inode } else { None };
                    if old.folder == new.folder {
                        self.change(new.folder, vec![(old.name, stays), (new.name, old.inode)]);
                    } else {
                        self.change(old.folder, vec![(old.name, stays)]);
                        self.change(new.folder, vec![(new.name, old.inode)]);
                    }
                }
                (None, None) => return false,
                _ => panic!("{call:?}: one end is outside {}", self.root.display()),
            },
            Call::Remove { at } => {
                let Some(found) = self.locate(at, false) else { return false };
                self.change(found.folder, vec![(found.name, None)]);
            }
            Call::Unknown { call, on } => {
                let concerns = on.iter().any(|at| self.locate(at, true).is_some());
                assert!(!concerns, "the model does not know this call: {call}");
                return false;
            }
        }
        true
    }

    fn open(&mut self, at: &At, (create, truncate, follow): (bool, bool, bool), mode: u32, file: i32) -> bool {
        let Some(found) = self.locate(at, follow) else {
            self.open.remove(&file);
            return false;
        };
        let (inode, changed) = match found.inode {
            Some(inode) => {
                let emptied = match &mut self.nodes[inode] {
                    Node::File { contents, .. } if truncate => {
                        contents.clear();
                        true
                    }
                    _ => false,
                };
                (inode, emptied)
            }
            None => {
                assert!(create, "{} was opened, and the model does not have it", at.path.display());
                let inode = self.add(Node::File { contents: Vec::new(), flushed: Vec::new(), mode });
                self.change(found.folder, vec![(found.name, Some(inode))]);
                (inode, true)
            }
        };
        self.open.insert(file, inode);
        changed
    }

    fn flush(&mut self, inode: Inode) {
        if let Node::File { contents, flushed, .. } = &mut self.nodes[inode] {
            flushed.clone_from(contents);
        }
        let (flushed, pending): (Vec<_>, _) = self.pending.drain(..).partition(|change| change.folder == inode);
        for change in flushed {
            change.apply(&mut self.flushed);
        }
        self.pending = pending;
    }

    fn add(&mut self, node: Node) -> Inode {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn change(&mut self, folder: Inode, names: Vec<(OsString, Option<Inode>)>) {
        let change = Change { folder, names };
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn locate(&self, at: &At, follow: bool) -> Option<Found> {
        if at.path.is_absolute() {
            return self.find(&self.names, ROOT, &at.path, follow);
        }
        let &folder = self.open.get(&at.folder?)?;
        self.find(&self.names, folder, &at.path, follow)
    }

    /// Follows a path. `None`: it leads out of the folder, or to nothing that could have a name.
    fn find(&self, names: &Names, from: Inode, path: &Path, follow: bool) -> Option<Found> {
        self.walk(names, from, path, follow, LINKS)
    }

    fn walk(&self, names: &Names, from: Inode, path: &Path, follow: bool, links: usize) -> Option<Found> {
        let (from, path) = if path.is_absolute() { (ROOT, path.strip_prefix(&self.root).ok()?) } else { (from, path) };
        let mut found = Found { folder: from, name: OsString::new(), inode: Some(from) };
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            let folder = found.inode?;
            found = match component {
                Component::Normal(name) => {
                    let inode = names.get(&(folder, name.to_owned())).copied();
                    Found { folder, name: name.to_owned(), inode }
                }
                Component::ParentDir => match self.nodes[folder] {
                    Node::Folder { parent } if folder != ROOT => Found { folder: parent, name: OsString::new(), inode: Some(parent) },
                    _ => return None,
                },
                _ => continue,
            };
            if let Some(Node::Link(target)) = found.inode.map(|inode| &self.nodes[inode])
                && (follow || components.peek().is_some())
            {
                found = self.walk(names, found.folder, target, true, links.checked_sub(1)?)?;
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> At {
        At { folder: None, path: Path::new("/root").join(path) }
    }

    fn create(path: &str, file: i32) -> Call {
        Call::Open { at: at(path), create: true, truncate: false, follow: false, mode: 0o600, file }
    }

    fn folder(path: &str, file: i32) -> Call {
        Call::Open { at: at(path), create: false, truncate: false, follow: false, mode: 0, file }
    }

    fn write(file: i32, text: &str) -> Call {
        Call::Write { file, bytes: text.into() }
    }

    fn flush(file: i32) -> Call {
        Call::Flush { file }
    }

    fn rename(old: &str, new: &str) -> Call {
        Call::Rename { old: at(old), new: at(new), exchange: false }
    }

    fn link(target: &str, path: &str) -> Call {
        Call::Symlink { target: target.into(), at: at(path) }
    }

    /// A disk on which `a` and `b` hold "old".
    fn recording(calls: Vec<Call>) -> Recording {
        let mut start = Disk::empty(Path::new("/root"));
        for call in [create("a", 1), write(1, "old"), flush(1), create("b", 2), write(2, "old"), flush(2), folder("", 3), flush(3)] {
            start.apply(&call);
        }
        assert!(start.pending.is_empty());
        Recording { start, calls }
    }

    /// All that can be read at two names after a cut anywhere.
    fn seen(recording: &Recording, names: [&str; 2]) -> BTreeSet<[String; 2]> {
        let text =
            |image: &Image<'_>, name| image.read(name).map_or("missing".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned());
        let moments: Vec<_> = recording.moments().collect();
        moments.iter().flat_map(|moment| moment.cuts().map(|image| names.map(|name| text(&image, name))).collect::<Vec<_>>()).collect()
    }

    fn pairs(pairs: &[[&str; 2]]) -> BTreeSet<[String; 2]> {
        pairs.iter().map(|pair| pair.map(str::to_owned)).collect()
    }

    #[test]
    fn a_file_that_is_renamed_before_it_is_flushed_may_be_empty() {
        let good = recording(vec![create("new", 4), write(4, "new"), flush(4), rename("new", "a"), flush(3)]);
        assert_eq!(seen(&good, ["a", "b"]), pairs(&[["old", "old"], ["new", "old"]]));
        let last = good.moments().last().unwrap();
        assert_eq!(last.cut().read("a"), Some(&b"new"[..]), "it was flushed");
        let late = recording(vec![create("new", 4), write(4, "new"), rename("new", "a"), flush(4), flush(3)]);
        assert!(seen(&late, ["a", "b"]).contains(&["".to_owned(), "old".to_owned()]));
        let never = good.without_flushes();
        assert!(seen(&never, ["a", "b"]).contains(&["".to_owned(), "old".to_owned()]));
        assert_eq!(never.moments().last().unwrap().cut().read("a"), Some(&b"old"[..]), "the rename may be lost");
    }

    #[test]
    fn renames_come_to_the_disk_in_any_order() {
        let mut calls = vec![create("x", 4), write(4, "new"), flush(4), create("y", 5), write(5, "new"), flush(5)];
        calls.extend([rename("x", "a"), rename("y", "b"), flush(3)]);
        let mixed = seen(&recording(calls), ["a", "b"]);
        assert_eq!(mixed, pairs(&[["old", "old"], ["new", "old"], ["old", "new"], ["new", "new"]]));
    }

    #[test]
    fn a_link_must_not_be_on_disk_before_what_it_leads_to() {
        let make = [Call::MakeFolder { at: at("v") }, folder("v", 4), create("v/a", 5), write(5, "new"), flush(5)];
        let swap = [link("v", "next"), rename("next", "data"), flush(3)];
        let good = [make.to_vec(), vec![flush(4), flush(3)], swap.to_vec()].concat();
        assert_eq!(seen(&recording(good), ["data/a", "a"]), pairs(&[["missing", "old"], ["new", "old"]]));
        // Beside one that leads to a version already, so that nothing may be missing.
        let mut before = vec![Call::MakeFolder { at: at("u") }, folder("u", 6), create("u/a", 7), write(7, "old"), flush(7), flush(6)];
        before.extend([link("u", "data"), flush(3)]);
        let from_old = |calls: Vec<Call>| {
            let mut recording = recording(calls);
            before.iter().for_each(|call| assert!(recording.start.apply(call) || matches!(call, Call::Open { .. })));
            seen(&recording, ["data/a", "a"])
        };
        assert_eq!(from_old([make.to_vec(), vec![flush(4), flush(3)], swap.to_vec()].concat()), pairs(&[["old", "old"], ["new", "old"]]));
        for wrong in [vec![], vec![flush(4)], vec![flush(3)]] {
            let seen = from_old([make.to_vec(), wrong, swap.to_vec()].concat());
            assert!(seen.contains(&["missing".to_owned(), "old".to_owned()]), "{seen:?}");
        }
    }

    #[test]
    fn an_exchange_is_one_step_and_a_rename_across_folders_is_two() {
        let exchange = Call::Rename { old: at("a"), new: at("c"), exchange: true };
        let swapped = recording(vec![create("c", 4), write(4, "new"), flush(4), flush(3), exchange]);
        assert_eq!(seen(&swapped, ["a", "c"]), pairs(&[["old", "missing"], ["old", ""], ["old", "new"], ["new", "old"]]));
        let across = recording(vec![Call::MakeFolder { at: at("f") }, folder("f", 4), flush(3), rename("a", "f/a")]);
        let seen = seen(&across, ["a", "f/a"]);
        assert_eq!(seen, pairs(&[["old", "missing"], ["missing", "missing"], ["old", "old"], ["missing", "old"]]));
    }

    #[test]
    fn descriptors_are_followed() {
        let mut disk = recording(Vec::new()).start;
        let below = |folder, path: &str| At { folder: Some(folder), path: path.into() };
        for call in [
            Call::MakeFolder { at: at("f") },
            folder("f", 8),
            Call::Duplicate { file: 8, other: 9 },
            Call::Close { file: 8 },
            Call::Link { old: at("a"), new: below(9, "a") },
            Call::Symlink { target: "../f/a".into(), at: below(9, "l") },
            Call::Remove { at: at("a") },
            Call::Open { at: below(9, "l"), create: false, truncate: false, follow: true, mode: 0, file: 10 },
            write(10, "er"),
            Call::Mode { at: below(10, ""), mode: 0o640 },
        ] {
            disk.apply(&call);
        }
        assert!(!disk.apply(&write(8, "closed")) && !disk.apply(&create("../elsewhere", 8)));
        let moment = Moment { after: String::new(), disk };
        assert_eq!((moment.killed().read("f/l"), moment.killed().read("a")), (Some(&b"older"[..]), None));
        let tree = moment.killed().tree();
        assert_eq!(tree.0[Path::new("f/a")], Entry::File { contents: b"older".to_vec(), mode: 0o640 });
        assert_eq!(moment.cut().read("a"), Some(&b"old"[..]));
        let folder = temporary_folder("restored");
        tree.restore(folder.path());
        assert_eq!(crate::read(&folder.path().join("f/l")), "older");
        assert_eq!(Disk::copy_of(folder.path()).names.len(), moment.disk.names.len());
    }

    #[test]
    #[should_panic(expected = "the model does not know this call: ftruncate")]
    fn a_call_that_the_model_does_not_know_is_not_passed_over() {
        let mut disk = recording(Vec::new()).start;
        disk.apply(&Call::Unknown { call: "ftruncate(1, 0)".into(), on: vec![At { folder: Some(1), path: PathBuf::new() }] });
    }
}
