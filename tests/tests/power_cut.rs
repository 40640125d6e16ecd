//! Power cuts and kills between any two system calls of a deployment: the real `acmegate issue` replaces a certificate, its calls are recorded, and whatever a disk may hold after each of
//! them ([`acmegate_tests::powercut`]) is looked at. It is the old certificate or the new one, whole, with its own key; and the next deployment succeeds on it and cleans up.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use acmegate_tests::{
    acmegate::command,
    certificates::{certificates, is_key_of},
    powercut::{Entry, Moment, Recording, Tree},
    process::run,
    program, read, skip, temporary_folder,
    wait::LIMIT,
    world::{World, ZONE},
    write,
};
use gateway::{
    deploy::{Files, Layout, SecretSource},
    issuer,
};
use tempfile::TempDir;

const FOUR: [&str; 4] = ["privkey.pem", "cert.pem", "chain.pem", "fullchain.pem"];

/// What stands at the published names; nothing at a name that cannot be opened.
type Published = Vec<Option<Vec<u8>>>;

struct Place {
    world: World,
    folder: TempDir,
    name: String,
}

impl Place {
    /// `None`, and the test is skipped: nothing can be recorded here.
    async fn start() -> Option<Self> {
        if !Recording::is_allowed() {
            skip("strace may not look into processes");
            return None;
        }
        Some(Self { world: World::start().await, folder: temporary_folder("cut"), name: format!("www.{ZONE}") })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn issue_command(&self, out: &Path, arguments: &[&str]) -> Command {
        let mut order = command();
        order.args(["issue", &self.name, "--directory", "testca", "--config"]).arg(self.world.acmegate.config());
        order.arg("--out").arg(out).args(arguments);
        order
    }

    async fn issue(&self, out: &Path, arguments: &[&str]) {
        run("acmegate issue", self.issue_command(out, arguments), LIMIT).await.succeeded();
    }

    /// A certificate that is deployed nowhere yet.
    async fn issued(&self) -> issuer::Issued {
        let out = temporary_folder("issued");
        self.issue(out.path(), &[]).await;
        let [key, certificate, chain, fullchain] = FOUR.map(|name| read(&out.path().join(name)));
        let issued = serde_json::json!({
            "private_key_pem": key, "certificate_pem": certificate, "chain_pem": chain, "fullchain_pem": fullchain, "names": [self.name],
            "not_before": SystemTime::now(), "not_after": SystemTime::now(), "url": "",
            "timings": { "stages": [], "total": { "secs": 0, "nanos": 0 }, "requests": 0 },
        });
        serde_json::from_value(issued).expect("a certificate")
    }

    /// Puts another certificate into the folder, with a kill and a power cut after every call.
    async fn survives(&self, arguments: &[&str], published: &[String], next: &Files) {
        let root = self.folder.path();
        let before = standing(root, published);
        let (recording, output) = Recording::of("acmegate issue", &self.issue_command(root, arguments), root).await;
        output.succeeded();
        let after = standing(root, published);
        assert_ne!(before, after);
        if !matches!(next.layout, Layout::Pkcs12 { .. }) {
            assert_pair(&after);
        }

        let replayed = replay(&recording, published, &[&before, &after]);
        assert!(replayed.wrong.is_empty(), "{:#?}", replayed.wrong);
        assert_eq!(replayed.seen, BTreeSet::from([before.clone(), after.clone()]), "it is cut before the one step, and after it");
        assert!(replayed.last == BTreeSet::from([after.clone()]), "what was reported is not on disk");
        // Were nothing flushed, it would be seen.
        assert!(!replay(&recording.without_flushes(), published, &[&before, &after]).wrong.is_empty());

        self.recovers(&replayed, published, next).await;
    }

    /// The next deployment succeeds on whatever was left, and cleans up.
    async fn recovers(&self, replayed: &Replay, published: &[String], next: &Files) {
        let issued = self.issued().await;
        let mut listings = BTreeSet::new();
        for tree in &replayed.left {
            let folder = temporary_folder("left");
            tree.restore(folder.path());
            let files = Files { folder: folder.path().to_owned(), ..next.clone() };
            files.prepare().expect("it can be written");
            files.write(&issued).expect("it is written");
            let written = standing(folder.path(), published);
            assert!(written.iter().all(Option::is_some) && !replayed.seen.contains(&written));
            if !matches!(next.layout, Layout::Pkcs12 { .. }) {
                assert_pair(&written);
            }
            listings.insert(listing(folder.path()));
        }
        assert_eq!(listings.len(), 1, "something is left: {listings:#?}");
    }
}

fn standing(folder: &Path, published: &[String]) -> Published {
    published.iter().map(|name| fs::read(folder.join(name)).ok()).collect()
}

/// What the replay of a recording showed.
#[derive(Default)]
struct Replay {
    calls: usize,
    images: usize,
    /// What stood at the names.
    seen: BTreeSet<Published>,
    /// The same after the last call.
    last: BTreeSet<Published>,
    /// What should not have been, and when.
    wrong: BTreeSet<String>,
    /// Folders as a kill or a cut at its worst leaves them.
    left: BTreeSet<Tree>,
}

fn replay(recording: &Recording, published: &[String], expected: &[&Published]) -> Replay {
    let mut replay = Replay::default();
    for moment in recording.moments() {
        replay.calls += 1;
        replay.last.clear();
        for image in moment.cuts().chain([moment.killed()]) {
            replay.images += 1;
            let set: Published = published.iter().map(|name| image.read(name).map(<[u8]>::to_vec)).collect();
            if !expected.contains(&&set) {
                replay.wrong.insert(format!("after {}: {}", shortened(&moment), describe(&set, published, expected)));
            }
            replay.seen.insert(set.clone());
            replay.last.insert(set);
        }
        for tree in [moment.killed().tree(), moment.cut().tree()] {
            for path in exposed(&tree) {
                replay.wrong.insert(format!("after {}: others may read {}", shortened(&moment), path.display()));
            }
            replay.left.insert(tree);
        }
    }
    replay
}

fn shortened(moment: &Moment) -> &str {
    moment.after.get(..200).unwrap_or(&moment.after)
}

/// A set that is none of those expected, name by name.
fn describe(set: &Published, names: &[String], expected: &[&Published]) -> String {
    let kind = |at: usize| match expected.iter().position(|expected| expected[at] == set[at]) {
        Some(0) => "the old one".to_owned(),
        Some(_) => "the new one".to_owned(),
        None => set[at].as_ref().map_or("missing".to_owned(), |bytes| format!("{} other bytes", bytes.len())),
    };
    names.iter().enumerate().map(|(at, name)| format!("{name} is {}", kind(at))).collect::<Vec<_>>().join(", ")
}

/// Files with a key that more than owner and group may read.
fn exposed(tree: &Tree) -> Vec<&PathBuf> {
    let is_exposed = |entry: &Entry| matches!(entry, Entry::File { contents, mode } if mode & 0o077 != 0 && has_key(contents));
    tree.0.iter().filter(|(_, entry)| is_exposed(entry)).map(|(path, _)| path).collect()
}

fn has_key(contents: &[u8]) -> bool {
    String::from_utf8_lossy(contents).contains("PRIVATE KEY")
}

/// All names below a folder; a number of a version is any number.
fn listing(folder: &Path) -> Vec<String> {
    let number = regex::Regex::new("[0-9]+").expect("an expression");
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(within) = folders.pop() {
        for entry in fs::read_dir(&within).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(folder).expect("a path below").display().to_string();
            names.push(number.replace_all(&name, "N").into_owned());
            if fs::symlink_metadata(&path).expect("a file").is_dir() {
                folders.push(path);
            }
        }
    }
    names.sort();
    names
}

/// Asserts that what was published is a certificate with its own key.
fn assert_pair(published: &Published) {
    let text: Vec<_> = published.iter().map(|bytes| String::from_utf8(bytes.clone().expect("a file")).expect("text")).collect();
    let chain = match &text[..] {
        [_, certificate, chain, fullchain] => {
            assert_eq!(*fullchain, format!("{certificate}{chain}"));
            certificates(fullchain)
        }
        [both] => certificates(both),
        _ => panic!("{} files", text.len()),
    };
    assert!(is_key_of(&text[0], &chain[0]), "the key is the certificate's");
}

fn four(prefix: &str) -> Vec<String> {
    FOUR.map(|name| format!("{prefix}{name}")).to_vec()
}

/// Links over links; and over four regular files, as they were written before there were links, beside a foreign file.
#[tokio::test]
async fn four_files() {
    let Some(mut place) = Place::start().await else { return };
    let next = Files::flat(PathBuf::new(), &place.name);
    place.survives(&[], &four(""), &next).await;
    place.survives(&[], &four(""), &next).await;

    let before: Vec<_> = FOUR.map(|name| (name, read(&place.path(name)))).to_vec();
    place.folder = temporary_folder("regular");
    for (name, contents) in &before {
        write(&place.path(name), contents);
    }
    fs::set_permissions(place.path("privkey.pem"), fs::Permissions::from_mode(0o600)).expect("a mode");
    write(&place.path("dhparam.pem"), "foreign");
    place.survives(&[], &four(""), &next).await;
    assert_eq!(read(&place.path("dhparam.pem")), "foreign");
    // Somebody puts files of his own over the links.
    for name in FOUR {
        let contents = read(&place.path(name));
        fs::remove_file(place.path(name)).expect("a link");
        write(&place.path(name), &contents);
    }
    fs::set_permissions(place.path("privkey.pem"), fs::Permissions::from_mode(0o600)).expect("a mode");
    place.survives(&[], &four(""), &next).await;
}

/// Its first version, the next one, and a folder of certbot's that is taken over.
#[tokio::test]
async fn the_layout_of_certbot() {
    let Some(mut place) = Place::start().await else { return };
    let next = Files { layout: Layout::Live { keep: 0 }, ..Files::flat(PathBuf::new(), &place.name) };
    let arguments = ["--layout", "live", "--keep", "1"];
    let published = four(&format!("live/{}/", place.name));
    place.survives(&arguments, &published, &next).await;
    place.survives(&arguments, &published, &next).await;
    place.survives(&arguments, &published, &next).await;

    let before: Vec<_> = published.iter().map(|path| read(&place.path(path))).collect();
    place.folder = temporary_folder("certbot");
    let (live, archive) = (place.path(&format!("live/{}", place.name)), place.path(&format!("archive/{}", place.name)));
    for folder in [&live, &archive] {
        fs::create_dir_all(folder).expect("a folder");
    }
    write(&live.join("README"), "of certbot");
    for (name, contents) in FOUR.iter().zip(&before) {
        let archived = name.replace('.', "7.");
        write(&archive.join(&archived), contents);
        symlink(format!("../../archive/{}/{archived}", place.name), live.join(name)).expect("a link");
    }
    fs::set_permissions(archive.join("privkey7.pem"), fs::Permissions::from_mode(0o600)).expect("a mode");
    place.survives(&arguments, &published, &next).await;
    assert_eq!(read(&live.join("README")), "of certbot");
}

#[tokio::test]
async fn one_file() {
    let Some(place) = Place::start().await else { return };
    let next = Files { layout: Layout::Pem, ..Files::flat(PathBuf::new(), &place.name) };
    let published = [format!("{}.pem", place.name)];
    place.survives(&["--layout", "pem"], &published, &next).await;
    place.survives(&["--layout", "pem"], &published, &next).await;
}

#[tokio::test]
async fn pkcs12() {
    let Some(place) = Place::start().await else { return };
    let secrets = temporary_folder("password");
    let password = secrets.path().join("password");
    write(&password, "s3cret");
    let from = password.to_str().expect("a path in UTF-8");
    let next =
        Files { layout: Layout::Pkcs12 { password: SecretSource::File(password.clone()) }, ..Files::flat(PathBuf::new(), &place.name) };
    let published = [format!("{}.p12", place.name)];
    let arguments = ["--layout", "pkcs12", "--p12-password-file", from];
    for _ in 0..2 {
        place.survives(&arguments, &published, &next).await;
        let mut openssl = Command::new(program("openssl"));
        openssl.args(["pkcs12", "-nodes", "-passin"]).arg(format!("file:{from}")).arg("-in").arg(place.path(&published[0]));
        let opened = run("openssl", openssl, LIMIT).await;
        assert_pair(&vec![Some(opened.succeeded().stdout.clone().into_bytes())]);
    }
}
